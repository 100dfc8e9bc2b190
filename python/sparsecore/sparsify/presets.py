"""Published methods as compositions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from sparsecore.patterns import NM, Pattern
from sparsecore.sparsify.allocation import Scope, Uniform
from sparsecore.sparsify.calibration import Batch
from sparsecore.sparsify.once import prune_once
from sparsecore.sparsify.scores import Magnitude, OBSScore, Wanda
from sparsecore.sparsify.weights import ADMM, OBS, Keep


def magnitude(
    model: nn.Module,
    pattern: Pattern,
    *,
    sparsity: float | None = None,
    within: Scope = "layer",
    **options: Any,
) -> dict[str, Tensor]:
    """Keeps the largest weights as they are. Needs no data; options as in :func:`prune_once`."""
    return prune_once(
        model, pattern, score=Magnitude(), weights=Keep(), sparsity=Uniform(sparsity, within), **options
    )


def wanda(
    model: nn.Module,
    pattern: Pattern,
    data: Iterable[Batch],
    *,
    sparsity: float | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """Keeps weights by ``|w|`` times the norm of their input, row by row (Wanda)."""
    return prune_once(model, pattern, score=Wanda(), weights=Keep(), sparsity=sparsity, data=data, **options)


def sparsegpt(
    model: nn.Module,
    pattern: Pattern,
    data: Iterable[Batch],
    *,
    sparsity: float | None = None,
    dampening: float = 0.01,
    block_size: int = 128,
    within: Scope = "block",
    **options: Any,
) -> dict[str, Tensor]:
    """Optimal brain surgeon column by column (SparseGPT)."""
    allocation = Uniform(sparsity, "row" if isinstance(pattern, NM) else within)
    rule = OBS(block_size=block_size, dampening=dampening)
    return prune_once(
        model, pattern, score=OBSScore(), weights=rule, sparsity=allocation, data=data, **options
    )


def alps(
    model: nn.Module,
    pattern: Pattern,
    data: Iterable[Batch],
    *,
    sparsity: float | None = None,
    within: Scope = "row",
    **options: Any,
) -> dict[str, Tensor]:
    """Alternating directions (ALPS), each layer imitating the dense model: the best one-shot rule here."""
    return prune_once(
        model,
        pattern,
        score=Wanda(),
        weights=ADMM(),
        sparsity=Uniform(sparsity, within),
        data=data,
        **options,
    )
