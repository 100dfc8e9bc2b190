"""Weights of square blocks for CUDA kernels: packing, torch's BSR, the index of the transposed matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecore import reference
from sparsecore.formats.base import require_tensor
from sparsecore.ops.block_sparse import (
    BLOCK_SIZES,
    BlockIndex,
    block_sparse_linear,
    block_sparse_transpose,
    block_sparse_validate,
)


@dataclass(frozen=True, eq=False)
class BlockSparse:
    """A ``(out_features, in_features)`` matrix that keeps square blocks of 16, 32, 64 or 128.

    It is packed and unpacked on any device; products need CUDA tensors.

    Attributes:
        shape: ``(out_features, in_features)``.
        values: ``(blocks, size, size)`` bfloat16 or float16, in the order of torch's BSR; zero outside of the matrix.
        crow_indices: ``(rows + 1,)`` int32, where the blocks of each row of blocks begin.
        col_indices: ``(blocks,)`` int32, the column of each block, ascending in a row.
        order: ``(rows,)`` int32, the rows of blocks from the longest to the shortest.
        transposed: ``ccol_indices``, ``row_indices``, ``order`` and ``source`` of the transposed matrix, for the
            gradient of the input.
    """

    shape: tuple[int, int]
    values: Tensor
    crow_indices: Tensor
    col_indices: Tensor
    order: Tensor
    transposed: BlockIndex

    @classmethod
    def from_dense(cls, weight: Tensor, mask: Tensor | None = None, *, block_size: int) -> Self:
        """Packs a dense weight.

        Args:
            weight: ``(out_features, in_features)``, bfloat16 or float16.
            mask: ``(ceil(out_features / size), ceil(in_features / size))`` bool, True where a block is kept; None: the
                blocks that hold anything but zeros.
            block_size: 16, 32, 64 or 128.

        Raises:
            ValueError: A dtype, size or mask that does not fit.
        """
        owner = "BlockSparse.from_dense"
        _require_size(owner, block_size)
        if weight.dim() != 2 or weight.dtype not in (torch.bfloat16, torch.float16):
            raise ValueError(
                f"{owner}: weight must be bfloat16 or float16 with two dimensions, got {weight.dtype} of shape "
                f"{tuple(weight.shape)}. Convert it with .to(torch.bfloat16)."
            )
        n, k = weight.shape
        grid = (-(-n // block_size), -(-k // block_size))
        if mask is None:
            everything = torch.ones(grid, dtype=torch.bool, device=weight.device)
            blocks = reference.block_sparse_pack(weight, everything, block_size)[0]
            mask = (blocks != 0).flatten(1).any(1).view(grid)
        require_tensor(owner, "mask", mask.contiguous(), torch.bool, grid)
        values, crow_indices, col_indices, order = reference.block_sparse_pack(weight, mask, block_size)
        transposed = block_sparse_transpose(crow_indices, col_indices, columns=grid[1])
        return cls((n, k), values, crow_indices, col_indices, order, transposed)

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
        if values.shape[1] != size or values.dtype not in (torch.bfloat16, torch.float16):
            raise ValueError(
                f"{owner}: needs square blocks of bfloat16 or float16, got {tuple(values.shape[1:])} of {values.dtype}."
            )
        rows, columns = matrix.shape[0] // size, matrix.shape[1] // size
        crow_indices, col_indices = matrix.crow_indices().int(), matrix.col_indices().int()
        transposed = block_sparse_transpose(crow_indices, col_indices, columns=columns)
        order = reference.block_sparse_order(crow_indices)
        return cls(
            (rows * size, columns * size), values.contiguous(), crow_indices, col_indices, order, transposed
        )

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

    def to_dense(self) -> Tensor:
        """``(out_features, in_features)`` in the dtype of the values; differentiable in them."""
        return reference.block_sparse_unpack(self.values, self.crow_indices, self.col_indices, *self.shape)

    def with_values(self, values: Tensor) -> Self:
        """The same blocks with other values of the same shape."""
        if values.shape != self.values.shape:
            raise ValueError(
                f"BlockSparse.with_values: values must have shape {tuple(self.values.shape)}, got "
                f"{tuple(values.shape)}."
            )
        return replace(self, values=values)

    def to(self, device: torch.device | str) -> Self:
        """The same weight on another device."""
        ccol_indices, row_indices, order, source = (tensor.to(device) for tensor in self.transposed)
        return replace(
            self,
            values=self.values.to(device),
            crow_indices=self.crow_indices.to(device),
            col_indices=self.col_indices.to(device),
            order=self.order.to(device),
            transposed=(ccol_indices, row_indices, order, source),
        )

    def validate(self) -> Self:
        """Checks every array and every index, on the device; returns self.

        Raises:
            ValueError: What is wrong and where.
        """
        owner, size, blocks = "BlockSparse", self.block_size, len(self.col_indices)
        _require_size(owner, size)
        require_tensor(owner, "values", self.values, self.values.dtype, (blocks, size, size))
        for name, tensor, features in (
            ("order", self.order, self.shape[0]),
            ("order of the transposed matrix", self.transposed[2], self.shape[1]),
        ):
            require_tensor(owner, name, tensor, torch.int32, (-(-features // size),))
        block_sparse_validate(
            self.crow_indices,
            self.col_indices,
            self.order,
            self.transposed,
            out_features=self.shape[0],
            in_features=self.shape[1],
            block_size=size,
        )
        return self

    def linear(
        self,
        input: Tensor,
        bias: Tensor | None = None,
        *,
        activation: str = "none",
        residual: Tensor | None = None,
    ) -> Tensor:
        """``activation(input @ weight.T + bias) + residual`` of CUDA tensors, by :func:`block_sparse_linear`."""
        return block_sparse_linear(
            input,
            self.values,
            self.crow_indices,
            self.col_indices,
            self.order,
            bias=bias,
            out_features=self.shape[0],
            activation=activation,
            residual=residual,
            transposed=self.transposed,
        )


def _require_size(owner: str, size: int) -> None:
    if size not in BLOCK_SIZES:
        raise ValueError(f"{owner}: blocks are 16, 32, 64 or 128 on a side, got {size}.")
