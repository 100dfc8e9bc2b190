"""Shared lists: V neighbouring output channels keep the same columns. NM(n, m, vector=V) and Group(V, 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecore import reference
from sparsecore._library import has_kernel
from sparsecore.formats.base import PackedWeight, require_tensor
from sparsecore.formats.row_lists import RowLists
from sparsecore.ops import shared_lists_linear, shared_lists_transpose
from sparsecore.ops._fault import first_fault
from sparsecore.ops.row_lists import TRANSPOSED_BLOCK


@dataclass(frozen=True, eq=False)
class SharedLists(PackedWeight):
    """A weight as shared lists.

    Attributes:
        columns: ``(records,)`` int16, the bits of uint16: the kept columns of each group, ascending.
        group_ptr: ``(groups + 1,)`` int32, the first record of each group.
    """

    columns: Tensor
    group_ptr: Tensor

    layout: ClassVar[str] = "shared_lists"
    index_names: ClassVar[tuple[str, ...]] = ("columns", "group_ptr")
    trainable: ClassVar[bool] = True
    int8_products: ClassVar[bool] = True

    @classmethod
    def wide_indices(cls, values: Tensor, attributes: Mapping[str, Any]) -> frozenset[str]:
        """The columns."""
        return frozenset({"columns"})

    @property
    def vector(self) -> int:
        """Output channels that share a list."""
        return int(self.values.shape[1])

    def to_dense(self) -> Tensor:
        """``(out_features, in_features)`` in the dtype of the values (int8: float32, scaled)."""
        return self._scaled(self._unpack(self.values))

    def mask(self) -> Tensor:
        """``(out_features, in_features)`` bool, True where a weight is stored."""
        return self._unpack(torch.ones_like(self.values, dtype=torch.int8)) != 0

    def _unpack(self, values: Tensor) -> Tensor:
        if values.dtype == torch.float64 or (
            values.is_cuda and not has_kernel("shared_lists_unpack", "cuda")
        ):
            return reference.shared_lists_unpack(values, self.columns, self.group_ptr, *self.shape)
        return torch.ops.sparsecore.shared_lists_unpack(  # type: ignore[no-any-return]
            values.detach(), self.columns, self.group_ptr, *self.shape
        )

    def validate(self) -> Self:
        """Checks every array and every index; returns self.

        Raises:
            ValueError: What is wrong and where.
        """
        n, k = self.shape
        self._check_common()
        require_tensor("shared_lists", "values", self.values, self.values.dtype, (None, None))
        if self.vector not in (4, 8, 16, 32, 64):
            raise ValueError(f"shared_lists: vector must be 4, 8, 16, 32 or 64, got {self.vector}.")
        require_tensor("shared_lists", "columns", self.columns, torch.int16, (self.values.shape[0],))
        require_tensor("shared_lists", "group_ptr", self.group_ptr, torch.int32, (-(-n // self.vector) + 1,))
        status, where = first_fault("shared_lists", self.columns, self.group_ptr, self.vector, n, k)
        self._raise_status(status, where, "record")
        return self

    def transpose(self) -> tuple[RowLists, Tensor]:
        """The transposed weight as row lists, and ``order`` with ``values_t = values.flatten()[order]``."""
        n, k = self.shape
        if self.scale is not None:
            raise ValueError(
                "shared_lists: int8 weights cannot be transposed; their scales belong to the rows."
            )
        offsets, block_ptr, order = self._transposed()
        values = self.values.flatten().index_select(0, order)
        return (
            RowLists((k, n), self.pattern, values, None, offsets, block_ptr, TRANSPOSED_BLOCK),
            order,
        )

    def transposed_structure(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """Offsets and block_ptr of the transposed weight as row lists, and ``order``; None on a GPU."""
        return None if self.columns.is_cuda else self._transposed()

    def _transposed(self) -> tuple[Tensor, Tensor, Tensor]:
        n, k = self.shape
        return shared_lists_transpose(
            self.columns, self.group_ptr, vector=self.vector, out_features=n, in_features=k
        )

    def trained_linear(
        self, input: Tensor, bias: Tensor | None, transposed: tuple[Tensor, ...] | None
    ) -> Tensor:
        """``input @ weight.T + bias`` with gradients for all three."""
        return shared_lists_linear(
            input,
            self.values,
            self.columns,
            self.group_ptr,
            bias=bias,
            out_features=self.shape[0],
            transposed=transposed,
        )

    def linear(
        self, input: Tensor, bias: Tensor | None = None, *, activation: str = "none", compute: str = "float32"
    ) -> Tensor:
        """``activation(input @ weight.T + bias)``."""
        return shared_lists_linear(
            input,
            self.values,
            self.columns,
            self.group_ptr,
            self.scale,
            bias,
            out_features=self.shape[0],
            activation=activation,
            compute=compute,
        )
