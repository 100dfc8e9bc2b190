"""Row lists in plain torch. The layout is specified in csrc/include/sparsecore/row_lists.h."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore.reference.linear import linear


def _places(offsets: Tensor, block_ptr: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Row and column of every value."""
    blocks, rows = block_ptr.shape[0], block_ptr.shape[1] - 1
    lengths = block_ptr.diff(dim=1).flatten()
    lists = torch.repeat_interleave(torch.arange(blocks * rows, device=offsets.device), lengths)
    return lists % rows, (lists // rows) * block + offsets.long()


def row_lists_pack(weight: Tensor, mask: Tensor, block: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values, offsets and block_ptr of ``weight`` (``(n, k)``) under ``mask`` (bool, True = kept)."""
    n, k = weight.shape
    blocks = -(-k // block)
    padded = torch.nn.functional.pad(mask, (0, blocks * block - k)).view(n, blocks, block).permute(1, 0, 2)
    place = padded.nonzero()
    counts = padded.sum(-1).flatten()
    ends = counts.cumsum(0).to(torch.int32).view(blocks, n)
    starts = torch.cat([ends.new_zeros(1), ends.flatten()[:-1]])[: blocks * n].view(blocks, n)
    block_ptr = torch.cat([starts, ends[:, -1:]], dim=1) if n else ends.new_zeros((blocks, 1))
    values = weight[place[:, 1], place[:, 0] * block + place[:, 2]]
    return values, place[:, 2].to(torch.uint8), block_ptr.contiguous()


def row_lists_unpack(
    values: Tensor, offsets: Tensor, block_ptr: Tensor, out_features: int, in_features: int, block: int
) -> Tensor:
    """The dense matrix; differentiable in ``values``."""
    row, column = _places(offsets, block_ptr, block)
    dense = values.new_zeros((out_features, in_features))
    return dense.index_put((row, column), values)


def row_lists_linear(
    input: Tensor,
    values: Tensor,
    offsets: Tensor,
    block_ptr: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    out_features: int,
    block: int,
    activation: str = "none",
) -> Tensor:
    """``activation(input @ W.T + bias)``; differentiable in everything that is floating point."""
    dense = row_lists_unpack(values, offsets, block_ptr, out_features, input.shape[-1], block)
    return linear(input, dense, scale, bias, activation)


def row_lists_weight_grad(
    grad_output: Tensor, input: Tensor, offsets: Tensor, block_ptr: Tensor, block: int
) -> Tensor:
    """The gradient of the kept values."""
    row, column = _places(offsets, block_ptr, block)
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    full = grad_output.flatten(0, -2).to(wide).T @ input.flatten(0, -2).to(wide)
    return full[row, column]


def row_lists_transpose(
    offsets: Tensor, block_ptr: Tensor, out_features: int, in_features: int, block: int, block_t: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets and block_ptr of the transposed matrix, and the place of each of its values in the original."""
    row, column = _places(offsets, block_ptr, block)
    number = block_ptr.new_zeros((in_features, out_features))
    number[column, row] = torch.arange(len(row), dtype=torch.int32, device=row.device)
    kept = torch.zeros_like(number, dtype=torch.bool)
    kept[column, row] = True
    order, offsets_t, block_ptr_t = row_lists_pack(number, kept, block_t)
    return offsets_t, block_ptr_t, order
