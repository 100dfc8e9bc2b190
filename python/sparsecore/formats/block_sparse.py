"""Weights of square blocks for CUDA kernels: packing, torch's BSR, the index of the transposed matrix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecore import reference
from sparsecore.formats.base import PackedWeight, require_tensor
from sparsecore.ops.block_sparse import (
    BLOCK_SIZES,
    BlockIndex,
    block_sparse_linear,
    block_sparse_transpose,
    block_sparse_validate,
)
from sparsecore.patterns import Group

_STORED = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True, eq=False)
class BlockSparse(PackedWeight):
    """A weight that keeps square blocks of 16, 32, 64 or 128, as torch's BSR, for tensor cores.

    It is packed and unpacked on any device; products need CUDA tensors, of bfloat16 and float16. float32 values are
    narrowed for one: to the dtype of autocast, or to float16 where ``compute`` is ``"float16"``.

    Attributes:
        values: ``(blocks, size, size)``, row of blocks by row of blocks; zero outside of the matrix.
        crow_indices: ``(rows + 1,)`` int32, where the blocks of each row of blocks begin.
        col_indices: ``(blocks,)`` int32, the column of each block, ascending in a row.
        order: ``(rows,)`` int32, the rows of blocks from the longest to the shortest.
    """

    crow_indices: Tensor
    col_indices: Tensor
    order: Tensor

    layout: ClassVar[str] = "block_sparse"
    index_names: ClassVar[tuple[str, ...]] = ("crow_indices", "col_indices", "order")
    trainable: ClassVar[bool] = True

    @property
    def stored(self) -> int:
        """Weights stored inside the matrix."""
        size, (n, k) = self.block_size, self.shape
        rows = torch.arange(len(self.crow_indices) - 1, device=self.crow_indices.device)
        row = torch.repeat_interleave(rows, self.crow_indices.diff().long())
        height = (n - size * row).clamp(max=size)
        width = (k - size * self.col_indices.long()).clamp(max=size)
        return int((height * width).sum())

    @classmethod
    def from_dense(cls, weight: Tensor, mask: Tensor | None = None, *, block_size: int) -> Self:
        """Packs a dense weight.

        Args:
            weight: ``(out_features, in_features)``, bfloat16, float16 or float32.
            mask: ``(ceil(out_features / size), ceil(in_features / size))`` bool, True where a block is kept; None: the
                blocks that hold anything but zeros.
            block_size: 16, 32, 64 or 128.

        Raises:
            ValueError: A dtype, size or mask that does not fit.
        """
        owner = "BlockSparse.from_dense"
        _require_size(owner, block_size)
        if weight.dim() != 2 or weight.dtype not in _STORED:
            raise ValueError(
                f"{owner}: weight must be bfloat16, float16 or float32 with two dimensions, got {weight.dtype} of "
                f"shape {tuple(weight.shape)}. Convert it with .to(torch.bfloat16)."
            )
        n, k = weight.shape
        grid = (-(-n // block_size), -(-k // block_size))
        if mask is None:
            everything = torch.ones(grid, dtype=torch.bool, device=weight.device)
            blocks = reference.block_sparse_pack(weight, everything, block_size)[0]
            mask = (blocks != 0).flatten(1).any(1).view(grid)
        require_tensor(owner, "mask", mask.contiguous(), torch.bool, grid)
        packed = reference.block_sparse_pack(weight, mask, block_size)
        values, crow_indices, col_indices, order = packed
        pattern = Group(block_size, block_size)
        return cls((n, k), pattern, values, None, crow_indices, col_indices, order)

    @classmethod
    def from_bsr(cls, matrix: Tensor) -> Self:
        """Takes the values and indices of a torch BSR matrix with square blocks of 16, 32, 64 or 128.

        Raises:
            ValueError: Another layout, dtype or block size.
        """
        owner = "BlockSparse.from_bsr"
        if matrix.layout != torch.sparse_bsr or matrix.dim() != 2:
            raise ValueError(
                f"{owner}: needs a torch.sparse_bsr matrix of two dimensions, got {matrix.layout}. Convert it with "
                ".to_sparse_bsr((64, 64))."
            )
        values = matrix.values()
        size = values.shape[-1]
        _require_size(owner, size)
        if values.shape[1] != size or values.dtype not in _STORED:
            raise ValueError(
                f"{owner}: needs square blocks of bfloat16, float16 or float32, got "
                f"{tuple(values.shape[1:])} of {values.dtype}."
            )
        rows, columns = matrix.shape[0] // size, matrix.shape[1] // size
        crow_indices, col_indices = matrix.crow_indices().int(), matrix.col_indices().int()
        order = reference.block_sparse_order(crow_indices)
        shape, pattern = (rows * size, columns * size), Group(size, size)
        return cls(shape, pattern, values.contiguous(), None, crow_indices, col_indices, order)

    def to_bsr(self) -> Tensor:
        """A torch BSR matrix over the same values.

        Raises:
            ValueError: A shape that is no multiple of the block size, which BSR cannot have.
        """
        size = self.block_size
        if self.shape[0] % size or self.shape[1] % size:
            raise ValueError(
                f"BlockSparse.to_bsr: {self.shape} is no multiple of the block size {size}. Use to_dense()."
            )
        return torch.sparse_bsr_tensor(
            self.crow_indices, self.col_indices, self.values, self.shape, check_invariants=True
        )

    @property
    def block_size(self) -> int:
        """Rows and columns of a block."""
        return int(self.values.shape[1])

    @cached_property
    def transposed(self) -> BlockIndex:
        """``ccol_indices``, ``row_indices``, ``order`` and ``source`` of the transposed matrix."""
        columns = -(-self.shape[1] // self.block_size)
        return block_sparse_transpose(self.crow_indices, self.col_indices, columns=columns)

    def transposed_structure(self) -> BlockIndex:
        """:attr:`transposed`, for the gradient of the input."""
        return self.transposed

    @property
    def proves_pattern(self) -> bool:
        """Its arrays can hold nothing else."""
        return True

    def to_dense(self) -> Tensor:
        """``(out_features, in_features)`` in the dtype of the values; differentiable in them."""
        return self._unpack(self.values)

    def mask(self) -> Tensor:
        """``(out_features, in_features)`` bool, True where a weight is stored, be its value zero or not."""
        return self._unpack(torch.ones_like(self.values, dtype=torch.int8)) != 0

    def _unpack(self, values: Tensor) -> Tensor:
        dense = reference.block_sparse_unpack(values, self.crow_indices, self.col_indices, *self.shape)
        return dense.contiguous()

    def validate(self) -> Self:
        """Checks every array and every index; returns self. Waits for the device.

        Raises:
            ValueError: What is wrong and where.
        """
        owner, blocks = self.layout, self.col_indices.numel()
        self._check_common()
        if self.values.dtype not in _STORED:
            raise ValueError(
                f"{owner}: values must be bfloat16, float16 or float32, got {self.values.dtype}. Pack the weight as "
                "group_lists for a CPU, or in one of these."
            )
        require_tensor(owner, "values", self.values, self.values.dtype, (None, None, None))
        size = self.block_size
        _require_size(owner, size)
        if self.pattern != Group(size, size):
            raise ValueError(
                f"{owner}: blocks of {size} must have the pattern Group({size}, {size}), got {self.pattern!r}."
            )
        require_tensor(owner, "values", self.values, self.values.dtype, (blocks, size, size))
        rows = -(-self.shape[0] // size)
        for name, tensor, entries in (
            ("crow_indices", self.crow_indices, rows + 1),
            ("col_indices", self.col_indices, blocks),
            ("order", self.order, rows),
        ):
            require_tensor(owner, name, tensor, torch.int32, (entries,))
        if not self.values.is_meta:
            block_sparse_validate(
                self.crow_indices,
                self.col_indices,
                self.order,
                self.__dict__.get("transposed"),
                out_features=self.shape[0],
                in_features=self.shape[1],
                block_size=size,
            )
            self._require_zeros_outside()
        return self

    def _require_zeros_outside(self) -> None:
        """Refuses weights past the last output or input, which a product by whole blocks would add to others."""
        (n, k), size = self.shape, self.block_size
        values, last = self.values.detach(), len(self.crow_indices) - 2
        below = values[int(self.crow_indices[last]) :, n - size * last :] if n else values
        beside = values[self.col_indices == (k - 1) // size, :, k - (k - 1) // size * size :] if k else values
        if below.any() or beside.any():
            raise ValueError(
                f"{self.layout}: what lies outside of the {n} x {k} matrix must be zero. The packed weight is damaged; "
                "pack it again."
            )

    def trained_linear(
        self, input: Tensor, bias: Tensor | None, transposed: tuple[Tensor, ...] | None
    ) -> Tensor:
        """``input @ weight.T + bias`` with gradients for all three."""
        return self._product(input, bias, "none", "float32", None, transposed)

    def linear(
        self,
        input: Tensor,
        bias: Tensor | None = None,
        *,
        activation: str = "none",
        compute: str = "float32",
        residual: Tensor | None = None,
    ) -> Tensor:
        """``activation(input @ weight.T + bias) + residual`` of CUDA tensors, by :func:`block_sparse_linear`.

        Raises:
            ValueError: float32 values without a dtype for the product.
        """
        return self._product(input, bias, activation, compute, residual, self.__dict__.get("transposed"))

    def _product(
        self,
        input: Tensor,
        bias: Tensor | None,
        activation: str,
        compute: str,
        residual: Tensor | None,
        transposed: tuple[Tensor, ...] | None,
    ) -> Tensor:
        input, values, wanted = self._halves(input, compute)
        return block_sparse_linear(
            input,
            values,
            self.crow_indices,
            self.col_indices,
            self.order,
            bias=bias,
            out_features=self.shape[0],
            activation=activation,
            residual=residual,
            out_dtype=wanted,
            transposed=transposed,  # type: ignore[arg-type]
        )


def _require_size(owner: str, size: int) -> None:
    if size not in BLOCK_SIZES:
        raise ValueError(f"{owner}: blocks are 16, 32, 64 or 128 on a side, got {size}.")
