"""How the budget of zeros is split, and when it is spent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["row", "block", "layer"]


@dataclass(frozen=True)
class Uniform:
    """Every layer gets the same sparsity.

    Attributes:
        sparsity: Fraction of zeros in ``[0, 1)``; None where the pattern itself fixes it (N:M).
        within: What competes for the budget inside a layer: each ``row`` (of groups, for ``Group``) on its
            own, all rows of a ``block`` of neighbouring columns, or the whole ``layer``. N:M groups always
            compete alone.
    """

    sparsity: float | None = None
    within: Scope = "row"

    def __post_init__(self) -> None:
        if self.sparsity is not None and not 0.0 <= self.sparsity < 1.0:
            raise ValueError(f"Uniform: sparsity is the fraction of zeros in [0, 1), got {self.sparsity}.")
        if self.within not in ("row", "block", "layer"):
            raise ValueError(f"Uniform: within must be 'row', 'block' or 'layer', got {self.within!r}.")


@dataclass(frozen=True)
class OneShot:
    """The whole budget is spent in a single step; there is nothing to repeat."""

    def sparsity(self, final: float, step: int) -> float:
        """Sparsity after ``step`` steps on the way to ``final``."""
        return final if step > 0 else 0.0
