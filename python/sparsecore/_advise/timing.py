"""Times of layers, alone and inside a model.

Alone, every candidate runs in turn with the dense layer, so that a noisy machine disturbs all alike. A layer inside a
model finds its weights in a cache only if the model fits there: weights are therefore rotated over copies that take as
much memory as the model's layers do, up to a limit beyond which they come from memory in any case. Of a small model,
which stays in the cache, each candidate runs in a burst over its copies, the first pass not counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore._advise.quality import Candidate
from sparsecore.formats.base import PackedWeight
from sparsecore.formats.layouts import layouts_for
from sparsecore.formats.pack import pack
from sparsecore.nn.linear import SparseLinear
from sparsecore.sparsify.calibration import Batch, run_model

# Copies of one candidate's weights take about this much at most: more than a core's share of the caches of most
# machines. Below the second limit a model is taken to stay in the cache.
COLD_BYTES = 48 << 20
_WARM_BYTES = 16 << 20
# Candidates held at once; further ones are timed in another group, beside the dense layer again.
_HELD_BYTES = 3 << 30
# Up to this many tokens the layouts for decoding are tried as well.
_DECODE_TOKENS = 16


@dataclass(frozen=True)
class Timing:
    """Median and quartile range of one candidate, and the layout that was fastest."""

    seconds: float
    spread: float
    layout: str = "auto"


@dataclass
class _Runner:
    """Copies of one layer, used in turn."""

    layers: list[nn.Module]
    layout: str = "dense"
    times: list[float] = field(default_factory=list)

    def once(self, input: Tensor, turn: int) -> None:
        layer = self.layers[turn % len(self.layers)]
        start = time.perf_counter()
        layer(input)
        self.times.append(time.perf_counter() - start)

    def burst(self, input: Tensor) -> None:
        for layer in self.layers:
            layer(input)
        for turn in range(max(len(self.layers), 3)):
            self.once(input, turn)


def time_candidates(
    shape: tuple[int, int],
    tokens: int,
    candidates: Sequence[Candidate],
    seconds: float,
    dtype: torch.dtype,
    resident: int,
) -> list[Timing]:
    """Times of the dense layer and of every candidate.

    Args:
        shape: ``(out_features, in_features)``.
        tokens: Of the input.
        candidates: Besides dense.
        seconds: To spend, packing not counted.
        dtype: Of weights and inputs.
        resident: Bytes of all dense weights the layer shares the caches with.

    Returns:
        Dense first, then a timing per candidate.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator).to(dtype)
    inputs = [torch.randn(tokens, shape[1], generator=generator).to(dtype) for _ in range(2)]
    copies = max(1, min(32, math.ceil(min(resident, COLD_BYTES) / max(weight.nbytes, 1))))
    warm = resident <= _WARM_BYTES
    # A packed candidate takes about half of the dense weight, most of them less.
    size = max(1, int(_HELD_BYTES / (0.6 * copies * max(weight.nbytes, 1))) - 2)
    groups = [candidates[start : start + size] for start in range(0, len(candidates), size)]
    dense: list[list[float]] = []
    found: list[Timing] = []
    with torch.inference_mode():
        for group in groups:
            timed, of_group = _time_group(
                weight, inputs, group, copies, seconds / len(groups), warm and len(groups) == 1
            )
            dense.append(timed)
            found += of_group
    whole = _timing([value for times in dense for value in times])
    sizes = [len(group) for group in groups]
    scales = [whole.seconds / median(times) for times, n in zip(dense, sizes, strict=True) for _ in range(n)]
    scaled = [
        replace(one, seconds=one.seconds * scale, spread=one.spread * scale)
        for one, scale in zip(found, scales, strict=True)
    ]
    return [whole, *scaled]


def _time_group(
    weight: Tensor,
    inputs: Sequence[Tensor],
    candidates: Sequence[Candidate],
    copies: int,
    seconds: float,
    warm: bool,
) -> tuple[list[float], list[Timing]]:
    n, k = weight.shape
    bias = torch.zeros(n, dtype=weight.dtype)
    dense = []
    for _ in range(copies):
        linear = nn.Linear(k, n, dtype=weight.dtype, device="meta")
        linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
        linear.bias = nn.Parameter(bias.clone(), requires_grad=False)
        dense.append(linear)
    runners: list[list[_Runner]] = [[_Runner(list(dense))]]
    for candidate in candidates:
        runners.append(
            [
                _Runner([_copy(packed, bias) for _ in range(copies)], layout)
                for layout, packed in _packings(weight, candidate, inputs[0].shape[0])
            ]
        )
    every = [runner for of_candidate in runners for runner in of_candidate]
    for runner in every:
        runner.layers[0](inputs[0])
    begin, turn = time.perf_counter(), 0
    least = 3 if warm else 7
    while turn < least or (time.perf_counter() - begin < seconds and turn < 400):
        # Whoever runs after a slow neighbour meets another cache and another clock; starting points take turns.
        for offset in range(len(every)):
            runner = every[(turn + offset) % len(every)]
            if warm:
                runner.burst(inputs[turn % 2])
            else:
                runner.once(inputs[turn % 2], turn)
        turn += 1
    found = []
    for of_candidate in runners[1:]:
        best = min(of_candidate, key=lambda runner: median(runner.times))
        layout = "auto" if best is of_candidate[0] else best.layout
        found.append(replace(_timing(best.times), layout=layout))
    return runners[0][0].times, found


def _packings(weight: Tensor, candidate: Candidate, tokens: int) -> Iterator[tuple[str, PackedWeight]]:
    """The default layout, and for a few tokens the others that can hold the candidate."""
    dtype = torch.int8 if candidate.storage == "int8" else None
    first, *others = layouts_for(candidate.pattern)
    usual = pack(weight, candidate.pattern, sparsity=candidate.sparsity, dtype=dtype)
    yield first, usual
    if tokens > _DECODE_TOKENS or dtype is not None:
        return
    for layout in others:
        try:
            yield layout, pack(weight, candidate.pattern, usual.mask(), layout=layout)
        except ValueError:  # the layout has not this N:M, or this dtype
            continue


def _copy(packed: PackedWeight, bias: Tensor) -> SparseLinear:
    owned: dict[str, Any] = {name: tensor.clone() for name, tensor in packed.tensors().items()}
    return SparseLinear.from_packed(replace(packed, **owned), bias, trainable=False)


def _timing(times: Sequence[float]) -> Timing:
    low, middle, high = quantiles(times, n=4, method="inclusive")
    return Timing(middle, high - low)


@dataclass(frozen=True)
class ModelTiming:
    """A model and its layers, timed while it runs.

    Attributes:
        seconds: Median of the whole model.
        spread: Quartile range of it.
        layers: Median seconds of each layer, all its calls of a forward together.
    """

    seconds: float
    spread: float
    layers: dict[str, float]


def count_tokens(model: nn.Module, layers: Mapping[str, nn.Module], batch: Batch) -> dict[str, list[int]]:
    """Tokens of every call of each layer in one forward."""
    counts: dict[str, list[int]] = {name: [] for name in layers}

    def before(name: str, input: Tensor) -> None:
        counts[name].append(input.numel() // max(input.shape[-1], 1))

    with _hooked(layers, before, None), _as_in_use(model):
        run_model(model, batch)
    missing = [name for name, found in counts.items() if not found]
    if missing:
        raise ValueError(f"advise: data never reaches {missing[0]!r}. Add it to ignore.")
    return counts


class ModelClock:
    """Times a model and its layers on one batch, a while now and a while later.

    Several short looks spread over a minute see past a disturbance that one long look would take for the model. The
    whole is timed without hooks, the layers with them, in turn.

    Args:
        model: In any mode; it runs in eval mode and is left as it was.
        layers: By name.
        batch: What the model is called with.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module], batch: Batch) -> None:
        self._model, self._layers, self._batch = model, layers, batch
        self._whole: list[float] = []
        self._rounds: list[dict[str, float]] = []

    def look(self, seconds: float, least: int = 2) -> None:
        """Times for a while, and at least so many rounds."""
        started: dict[str, float] = {}

        def before(name: str, _: Tensor) -> None:
            started[name] = time.perf_counter()

        def after(name: str) -> None:
            self._rounds[-1][name] += time.perf_counter() - started[name]

        with _as_in_use(self._model):
            run_model(self._model, self._batch)
            begin, rounds = time.perf_counter(), 0
            while rounds < least or time.perf_counter() - begin < seconds:
                start = time.perf_counter()
                run_model(self._model, self._batch)
                self._whole.append(time.perf_counter() - start)
                self._rounds.append(dict.fromkeys(self._layers, 0.0))
                with _hooked(self._layers, before, after):
                    run_model(self._model, self._batch)
                rounds += 1

    def timing(self) -> ModelTiming:
        """Medians over all looks, of at least 5 rounds."""
        if len(self._whole) < 5:
            self.look(0.0, 5 - len(self._whole))
        timed = _timing(self._whole)
        layers = {name: median(each[name] for each in self._rounds) for name in self._layers}
        return ModelTiming(timed.seconds, timed.spread, layers)


@contextmanager
def _as_in_use(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _hooked(
    layers: Mapping[str, nn.Module],
    before: Callable[[str, Tensor], None],
    after: Callable[[str], None] | None,
) -> Iterator[None]:
    handles: list[Any] = []

    def pre_hook(name: str) -> Callable[..., None]:
        return lambda _, args, kwargs: before(name, args[0] if args else kwargs["input"])

    def post_hook(name: str, call: Callable[[str], None]) -> Callable[..., None]:
        return lambda *_: call(name)

    for name, layer in layers.items():
        handles.append(layer.register_forward_pre_hook(pre_hook(name), with_kwargs=True))
        if after is not None:
            handles.append(layer.register_forward_hook(post_hook(name, after)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
