"""Plans: which packing a layer runs for how large an input, by measurement on this machine, dense included.

Without a plan a layer runs the layout it was packed in, which the default rule chose. A plan may keep a second layout,
or the dense weight, beside it; ``nbytes`` counts them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore._library import introspection
from sparsecore.formats.base import PackedWeight
from sparsecore.formats.layouts import layouts_for
from sparsecore.formats.pack import pack
from sparsecore.nn._packed import PackedLayer
from sparsecore.nn.conv import SparseConv2d
from sparsecore.nn.linear import SparseLinear

Weight = PackedWeight | Tensor


@dataclass(frozen=True)
class Choice:
    """What was measured for one size of input.

    Attributes:
        tokens: How many; of a convolution the pixels of all images.
        threads: torch threads while measuring.
        kept: The name of the winner: a layout, or ``"dense"``.
        seconds: Median time of each candidate.
    """

    tokens: int
    threads: int
    kept: str
    seconds: dict[str, float]

    @property
    def speedup(self) -> float:
        """Of the winner over dense."""
        return self.seconds["dense"] / self.seconds[self.kept]


@dataclass
class Plan:
    """The choices of one layer; ``str()`` lists them, :meth:`explain` says why.

    Attributes:
        name: Of the layer, in the model.
        choices: One per size of input, ascending.
        layer: The layer in words.
        unit: What is counted: ``"tokens"`` or ``"pixels"``.
        kernels: The kernel that serves each packed layout here, by layout.
    """

    name: str
    choices: list[Choice] = field(default_factory=list)
    layer: str = ""
    unit: str = "tokens"
    kernels: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{self.name}:"]
        for choice in self.choices:
            dense = choice.seconds["dense"]
            timed = ", ".join(
                f"{layout} {seconds * 1e6:.0f} us ({dense / seconds:.2f}x dense)"
                for layout, seconds in sorted(choice.seconds.items(), key=lambda item: item[1])
            )
            lines.append(
                f"  up to {choice.tokens} {self.unit}, {choice.threads} threads: {choice.kept}  [{timed}]"
            )
        return "\n".join(lines)

    def explain(self) -> str:
        """Which kernel runs the layer, what it was measured to take, and where dense was kept, why."""
        lines = [f"{self.name}: {self.layer}"]
        for choice in self.choices:
            lines.append(f"  {choice.tokens} {self.unit}, {choice.threads} threads: {self._reason(choice)}")
        return "\n".join(lines)

    def _reason(self, choice: Choice) -> str:
        microseconds = {name: f"{seconds * 1e6:.0f} us" for name, seconds in choice.seconds.items()}
        if choice.kept != "dense":
            kernel, dense = self.kernels.get(choice.kept, choice.kept), microseconds["dense"]
            return f"{kernel}, {microseconds[choice.kept]} against {dense} dense: {choice.speedup:.2f}x"
        others = {name: seconds for name, seconds in choice.seconds.items() if name != "dense"}
        best = min(others, key=lambda name: others[name])
        return (
            f"dense kept, {microseconds['dense']}: {self.kernels.get(best, best)} took {microseconds[best]}, "
            f"{others[best] / choice.seconds['dense']:.2f}x as long; more zeros or larger groups would make it faster"
        )


class Plans(list[Plan]):
    """The plans of a model's layers."""

    def explain(self) -> str:
        """Every layer explained, and the sum over the largest input of each."""
        last = [max(plan.choices, key=lambda choice: choice.tokens) for plan in self if plan.choices]
        lines = [plan.explain() for plan in self]
        if last:
            taken = sum(choice.seconds[choice.kept] for choice in last)
            dense = sum(choice.seconds["dense"] for choice in last)
            kept = sum(choice.kept == "dense" for choice in last)
            lines.append(
                f"{len(last)} layers: {taken * 1e3:.2f} ms against {dense * 1e3:.2f} ms dense, "
                f"{dense / max(taken, 1e-12):.2f}x; {kept} of them stay dense"
            )
        return "\n".join(lines)


def _median_times(
    candidates: dict[str, Weight], layer: PackedLayer, input: Tensor, seconds: float
) -> dict[str, float]:
    """Interleaved, so that a noisy machine disturbs all candidates alike."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for weight in candidates.values():
        layer._run(weight, input)
    _wait(input)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["dense"]) < 5:
        for name, weight in candidates.items():
            start = time.perf_counter()
            layer._run(weight, input)
            _wait(input)
            times[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in times.items()}


def _wait(input: Tensor) -> None:
    if input.is_cuda:
        torch.cuda.synchronize(input.device)


def _kernels(layer: PackedLayer, candidates: Iterable[str]) -> dict[str, str]:
    """The kernel that serves each packed layout here: the first row of the dispatch tables that takes the weight."""
    stored = str(layer.weight_values.dtype).removeprefix("torch.")
    rows = () if introspection is None else introspection.backends()
    found: dict[str, str] = {}
    for op, kernel, _, weights, usable in rows:
        plain = layer.compute_dtype == torch.int8 or not kernel.endswith("int8")
        for layout in candidates:
            if op.startswith(layout) and usable and plain and stored in weights.split():
                found.setdefault(layout, kernel)
    return found


def plan_layer(layer: PackedLayer, inputs: Iterable[Tensor], seconds: float, name: str) -> Plan:
    """Measures one layer on inputs of several sizes and stores the winners in it."""
    conv = isinstance(layer, SparseConv2d)
    sized = {layer._size(input): input for input in inputs}
    layer.routes = []
    own = layer.weight
    words = f"{type(layer).__name__}({layer.extra_repr()}), {own.sparsity:.1%} zeros"
    plan = Plan(
        name,
        layer=words,
        unit="pixels" if conv else "tokens",
    )
    routes: list[tuple[int, Weight]] = []
    with torch.no_grad():
        for size, input in sorted(sized.items()):
            candidates = _candidates(layer, own, input)
            measured = _median_times(candidates, layer, input, seconds)
            kept = min(measured, key=lambda layout: measured[layout])
            routes.append((size, candidates[kept]))
            plan.kernels |= _kernels(layer, candidates)
            plan.choices.append(Choice(size, torch.get_num_threads(), kept, measured))
    routes[-1] = (2**62, routes[-1][1])
    layer.routes = (
        []
        if all(route is own for _, route in routes)
        else [
            (most, own.with_values(layer.weight_values) if route is own else route) for most, route in routes
        ]
    )
    return plan


def _candidates(layer: PackedLayer, own: PackedWeight, input: Tensor) -> dict[str, Weight]:
    dense = own.to_dense().to(input.dtype)
    if isinstance(layer, SparseConv2d):
        pixels = input.is_contiguous(memory_format=torch.channels_last) and not input.is_contiguous()
        layout = torch.channels_last if pixels else torch.contiguous_format
        return {own.layout: own, "dense": layer.dense_kernel(dense).contiguous(memory_format=layout)}
    found: dict[str, Weight] = {own.layout: own, "dense": dense}
    if own.dtype != torch.int8:
        for layout_name in layouts_for(own.pattern, own.values.device.type):
            if layout_name not in found:
                found[layout_name] = pack(own.to_dense(), own.pattern, own.mask(), layout=layout_name)
    return found


def _seen(model: nn.Module, layers: Iterable[PackedLayer], example: Any) -> dict[int, list[Tensor]]:
    """What the layers get when the model runs on the example: inputs of random numbers, in the layout of the real ones.

    By ``id`` of the layer; each size once.
    """
    found: dict[int, dict[int, Tensor]] = {}

    def look(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(layer, PackedLayer)
        input = arguments[0].detach()
        if isinstance(layer, SparseConv2d) and input.dim() == 3:
            input = input.unsqueeze(0)
        if input.numel():
            found.setdefault(id(layer), {})[layer._size(input)] = torch.randn_like(input)

    handles = [layer.register_forward_pre_hook(look) for layer in layers]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if isinstance(example, dict):
                model(**example)
            elif isinstance(example, (tuple, list)):
                model(*example)
            else:
                model(example)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return {key: list(inputs.values()) for key, inputs in found.items()}


def plan_(
    model: nn.Module,
    tokens: Iterable[int] | None = None,
    *,
    example: Any = None,
    seconds: float = 0.05,
    dtype: torch.dtype = torch.float32,
) -> Plans:
    """Measures every packed layer of a model here and keeps what wins, the dense product included.

    After it no layer is slower than dense at the measured sizes on this machine. Weights are copied where another
    layout or dense wins, so plan after training, for inference; training and ``.to()`` drop the plan.

    Args:
        model: A layer or a model, changed in place.
        tokens: Numbers of tokens to measure linear layers with; each choice holds up to its count, the last one beyond.
            None: those of the example, or 1 and 128 where there is none.
        example: An input of the model (a tensor, a tuple or a mapping): each layer is measured with inputs of the size
            and layout it gets from it. Needed where the model has sparse convolutions.
        seconds: Time per layer and size.
        dtype: Of the inputs of linear layers without an example.

    Returns:
        One plan per layer; ``explain()`` says why.

    Raises:
        ValueError: No positive token count, or no example for a model with convolutions.
    """
    modules = model.named_modules()
    layers = {name or type(part).__name__: part for name, part in modules if isinstance(part, PackedLayer)}
    convolutions = [name for name, layer in layers.items() if isinstance(layer, SparseConv2d)]
    if convolutions and example is None:
        raise ValueError(
            f"plan_: {convolutions[0]!r} is a convolution, and what is fastest depends on its images. Pass "
            f"example=images, as the model gets them."
        )
    counts = [1, 128] if tokens is None else sorted(set(tokens))
    if not counts or counts[0] < 1:
        raise ValueError(f"plan_: tokens must be positive numbers, got {counts}.")
    seen = {} if example is None else _seen(model, layers.values(), example)
    plans = Plans()
    for name, layer in layers.items():
        inputs = seen.get(id(layer), [])
        if isinstance(layer, SparseLinear) and (tokens is not None or example is None):
            device = layer.weight_values.device
            inputs = [torch.randn(count, layer.in_features, dtype=dtype, device=device) for count in counts]
        if inputs:  # a layer the example does not reach keeps what it has
            plans.append(plan_layer(layer, inputs, seconds, name))
    return plans
