"""A pattern with a budget, asked about whole matrices or about runs of their columns.

A pattern decides about *units*: a weight, or the weights of a group of rows and columns. The score of a unit is the sum
over its weights (at the edges it may have fewer), so scores must add up.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparsecore.formats.select import (
    choose_nm,
    decided_rows,
    score_units,
    spread_units,
    top_mask,
    unit_shape,
    vnm_mask,
)
from sparsecore.formats.variable_select import choose_codes, variable_mask
from sparsecore.patterns import NM, VNM, Channel, Group, Pattern, Unstructured, VariableNM, fixed_sparsity
from sparsecore.sparsify.allocation import Scope


@dataclass(frozen=True)
class Selector:
    """A pattern with its budget, ready to be asked about a matrix or about a run of its columns.

    Attributes:
        pattern: ``NM``, ``VNM``, ``Unstructured``, ``Group`` or ``Channel``.
        sparsity: Fraction of zeros; ignored by ``NM`` and ``VNM``.
        within: What competes: see :class:`~sparsecore.sparsify.allocation.Uniform`.
    """

    pattern: Pattern
    sparsity: float
    within: Scope

    @property
    def rows(self) -> int:
        """Rows that share a decision."""
        return decided_rows(self.pattern)

    @property
    def align(self) -> int:
        """Runs of columns start at a multiple of this."""
        return self.pattern.m if isinstance(self.pattern, (NM, VNM)) else unit_shape(self.pattern)[1]

    @property
    def step(self) -> int | None:
        """Columns that are decided together, or None where a whole run is."""
        return self.pattern.m if isinstance(self.pattern, (NM, VNM)) else None

    @property
    def whole(self) -> bool:
        """Whether all units of a matrix compete, so that it cannot be decided run by run."""
        return isinstance(self.pattern, (Channel, VariableNM)) or (
            self.step is None and self.within == "layer"
        )

    def kept(self, units: int) -> int:
        """Units kept of ``units``."""
        return round((1.0 - self.sparsity) * units)

    def mask(self, score: Tensor, start: int = 0) -> Tensor:
        """The mask of columns ``start`` to ``start + score.shape[1]``, True where a weight is kept.

        Counts of neighbouring runs add up to the count of the whole. A run starts at a multiple of ``align``.

        Args:
            score: ``(rows, columns)``, higher is better.
            start: First column of the run.

        Returns:
            ``(rows, columns)``, bool.
        """
        if isinstance(self.pattern, VariableNM):
            return variable_mask(score, choose_codes(score, sparsity=self.sparsity, empty=True))
        if isinstance(self.pattern, VNM):
            return vnm_mask(score, self.pattern)
        units = score_units(score, self.pattern)
        groups, width = units.shape
        start //= unit_shape(self.pattern)[1]
        if isinstance(self.pattern, NM):
            mask = choose_nm(units, self.pattern)
        elif self.within == "row" and not isinstance(self.pattern, Channel):
            mask = top_mask(units, self.kept(start + width) - self.kept(start))
        else:
            keep = self.kept(groups * (start + width)) - self.kept(groups * start)
            mask = top_mask(units.flatten(), keep).view(groups, width)
        return spread_units(mask, self.pattern, (score.shape[0], score.shape[1]))


def check(pattern: Pattern, sparsity: float | None) -> float:
    """The fraction of zeros a pattern leads to.

    Raises:
        ValueError: The pattern needs a sparsity and got none, or fixes another one.
    """
    fixed = fixed_sparsity(pattern)
    if fixed is not None:
        if sparsity is not None and abs(sparsity - fixed) > 1e-9:
            raise ValueError(
                f"prune_once: {pattern} fixes the sparsity to {fixed:g}, got {sparsity:g}. Leave it out."
            )
        return fixed
    if not isinstance(pattern, (Group, Unstructured, Channel, VariableNM)):
        raise TypeError(
            "prune_once: pattern must be NM, VNM, Unstructured, Group, Channel or VariableNM, got "
            f"{type(pattern).__name__}."
        )
    if sparsity is None:
        raise ValueError(f"prune_once: {pattern} leaves the sparsity open. Pass sparsity=0.5, say.")
    return sparsity
