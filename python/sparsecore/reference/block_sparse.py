"""Square blocks, as the CUDA kernels take them, in plain torch.

The matrix is cut into blocks of ``size`` x ``size``, those at the edges filled up with zeros. Kept blocks stand as in
torch's BSR: row of blocks by row of blocks, columns ascending.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sparsecore.reference.linear import activate


def block_sparse_order(starts: Tensor) -> Tensor:
    """Rows of blocks from the longest to the shortest, equal ones ascending, ``(rows,)`` int32."""
    lengths = starts.diff().long()
    rows = torch.arange(len(lengths), device=starts.device)
    return (rows - lengths * len(lengths)).argsort().int()


def _rows(crow_indices: Tensor, entries: int) -> Tensor:
    """The row of blocks that each entry belongs to."""
    rows = torch.arange(len(crow_indices) - 1, device=crow_indices.device)
    return torch.repeat_interleave(rows, crow_indices.diff().long(), output_size=entries)


def block_sparse_pack(weight: Tensor, mask: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values, crow_indices, col_indices and order of a dense weight.

    Args:
        weight: ``(out_features, in_features)``.
        mask: ``(ceil(out_features / size), ceil(in_features / size))`` bool, True where a block is kept.
        size: Rows and columns of a block.

    Returns:
        ``values`` ``(blocks, size, size)``, ``crow_indices`` ``(rows + 1,)``, ``col_indices`` ``(blocks,)`` and
        ``order`` ``(rows,)``, int32.
    """
    rows, columns = mask.shape
    padding = (0, columns * size - weight.shape[1], 0, rows * size - weight.shape[0])
    blocks = functional.pad(weight, padding).view(rows, size, columns, size).transpose(1, 2)
    row, column = mask.nonzero(as_tuple=True)
    starts = functional.pad(mask.sum(1).cumsum(0), (1, 0)).int()
    return blocks[row, column].contiguous(), starts, column.int(), block_sparse_order(starts)


def block_sparse_transpose(
    crow_indices: Tensor, col_indices: Tensor, columns: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The index of the transposed matrix, which uses the same values.

    Args:
        crow_indices: ``(rows + 1,)`` int32.
        col_indices: ``(blocks,)`` int32.
        columns: Columns of blocks.

    Returns:
        ``ccol_indices`` ``(columns + 1,)``, ``row_indices`` ``(blocks,)``, ``order`` ``(columns,)`` and ``source``
        ``(blocks,)``, the block of each entry; int32.
    """
    row = _rows(crow_indices, len(col_indices))
    source = (col_indices.long() * (len(crow_indices) - 1) + row).argsort()
    boundaries = torch.arange(columns + 1, device=col_indices.device, dtype=torch.int32)
    starts = torch.searchsorted(col_indices[source], boundaries, out_int32=True)
    return starts, row[source].int(), block_sparse_order(starts), source.int()


def block_sparse_damage(
    crow_indices: Tensor,
    col_indices: Tensor,
    order: Tensor,
    ccol_indices: Tensor | None,
    row_indices: Tensor | None,
    order_t: Tensor | None,
    source: Tensor | None,
    out_features: int,
    in_features: int,
    block_size: int,
) -> Tensor:
    """The first fault of an index and its place, ``(2,)`` int64; 0 and -1 where there is none.

    Faults are numbered as in csrc/include/sparsecore/block_sparse_cuda.h; the smaller number comes first.
    """
    rows, columns = -(-out_features // block_size), -(-in_features // block_size)
    blocks = len(col_indices)
    faults = _index_faults(crow_indices, col_indices, order, rows, columns, blocks, (1, 2, 3))
    if ccol_indices is not None:
        assert row_indices is not None and order_t is not None and source is not None
        faults += _index_faults(ccol_indices, row_indices, order_t, columns, rows, blocks, (4, 4, 4))
        if not faults:
            row, column = row_indices.long(), _rows(ccol_indices, blocks)
            entry = source.long().clamp(0, max(blocks - 1, 0))
            wrong = (
                (source < 0)
                | (source >= blocks)
                | (entry < crow_indices[row])
                | (entry >= crow_indices[row + 1])
            )
            faults += _first(wrong | (col_indices[entry] != column), 5)
    return torch.tensor(min(faults, default=(0, -1)), dtype=torch.int64)


def _first(wrong: Tensor, fault: int) -> list[tuple[int, int]]:
    return [(fault, int(wrong.nonzero()[0]))] if wrong.any() else []


def _index_faults(
    starts: Tensor,
    index: Tensor,
    order: Tensor,
    rows: int,
    columns: int,
    blocks: int,
    faults: tuple[int, int, int],
) -> list[tuple[int, int]]:
    """Of starts, index and order: a row or entry of each that is wrong."""
    ends = torch.zeros(rows, dtype=torch.bool, device=starts.device)
    if rows == 0:
        return [(faults[0], 0)] if blocks or int(starts[0]) else []
    ends[0], ends[-1] = starts[0] != 0, starts[-1] != blocks
    ends[-1] |= (starts[0] != 0) if rows == 1 else False
    found = _first((starts[1:] < starts[:-1]) | ends, faults[0])
    if found:  # nothing else can be read by them
        return found
    outside = (index < 0) | (index >= columns)
    row = _rows(starts, blocks)
    if blocks:
        outside[1:] |= (row[1:] == row[:-1]) & (index[1:] <= index[:-1])
    return _first(outside, faults[1]) + _first(order != block_sparse_order(starts), faults[2])


def block_sparse_unpack(
    values: Tensor, crow_indices: Tensor, col_indices: Tensor, out_features: int, in_features: int
) -> Tensor:
    """The dense weight; differentiable in ``values``."""
    size, rows = values.shape[1], len(crow_indices) - 1
    columns = -(-in_features // size)
    dense = values.new_zeros((rows, columns, size, size))
    dense = dense.index_put((_rows(crow_indices, len(col_indices)), col_indices.long()), values)
    return dense.transpose(1, 2).reshape(rows * size, columns * size)[:out_features, :in_features]


def block_sparse_linear(
    input: Tensor,
    values: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    scale: Tensor | None,
    token_scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    activation: str,
    out_dtype: torch.dtype,
) -> Tensor:
    """``activation(scale * token_scale * (input @ W.T) + bias) + residual``, in float64."""
    weight = block_sparse_unpack(values.double(), crow_indices, col_indices, out_features, input.shape[-1])
    sums = input.double() @ weight.T
    if token_scale is not None:
        sums = sums * token_scale.double().view(*input.shape[:-1], 1)
    if scale is not None:
        sums = sums * scale.double()
    if bias is not None:
        sums = sums + bias.double()
    sums = activate(sums, activation)
    return (sums if residual is None else sums + residual.double()).to(out_dtype)


def block_sparse_weight_grad(
    grad_output: Tensor, input: Tensor, crow_indices: Tensor, col_indices: Tensor, size: int
) -> Tensor:
    """The gradient of the kept blocks, ``(blocks, size, size)``, in float64; 0 for what belongs to no weight."""
    full = grad_output.flatten(0, -2).double().T @ input.flatten(0, -2).double()
    rows, columns = len(crow_indices) - 1, -(-input.shape[-1] // size)
    padding = (0, columns * size - full.shape[1], 0, rows * size - full.shape[0])
    blocks = functional.pad(full, padding).view(rows, size, columns, size).transpose(1, 2)
    return blocks[_rows(crow_indices, len(col_indices)), col_indices.long()]
