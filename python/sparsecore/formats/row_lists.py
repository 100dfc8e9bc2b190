"""Row lists: for every output channel its kept columns, blocked along the input. Any per-row pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecore import reference
from sparsecore.formats.base import PackedWeight, require_tensor
from sparsecore.ops import row_lists_linear, row_lists_transpose
from sparsecore.ops._fault import first_fault
from sparsecore.ops.row_lists import TRANSPOSED_BLOCK


@dataclass(frozen=True, eq=False)
class RowLists(PackedWeight):
    """A weight as row lists; made for 32 tokens and more, right for any number.

    Attributes:
        offsets: ``(nnz,)`` uint8, column inside the block, ascending in each list.
        block_ptr: ``(blocks, out_features + 1)`` int32, where each list starts.
        block: Columns of a block: a multiple of 16, at most 256.
    """

    offsets: Tensor
    block_ptr: Tensor
    block: int

    layout: ClassVar[str] = "row_lists"
    index_names: ClassVar[tuple[str, ...]] = ("offsets", "block_ptr")
    trainable: ClassVar[bool] = True

    @property
    def stored(self) -> int:
        """Weights stored."""
        return self.values.numel()

    def to_dense(self) -> Tensor:
        """``(out_features, in_features)`` in the dtype of the values (int8: float32, scaled)."""
        return self._scaled(self._unpack(self.values))

    def mask(self) -> Tensor:
        """``(out_features, in_features)`` bool, True where a weight is stored."""
        return self._unpack(torch.ones_like(self.values, dtype=torch.int8)) != 0

    def _unpack(self, values: Tensor) -> Tensor:
        if values.dtype == torch.float64 or values.is_cuda:  # the operator is the CPU's
            return reference.row_lists_unpack(values, self.offsets, self.block_ptr, *self.shape, self.block)
        return torch.ops.sparsecore.row_lists_unpack(  # type: ignore[no-any-return]
            values.detach(), self.offsets, self.block_ptr, *self.shape, self.block
        )

    def validate(self) -> Self:
        """Checks every array and every index; returns self.

        Raises:
            ValueError: What is wrong and where.
        """
        n, k = self.shape
        self._check_common()
        if not isinstance(self.block, int) or self.block % 16 or not 16 <= self.block <= 256:
            raise ValueError(f"row_lists: block must be a multiple of 16 from 16 to 256, got {self.block}.")
        require_tensor("row_lists", "values", self.values, self.values.dtype, (None,))
        require_tensor("row_lists", "offsets", self.offsets, torch.uint8, (self.values.numel(),))
        require_tensor("row_lists", "block_ptr", self.block_ptr, torch.int32, (-(-k // self.block), n + 1))
        status, where = first_fault("row_lists", self.offsets, self.block_ptr, n, k, self.block)
        self._raise_status(status, where, "value")
        return self

    def transpose(self) -> tuple[RowLists, Tensor]:
        """The transposed weight, and ``order`` with ``values_t = values[order]``."""
        n, k = self.shape
        if self.scale is not None:
            raise ValueError("row_lists: int8 weights cannot be transposed; their scales belong to the rows.")
        offsets, block_ptr, order = self.transposed_structure()
        values = self.values.index_select(0, order)
        return (
            RowLists((k, n), self.pattern, values, None, offsets, block_ptr, TRANSPOSED_BLOCK),
            order,
        )

    def transposed_structure(self) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets and block_ptr of the transposed weight, and ``order``."""
        n, k = self.shape
        return row_lists_transpose(
            self.offsets, self.block_ptr, out_features=n, in_features=k, block=self.block
        )

    def trained_linear(
        self, input: Tensor, bias: Tensor | None, transposed: tuple[Tensor, ...] | None
    ) -> Tensor:
        """``input @ weight.T + bias`` with gradients for all three."""
        return row_lists_linear(
            input,
            self.values,
            self.offsets,
            self.block_ptr,
            bias=bias,
            out_features=self.shape[0],
            block=self.block,
            transposed=transposed,
        )

    def linear(
        self, input: Tensor, bias: Tensor | None = None, *, activation: str = "none", compute: str = "float32"
    ) -> Tensor:
        """``activation(input @ weight.T + bias)``."""
        return row_lists_linear(
            input,
            self.values,
            self.offsets,
            self.block_ptr,
            self.scale,
            bias,
            out_features=self.shape[0],
            block=self.block,
            activation=activation,
            compute=compute,
        )
