"""Plans: which layout a layer runs for how many tokens, by measurement on this machine, dense included.

Without a plan a layer runs the layout it was packed in, which the default rule chose: row lists for per-row patterns,
shared lists for shared ones. A plan may keep a second layout, or the dense matrix, beside it; ``nbytes`` counts them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor, nn

from sparsecore.formats.base import PackedWeight
from sparsecore.formats.pack import layouts_for, pack
from sparsecore.nn.linear import SparseLinear


@dataclass(frozen=True)
class Choice:
    """What was measured for one number of tokens.

    Attributes:
        tokens: How many.
        threads: torch threads while measuring.
        kept: The name of the winner: a layout, or ``"dense"``.
        seconds: Median time of each candidate.
    """

    tokens: int
    threads: int
    kept: str
    seconds: dict[str, float]


@dataclass
class Plan:
    """The choices of one layer; ``str()`` explains them."""

    name: str
    choices: list[Choice] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.name}:"]
        for choice in self.choices:
            dense = choice.seconds["dense"]
            timed = ", ".join(
                f"{layout} {seconds * 1e6:.0f} us ({dense / seconds:.2f}x dense)"
                for layout, seconds in sorted(choice.seconds.items(), key=lambda item: item[1])
            )
            lines.append(
                f"  up to {choice.tokens} tokens, {choice.threads} threads: {choice.kept}  [{timed}]"
            )
        return "\n".join(lines)


def _median_times(
    candidates: dict[str, PackedWeight | Tensor], layer: SparseLinear, input: Tensor, seconds: float
) -> dict[str, float]:
    """Interleaved, so that a noisy machine disturbs all candidates alike."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for weight in candidates.values():
        layer._run(weight, input)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["dense"]) < 5:
        for name, weight in candidates.items():
            start = time.perf_counter()
            layer._run(weight, input)
            times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def plan_layer(
    layer: SparseLinear, tokens: Iterable[int], seconds: float, dtype: torch.dtype, name: str
) -> Plan:
    """Measures one layer and stores the winners in it."""
    counts = sorted(set(tokens))
    if not counts or counts[0] < 1:
        raise ValueError(f"plan_: tokens must be positive numbers, got {list(tokens)}.")
    layer.routes = []
    own = layer.weight
    plan = Plan(name)
    routes: list[tuple[int, PackedWeight | Tensor]] = []
    with torch.no_grad():
        dense = own.to_dense().to(dtype)
        candidates: dict[str, PackedWeight | Tensor] = {own.layout: own, "dense": dense}
        if own.dtype != torch.int8:
            for layout in layouts_for(own.pattern):
                if layout not in candidates:
                    candidates[layout] = pack(own.to_dense(), own.pattern, own.mask(), layout=layout)
        for count in counts:
            input = torch.randn(count, layer.in_features, dtype=dtype)
            measured = _median_times(candidates, layer, input, seconds)
            kept = min(measured, key=lambda layout: measured[layout])
            routes.append((count, candidates[kept]))
            plan.choices.append(Choice(count, torch.get_num_threads(), kept, measured))
    routes[-1] = (2**62, routes[-1][1])
    layer.routes = (
        []
        if all(route is own for _, route in routes)
        else [
            (most, own.with_values(layer.weight_values) if route is own else route) for most, route in routes
        ]
    )
    return plan


def plan_(
    model: nn.Module,
    tokens: Iterable[int] = (1, 128),
    *,
    seconds: float = 0.05,
    dtype: torch.dtype = torch.float32,
) -> list[Plan]:
    """Measures every :class:`SparseLinear` of a model here and keeps what wins, the dense product included.

    After it no layer is slower than dense at the measured token counts on this machine. Weights are copied where
    another layout or dense wins, so plan after training, for inference; training and ``.to()`` drop the plan.

    Args:
        model: A layer or a model, changed in place.
        tokens: Numbers of tokens to measure; each choice holds up to its count, the last one beyond.
        seconds: Time per layer and token count.
        dtype: Of the inputs.

    Returns:
        One explained plan per layer.
    """
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, SparseLinear)]
    counts = list(tokens)
    return [plan_layer(layer, counts, seconds, dtype, name or "SparseLinear") for name, layer in layers]
