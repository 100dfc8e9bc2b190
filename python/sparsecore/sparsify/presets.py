"""Published methods as compositions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from sparsecore.patterns import Pattern, fixed_sparsity
from sparsecore.sparsify.allocation import Allocation, Scope, Uniform
from sparsecore.sparsify.calibration import Batch
from sparsecore.sparsify.once import prune_once
from sparsecore.sparsify.scores import Magnitude, OBSScore, Wanda
from sparsecore.sparsify.weights import ADMM, OBS, Keep


def _split(sparsity: float | Allocation | None, within: Scope) -> Allocation:
    """An allocation says itself what competes; a number is the same for every layer."""
    return Uniform(sparsity, within) if sparsity is None or isinstance(sparsity, (int, float)) else sparsity


def magnitude(
    model: nn.Module,
    pattern: Pattern,
    *,
    sparsity: float | Allocation | None = None,
    within: Scope = "layer",
    **options: Any,
) -> dict[str, Tensor]:
    """Keeps the largest weights as they are. Needs no data; options as in :func:`prune_once`."""
    return prune_once(
        model, pattern, score=Magnitude(), weights=Keep(), sparsity=_split(sparsity, within), **options
    )


def wanda(
    model: nn.Module,
    pattern: Pattern,
    data: Iterable[Batch],
    *,
    sparsity: float | Allocation | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """Keeps weights by ``|w|`` times the norm of their input, row by row (Wanda)."""
    return prune_once(model, pattern, score=Wanda(), weights=Keep(), sparsity=sparsity, data=data, **options)


def sparsegpt(
    model: nn.Module,
    pattern: Pattern,
    data: Iterable[Batch],
    *,
    sparsity: float | Allocation | None = None,
    dampening: float = 0.01,
    block_size: int = 128,
    within: Scope = "block",
    **options: Any,
) -> dict[str, Tensor]:
    """Optimal brain surgeon column by column (SparseGPT)."""
    allocation = _split(sparsity, within if fixed_sparsity(pattern) is None else "row")
    rule = OBS(block_size=block_size, dampening=dampening)
    return prune_once(
        model, pattern, score=OBSScore(), weights=rule, sparsity=allocation, data=data, **options
    )


def alps(
    model: nn.Module,
    pattern: Pattern,
    data: Iterable[Batch],
    *,
    sparsity: float | Allocation | None = None,
    within: Scope = "row",
    **options: Any,
) -> dict[str, Tensor]:
    """Alternating directions (ALPS), each layer imitating the dense model: the best one-shot rule here."""
    return prune_once(
        model,
        pattern,
        score=Wanda(),
        weights=ADMM(),
        sparsity=_split(sparsity, within),
        data=data,
        **options,
    )
