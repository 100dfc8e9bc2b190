"""Which weights a pattern keeps, given their scores: exact counts, ties to the lowest index.

A pattern decides about *units*: a weight, or the V weights of one column in V neighbouring rows when the rows share
their list. The score of a unit is the sum over its rows (the last group may have fewer), so scores must add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecore.patterns import NM, Group, Pattern, Unstructured
from sparsecore.sparsify.allocation import Scope


def top_mask(score: Tensor, keep: int) -> Tensor:
    """True at the ``keep`` largest entries along the last dimension; of equal ones the first are taken."""
    if keep >= score.shape[-1]:
        return torch.ones_like(score, dtype=torch.bool)
    if keep <= 0:
        return torch.zeros_like(score, dtype=torch.bool)
    threshold = score.kthvalue(score.shape[-1] - keep + 1, dim=-1, keepdim=True).values
    above = score > threshold
    ties = score == threshold
    room = keep - above.sum(-1, keepdim=True)
    return above | (ties & (ties.cumsum(-1) <= room))


@dataclass(frozen=True)
class Selector:
    """A pattern with its budget, ready to be asked about a matrix or about a run of its columns.

    Attributes:
        pattern: ``NM``, ``Unstructured`` or ``Group(rows, 1)``.
        sparsity: Fraction of zeros; ignored by ``NM``.
        within: What competes: see :class:`~sparsecore.sparsify.allocation.Uniform`.
    """

    pattern: Pattern
    sparsity: float
    within: Scope

    @property
    def rows(self) -> int:
        """Rows that share a decision."""
        if isinstance(self.pattern, NM):
            return self.pattern.vector
        return self.pattern.rows if isinstance(self.pattern, Group) else 1

    @property
    def step(self) -> int | None:
        """Columns that are decided together, or None where a whole run is."""
        return self.pattern.m if isinstance(self.pattern, NM) else None

    def kept(self, units: int) -> int:
        """Units kept of ``units``."""
        return round((1.0 - self.sparsity) * units)

    def mask(self, score: Tensor, start: int = 0) -> Tensor:
        """The mask of columns ``start`` to ``start + score.shape[1]``, True where a weight is kept.

        Counts of neighbouring runs add up to the count of the whole. A run of an N:M pattern starts at a group.

        Args:
            score: ``(rows, columns)``, higher is better.
            start: First column of the run.

        Returns:
            ``(rows, columns)``, bool.
        """
        units = self._units(score)
        groups, width = units.shape
        if isinstance(self.pattern, NM):
            mask = _nm_mask(units, self.pattern.n, self.pattern.m)
        elif self.within == "row":
            mask = top_mask(units, self.kept(start + width) - self.kept(start))
        else:
            keep = self.kept(groups * (start + width)) - self.kept(groups * start)
            mask = top_mask(units.flatten(), keep).view(groups, width)
        return mask.repeat_interleave(self.rows, 0)[: score.shape[0]] if self.rows > 1 else mask

    def _units(self, score: Tensor) -> Tensor:
        if self.rows == 1:
            return score
        missing = -score.shape[0] % self.rows
        padded = torch.nn.functional.pad(score, (0, 0, 0, missing))
        return padded.view(-1, self.rows, score.shape[1]).sum(1)


def _nm_mask(units: Tensor, n: int, m: int) -> Tensor:
    """The ``n`` best of every ``m``; a short last group keeps ``min(n, its width)``."""
    groups, width = units.shape
    padded = torch.nn.functional.pad(units, (0, -width % m), value=-torch.inf)
    return top_mask(padded.view(groups, -1, m), n).view(groups, -1)[:, :width]


def check(pattern: Pattern, sparsity: float | None) -> float:
    """The fraction of zeros a pattern leads to.

    Raises:
        ValueError: The pattern needs a sparsity and got none, or fixes another one, or has groups wider than a column.
    """
    if isinstance(pattern, NM):
        fixed = 1.0 - pattern.n / pattern.m
        if sparsity is not None and abs(sparsity - fixed) > 1e-9:
            raise ValueError(
                f"prune_once: {pattern} fixes the sparsity to {fixed:g}, got {sparsity:g}. Leave it out."
            )
        return fixed
    if isinstance(pattern, Group) and pattern.cols != 1:
        raise ValueError(
            f"prune_once: {pattern} spans {pattern.cols} columns; only Group(rows, 1) can be pruned."
        )
    if not isinstance(pattern, (Group, Unstructured)):
        raise TypeError(
            f"prune_once: pattern must be NM, Unstructured or Group, got {type(pattern).__name__}."
        )
    if sparsity is None:
        raise ValueError(f"prune_once: {pattern} leaves the sparsity open. Pass sparsity=0.5, say.")
    return sparsity
