"""How much a weight is worth: higher means keep. Scores are local to a layer.

A score sees the current weight and, per input column, what calibration says about it; it never sees the
pattern. It may therefore be asked about any run of columns, which is what the column-by-column weight rules
do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Columns:
    """Calibration statistics of a run of input columns.

    Attributes:
        norm: ``(columns,)``, root mean square of the input, or None without data.
        pivot: ``(columns,)``, diagonal of U where ``H^-1 = U^T U``: its square is what the inverse second
            moment of a column becomes once all columns before it are settled. None without data.
    """

    norm: Tensor | None = None
    pivot: Tensor | None = None


class Score(Protocol):
    """Value of every weight of a matrix."""

    requires: ClassVar[frozenset[str]]  # which of the statistics, of {"norm", "pivot"}

    def __call__(self, weight: Tensor, columns: Columns) -> Tensor:
        """Scores ``weight`` ``(rows, columns)``; the result has its shape."""
        ...


@dataclass(frozen=True)
class Magnitude:
    """``w^2``: orders weights as ``|w|`` does, and adds up over the rows of a group."""

    requires: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, weight: Tensor, columns: Columns) -> Tensor:
        return weight.square()


@dataclass(frozen=True)
class Wanda:
    """``w^2 E[x_j^2]``: the squared change of the output if this weight alone went."""

    requires: ClassVar[frozenset[str]] = frozenset({"norm"})

    def __call__(self, weight: Tensor, columns: Columns) -> Tensor:
        assert columns.norm is not None
        return weight.square() * columns.norm.square()


@dataclass(frozen=True)
class OBSScore:
    """``w^2 / U_jj^2``: the loss of removing a weight when the columns after it make up for it."""

    requires: ClassVar[frozenset[str]] = frozenset({"pivot"})

    def __call__(self, weight: Tensor, columns: Columns) -> Tensor:
        assert columns.pivot is not None
        return weight.square() / columns.pivot.square()
