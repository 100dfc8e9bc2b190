"""How the budget of zeros is split over layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor

Scope = Literal["row", "block", "layer"]


@dataclass(frozen=True)
class Layer:
    """What an allocation needs to know of a layer.

    Attributes:
        shape: Of the weight, ``(out, in)`` or ``(out, in, *kernel)``.
        units: Weights or groups that are kept or dropped together.
        legal: Unit counts the pattern allows, or None: any.
    """

    shape: tuple[int, ...]
    units: int
    legal: tuple[int, ...] | None = None


class Allocation(Protocol):
    """Splits a budget of zeros over layers."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    requires: ClassVar[frozenset[str]]  # of {"score", "norm"}: what it compares layers by, if by anything

    @property
    def sparsity(self) -> float | None:
        """Fraction of zeros over all layers; None where the pattern fixes it."""
        ...

    @property
    def within(self) -> Scope:
        """What competes inside a layer."""
        ...

    def kept(self, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """Units kept of each layer."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Every layer gets the same sparsity.

    Attributes:
        sparsity: Fraction of zeros in ``[0, 1)``; None where the pattern itself fixes it (N:M).
        within: What competes for the budget inside a layer: each ``row`` (of groups, for ``Group``) on its
            own, all rows of a ``block`` of neighbouring columns, or the whole ``layer``. N:M groups always
            compete alone.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    sparsity: float | None = None
    within: Scope = "row"

    def __post_init__(self) -> None:
        if self.sparsity is not None and not 0.0 <= self.sparsity < 1.0:
            raise ValueError(f"Uniform: sparsity is the fraction of zeros in [0, 1), got {self.sparsity}.")
        if self.within not in ("row", "block", "layer"):
            raise ValueError(f"Uniform: within must be 'row', 'block' or 'layer', got {self.within!r}.")

    def kept(self, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """The same share of each layer's units."""
        if self.sparsity is None:
            raise ValueError("Uniform: sparsity is None, so the pattern has to say how much is kept.")
        return {name: round((1.0 - self.sparsity) * layer.units) for name, layer in layers.items()}
