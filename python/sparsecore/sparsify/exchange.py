"""The exchange of dynamic sparse training: drop the weakest, grow as many, and keep to the pattern."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore.formats.select import nm_mask, spread, tiles, top_mask
from sparsecore.patterns import NM, VNM, Channel, Pattern
from sparsecore.sparsify.allocation import Scope


def competitors(pattern: Pattern, within: Scope, shape: torch.Size) -> tuple[int, int]:
    """Units that compete with each other: ``(sets, width)`` blocks of the units in row-major order.

    Args:
        pattern: N:M and V:N:M groups compete alone.
        within: ``"layer"``, or ``"row"`` for everything else.
        shape: ``(groups, columns)`` of the units.
    """
    groups, columns = shape
    if isinstance(pattern, (NM, VNM)):
        return groups * -(-columns // pattern.m), pattern.m
    alone = within == "row" and not isinstance(pattern, Channel)
    return (groups, columns) if alone else (1, groups * columns)


def exchange(active: Tensor, score: Tensor, growth: Tensor, count: int, sets: tuple[int, int]) -> Tensor:
    """Drops the ``count`` weakest active units and grows, in each set, as many as it lost.

    Ties go to the lowest index. A unit that was just dropped may grow again.

    Args:
        active: ``(groups, columns)`` bool.
        score: Of the same shape: what an active unit is worth.
        growth: Of the same shape, not negative: who comes back first.
        count: Units to exchange; at most the active ones.
        sets: From :func:`competitors`.

    Returns:
        The new ``(groups, columns)`` bool with as many True in every set as before.
    """
    groups, columns = active.shape
    if count <= 0 or active.numel() == 0:
        return active.clone()
    cost = (-score).masked_fill(~active, -torch.inf)
    dropped = top_mask(cost.flatten(), min(count, int(active.sum()))).view_as(active) & active
    kept = active & ~dropped
    pad = -columns % sets[1] if sets[0] >= groups else 0

    def by_set(units: Tensor, fill: float) -> Tensor:
        padded = torch.nn.functional.pad(units.float(), (0, pad), value=fill)
        return padded.reshape(sets)

    lost = by_set(dropped, 0.0).sum(1, keepdim=True)
    rank_score = by_set(growth.float().masked_fill(kept, -torch.inf), -torch.inf)
    order = rank_score.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(sets[1], device=order.device).expand(sets).contiguous())
    grown = (rank < lost).view(groups, columns + pad)[:, :columns]
    return kept | grown


def exchange_picked(mask: Tensor, score: Tensor, growth: Tensor, count: int, pattern: VNM) -> Tensor:
    """The exchange under V:N:M, where a row may grow what its run has picked.

    Up to half of the weights go with whole columns of runs, the weakest sums first, for which the runs pick others; the
    rest are the weakest weights. Then every row grows, in each group, as many as it lost.

    Args:
        mask: ``(rows, columns)`` bool that follows the pattern.
        score: Of the same shape, not negative: what a kept weight is worth.
        growth: Of the same shape, not negative: who comes back first.
        count: Weights to exchange; at most the kept ones.
        pattern: Who picks together.

    Returns:
        The new mask, with as many True in every group of a row as before.
    """

    def of_runs(values: Tensor) -> Tensor:
        return tiles(values, pattern.vector, 1).sum((1, 3))

    kept = of_runs(mask.int())
    used = kept > 0
    weakest = of_runs(score * mask).masked_fill(~used, torch.inf).flatten().argsort(stable=True)
    going = torch.zeros_like(used).flatten()
    going[weakest] = kept.flatten()[weakest].cumsum(0) <= count // 2
    stays = used & ~going.view_as(used)
    picked = nm_mask(of_runs(growth).masked_fill(stays, torch.inf), 4, pattern.m)
    free = spread(picked, pattern.vector, 1, (mask.shape[0], mask.shape[1]))
    return exchange(
        mask,
        score.masked_fill(~free, -torch.inf),
        growth.masked_fill(~free, -torch.inf),
        count,
        competitors(pattern, "layer", mask.shape),
    )


def exchange_units(
    pattern: Pattern, within: Scope, active: Tensor, score: Tensor, growth: Tensor, count: int
) -> Tensor:
    """The exchange that a pattern allows: :func:`exchange_picked` or, among competitors, :func:`exchange`."""
    if isinstance(pattern, VNM):
        return exchange_picked(active, score, growth, count, pattern)
    return exchange(active, score, growth, count, competitors(pattern, within, active.shape))
