"""Which units a pattern keeps, given a score: exact counts, ties to the lowest index, groups never cross rows.

A *unit* is what is kept or dropped as one: a weight, or the weights of one column in the rows that share a list.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore.patterns import NM, Group, Pattern


def top_mask(score: Tensor, keep: int) -> Tensor:
    """True at the ``keep`` largest entries along the last dimension; of equal ones the first are taken."""
    if keep >= score.shape[-1]:
        return torch.ones_like(score, dtype=torch.bool)
    if keep <= 0 or score.numel() == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    threshold = score.kthvalue(score.shape[-1] - keep + 1, dim=-1, keepdim=True).values
    above = score > threshold
    ties = score == threshold
    room = keep - above.sum(-1, keepdim=True)
    return above | (ties & (ties.cumsum(-1) <= room))


def nm_mask(units: Tensor, n: int, m: int) -> Tensor:
    """The ``n`` best of every ``m`` along the last dimension; a short last group keeps ``min(n, its width)``."""
    rows, width = units.shape
    padded = torch.nn.functional.pad(units, (0, -width % m), value=-torch.inf)
    groups = padded.shape[1] // m
    return top_mask(padded.view(rows, groups, m), n).reshape(rows, groups * m)[:, :width]


def shared_rows(pattern: Pattern) -> int:
    """Neighbouring output channels that share their columns under this pattern."""
    if isinstance(pattern, NM):
        return pattern.vector
    return pattern.rows if isinstance(pattern, Group) else 1


def unit_scores(score: Tensor, rows: int) -> Tensor:
    """Sums of ``score`` over runs of ``rows`` rows, ``(ceil(n / rows), k)``; the last run may be short."""
    if rows == 1:
        return score
    padded = torch.nn.functional.pad(score, (0, 0, 0, -score.shape[0] % rows))
    return padded.view(padded.shape[0] // rows, rows, score.shape[1]).sum(1)


def spread(units: Tensor, rows: int, out_features: int) -> Tensor:
    """A mask of units as a mask of weights."""
    return units.repeat_interleave(rows, 0)[:out_features] if rows > 1 else units


def select_mask(score: Tensor, pattern: Pattern, sparsity: float | None = None) -> Tensor:
    """The mask of the best units.

    Args:
        score: ``(out_features, in_features)``, non-negative, higher is better.
        pattern: What may be kept together. ``NM`` fixes how much; the others need ``sparsity``.
        sparsity: Fraction of zeros in ``[0, 1)`` over the whole matrix. None: every unit with a score above 0.

    Returns:
        ``(out_features, in_features)``, bool, True where kept.

    Raises:
        ValueError: A sparsity outside ``[0, 1)``, or one that contradicts an N:M pattern.
    """
    if sparsity is not None and not 0.0 <= sparsity < 1.0:
        raise ValueError(f"select_mask: sparsity is the fraction of zeros in [0, 1), got {sparsity}.")
    rows = shared_rows(pattern)
    units = unit_scores(score.float(), rows)
    if isinstance(pattern, NM):
        fixed = 1.0 - pattern.n / pattern.m
        if sparsity is not None and abs(sparsity - fixed) > 1e-9:
            raise ValueError(
                f"select_mask: {pattern} fixes the sparsity to {fixed:g}, got {sparsity:g}. Leave it out."
            )
        mask = nm_mask(units, pattern.n, pattern.m)
    elif sparsity is None:
        mask = units > 0
    else:
        mask = top_mask(units.flatten(), round((1.0 - sparsity) * units.numel())).view(units.shape)
    return spread(mask, rows, score.shape[0])
