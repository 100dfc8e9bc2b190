"""Advice: which layer takes which pattern on this machine, by measurement, within a budget of time or of quality.

Every distinct layer shape is timed here with each candidate pattern beside the dense product, with weights as warm or
as cold as they are inside the model. What a pattern costs in quality is estimated layer by layer:

    with data       a relative change of the model's output, ||f(V) - f(W)||^2 / ||f(W) - mean||^2, V being W pruned by
                    Wanda's score in that layer alone; measured with one candidate, and for the others in proportion
                    to the error of the layer's own output, ||(W - V) x||^2
    without data    ||W - V||^2 / ||W||^2, V being W pruned by magnitude

Costs of layers are added up. That is a surrogate: changes by different layers do not add exactly, large ones saturate,
and better pruning than Wanda's, or training, lowers all of them. It orders assignments; it does not predict accuracy.

The assignment is a multiple-choice knapsack (one pattern per layer, least cost within the time), solved exactly on a
fine grid of time steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, TypeAlias, cast

import torch
from torch import nn

from sparsecore._advise.advice import Advice, Check, LayerAdvice, Option
from sparsecore._advise.quality import Candidate, model_costs, random_costs
from sparsecore._advise.timing import (
    COLD_BYTES,
    ModelClock,
    ModelTiming,
    Timing,
    count_tokens,
    time_candidates,
)
from sparsecore.patterns import Pattern, fixed_sparsity, pattern_name
from sparsecore.patterns import pattern as parse_pattern
from sparsecore.sparsify._progress import bar
from sparsecore.sparsify.calibration import Batch
from sparsecore.sparsify.selection import check
from sparsecore.sparsify.targets import find_targets

__all__ = ["CANDIDATES", "Advice", "Check", "LayerAdvice", "Option", "advise"]

Shape = tuple[int, int]
Entry: TypeAlias = (
    str | Pattern | tuple[str | Pattern, float | None] | tuple[str | Pattern, float | None, str | None]
)

CANDIDATES: tuple[tuple[str, float | None], ...] = (
    ("unstructured", 0.5),
    ("unstructured", 0.7),
    ("unstructured", 0.8),
    ("unstructured", 0.9),
    ("unstructured", 0.95),
    ("2:4", None),
    ("1:4", None),
    ("2:4/16", None),
    ("2:4/64", None),
    ("1:4/64", None),
    ("16x1", 0.75),
    ("16x1", 0.9),
)


def advise(
    model_or_shapes: nn.Module | Mapping[str, Shape] | Sequence[Shape],
    *,
    batch: int = 128,
    threads: int | None = None,
    seconds: float = 10.0,
    patterns: Sequence[Entry] | None = None,
    quality: float | None = None,
    latency: float | str | None = None,
    data: Iterable[Batch] | None = None,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
    dtype: torch.dtype = torch.float32,
    progress: bool = True,
) -> Advice:
    """Measures candidate patterns for every linear layer on this machine and proposes an assignment.

    Args:
        model_or_shapes: A model, or ``(out_features, in_features)`` of layers, by name or in a list.
        batch: Tokens a layer sees at once; with ``data`` the number in its first batch counts instead.
        threads: torch threads while measuring; None: as they are.
        seconds: Time for the measurements, packing not counted.
        patterns: Candidates: patterns or short names, pairs with a sparsity where the pattern leaves it open, or
            triples with ``"int8"`` to store the values so: ``("2:4", None, "int8")``. None: a dozen from unstructured
            50 % to 16x1 groups.
        quality: Largest mean cost; the proposal is the fastest within it.
        latency: Longest time, a share of the dense time or ``"12ms"``; the proposal costs least within it. With
            neither budget each layer gets its fastest option, and the advice lists what lies between.
        data: Calibration batches: token counts, quality and the time of the whole model are then known.
        targets: Layers, as for :func:`sparsecore.sparsify.prune_once`.
        ignore: The same, to leave out. Subclasses of ``nn.Linear`` are left out in any case: they cannot be packed.
        dtype: Of weights and inputs while measuring.
        progress: Show a progress bar.

    Returns:
        The advice; nothing is changed.

    Raises:
        ValueError: No layer, an unknown pattern, or a budget no assignment meets.
    """
    if batch < 1 or not seconds > 0.0 or (threads is not None and threads < 1):
        raise ValueError(
            f"advise: needs batch >= 1, seconds > 0 and threads >= 1 or None, got {batch}, {seconds} and {threads}."
        )
    if quality is not None and latency is not None:
        raise ValueError("advise: give a latency or a quality budget, not both.")
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"advise: dtype must be float32, bfloat16 or float16, got {dtype}.")
    candidates = _candidates(patterns)
    model = model_or_shapes if isinstance(model_or_shapes, nn.Module) else None
    batches = None if data is None else list(data)
    if batches is not None and (model is None or not batches):
        raise ValueError("advise: data needs a model to go through, and at least one batch.")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        layers: dict[str, nn.Linear] = {}
        if model is None:
            shapes = _named_shapes(cast("Mapping[str, Shape] | Sequence[Shape]", model_or_shapes))
        else:
            layers = _packable(model, targets, ignore)
            shapes = {name: (layer.out_features, layer.in_features) for name, layer in layers.items()}
        calls = {name: [batch] for name in shapes}
        clock: ModelClock | None = None
        if model is not None and batches is not None:
            calls = count_tokens(model, layers, batches[0])
            if all(p.dtype == dtype or not p.is_floating_point() for p in model.parameters()):
                clock = ModelClock(model, layers, batches[0])
        keys = {name: (shape, round(sum(calls[name]) / len(calls[name]))) for name, shape in shapes.items()}
        width = dtype.itemsize
        resident = sum(n * k for n, k in shapes.values()) * width if model is not None else COLD_BYTES
        distinct = list(dict.fromkeys(keys.values()))
        times: dict[tuple[Shape, int], list[Timing]] = {}
        with bar(len(distinct), "measuring layers", progress, "shape") as advance:
            for shape, tokens in distinct:
                share = seconds / len(distinct)
                if clock is not None:
                    share *= 0.8
                    clock.look(0.2 * seconds / (len(distinct) + 1))
                times[shape, tokens] = time_candidates(shape, tokens, candidates, share, dtype, resident)
                advance()
        if clock is not None:
            clock.look(0.2 * seconds / (len(distinct) + 1))
        whole = None if clock is None else clock.timing()
        if model is None:
            judged = {shape: random_costs(shape, candidates) for shape in dict.fromkeys(shapes.values())}
            costs = {name: judged[shape] for name, shape in shapes.items()}
        else:
            costs = model_costs(model, layers, candidates, batches, progress)
        used = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    scale = _inside(whole, keys, times)
    found = []
    for name, key in keys.items():
        factor = len(calls[name]) * scale.get(key, 1.0)
        dense, *timed = times[key]
        options = [Option("dense", None, dense.seconds * factor, dense.spread * factor, 0.0)]
        for one, timing, cost in zip(candidates, timed, costs[name], strict=True):
            seen, spread = timing.seconds * factor, timing.spread * factor
            options.append(Option(one.name, one.sparsity, seen, spread, cost, one.storage, timing.layout))
        found.append(LayerAdvice(name, key[0], key[1], tuple(options)))
    rest = None if whole is None else max(whole.seconds - sum(one.options[0].seconds for one in found), 0.0)
    estimate = "random" if model is None else "weights" if batches is None else "calibration"
    advice = Advice(tuple(found), used, str(dtype).removeprefix("torch."), estimate, rest)
    if latency is None and quality is None:
        return advice.fastest()
    return advice.choose(latency=latency, quality=quality)


def _inside(
    whole: ModelTiming | None,
    keys: Mapping[str, tuple[Shape, int]],
    times: Mapping[tuple[Shape, int], Sequence[Timing]],
) -> dict[tuple[Shape, int], float]:
    """How much longer a dense layer of each shape takes inside the model than alone; sparse ones follow it."""
    if whole is None:
        return {}
    return {
        key: median(whole.layers[name] for name in keys if keys[name] == key) / times[key][0].seconds
        for key in times
    }


def _candidates(patterns: Sequence[Entry] | None) -> list[Candidate]:
    found: list[Candidate] = []
    for entry in CANDIDATES if patterns is None else patterns:
        given: Any = entry if isinstance(entry, tuple) else (entry,)
        if not 1 <= len(given) <= 3:
            raise ValueError(
                f"advise: a candidate is a pattern, a sparsity and a storage at most, got {entry!r}."
            )
        pattern = parse_pattern(given[0])
        sparsity = given[1] if len(given) > 1 else None
        storage = given[2] if len(given) > 2 else None
        if fixed_sparsity(pattern) is None and sparsity is None:
            raise ValueError(
                f"advise: {pattern} leaves the sparsity open. Pass ({pattern_name(pattern)!r}, 0.5), say."
            )
        if storage not in (None, "int8"):
            raise ValueError(f'advise: values are stored as "int8" or None, got {storage!r}.')
        check(pattern, sparsity)
        found.append(Candidate(pattern, sparsity if fixed_sparsity(pattern) is None else None, storage))
    if not found:
        raise ValueError("advise: patterns is empty.")
    return found


def _packable(model: nn.Module, targets: Sequence[str], ignore: Sequence[str]) -> dict[str, nn.Linear]:
    layers = {
        name: layer
        for name, layer in find_targets(model, targets, ignore).items()
        if type(layer) is nn.Linear
    }
    if not layers:
        raise ValueError("advise: there is no plain nn.Linear among the targets.")
    return layers


def _named_shapes(shapes: Mapping[str, Shape] | Sequence[Shape]) -> dict[str, Shape]:
    named = dict(shapes) if isinstance(shapes, Mapping) else {str(i): shape for i, shape in enumerate(shapes)}
    if not named:
        raise ValueError("advise: there is no layer to advise on.")
    for name, shape in named.items():
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"advise: {name!r} must be (out_features, in_features), got {tuple(shape)}.")
    return {name: (int(shape[0]), int(shape[1])) for name, shape in named.items()}
