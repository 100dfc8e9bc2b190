"""Shared lists in plain torch. The layout is specified in csrc/include/sparsecore/shared_lists.h."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore.reference.linear import linear
from sparsecore.reference.row_lists import row_lists_pack


def _groups(group_ptr: Tensor) -> Tensor:
    """The group of every record."""
    groups = len(group_ptr) - 1
    return torch.repeat_interleave(torch.arange(groups, device=group_ptr.device), group_ptr.diff())


def _columns(columns: Tensor) -> Tensor:
    """The columns as indices: they are stored as the bits of uint16."""
    return columns.to(torch.int64) & 0xFFFF


def shared_lists_pack(weight: Tensor, mask: Tensor, vector: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values, columns and group_ptr of ``weight`` (``(n, k)``); ``mask`` is ``(ceil(n / vector), k)``."""
    place = mask.nonzero()
    padded = torch.nn.functional.pad(weight, (0, 0, 0, -weight.shape[0] % vector))
    values = padded.view(padded.shape[0] // vector, vector, weight.shape[1])[place[:, 0], :, place[:, 1]]
    group_ptr = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0)).to(torch.int32)
    return values.contiguous(), place[:, 1].to(torch.int16), group_ptr


def shared_lists_unpack(
    values: Tensor, columns: Tensor, group_ptr: Tensor, out_features: int, in_features: int
) -> Tensor:
    """The dense matrix; differentiable in ``values``."""
    groups = len(group_ptr) - 1
    dense = values.new_zeros((groups, in_features, values.shape[1]))
    dense = dense.index_put((_groups(group_ptr), _columns(columns)), values)
    return dense.transpose(1, 2).reshape(groups * values.shape[1], in_features)[:out_features]


def shared_lists_linear(
    input: Tensor,
    values: Tensor,
    columns: Tensor,
    group_ptr: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    out_features: int,
    activation: str = "none",
) -> Tensor:
    """``activation(input @ W.T + bias)``; differentiable in everything that is floating point."""
    dense = shared_lists_unpack(values, columns, group_ptr, out_features, input.shape[-1])
    return linear(input, dense, scale, bias, activation)


def shared_lists_weight_grad(
    grad_output: Tensor, input: Tensor, columns: Tensor, group_ptr: Tensor, vector: int
) -> Tensor:
    """The gradient of the kept values, ``(records, vector)``; 0 for channels past the last."""
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    full = grad_output.flatten(0, -2).to(wide).T @ input.flatten(0, -2).to(wide)
    padded = torch.nn.functional.pad(full, (0, 0, 0, -full.shape[0] % vector))
    return padded.view(padded.shape[0] // vector, vector, full.shape[1])[
        _groups(group_ptr), :, _columns(columns)
    ]


def shared_lists_transpose(
    columns: Tensor, group_ptr: Tensor, vector: int, out_features: int, in_features: int, block_t: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The transposed matrix as row lists, and the place of each of its values among all elements of ``values``."""
    count = len(columns) * vector
    number = torch.arange(1, count + 1, dtype=torch.int32, device=columns.device).view(-1, vector)
    dense = shared_lists_unpack(number, columns, group_ptr, out_features, in_features).T
    order, offsets_t, block_ptr_t = row_lists_pack(dense, dense > 0, block_t)
    return offsets_t, block_ptr_t, order - 1
