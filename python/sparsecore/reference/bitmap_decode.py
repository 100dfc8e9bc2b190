"""The bitmap layout in plain torch. It is specified in csrc/include/sparsecore/bitmap_decode.h."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore.reference.linear import linear


def bitmap_decode_pack(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values ``(nnz,)``, bitmap as int64 bits ``(n, ceil(k / 64))`` and row_ptr ``(n + 1,)``."""
    n, k = weight.shape
    words = -(-k // 64)
    bits = torch.nn.functional.pad(mask, (0, words * 64 - k)).view(n, words, 64).to(torch.int64)
    bitmap = (bits << torch.arange(64, device=mask.device)).sum(-1)  # wraps into the sign bit, as wanted
    row_ptr = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0)).to(torch.int32)
    return weight[mask], bitmap, row_ptr


def bitmap_decode_unpack(
    values: Tensor, bitmap: Tensor, row_ptr: Tensor, out_features: int, in_features: int
) -> Tensor:
    """The dense matrix; differentiable in ``values``."""
    bits = (bitmap.unsqueeze(-1) >> torch.arange(64, device=bitmap.device)) & 1
    mask = bits.view(out_features, bitmap.shape[1] * 64)[:, :in_features].bool()
    return values.new_zeros((out_features, in_features)).masked_scatter(mask, values)


def bitmap_decode_linear(
    input: Tensor,
    values: Tensor,
    bitmap: Tensor,
    row_ptr: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    out_features: int,
    activation: str = "none",
) -> Tensor:
    """``activation(input @ W.T + bias)``."""
    dense = bitmap_decode_unpack(values, bitmap, row_ptr, out_features, input.shape[-1])
    return linear(input, dense, scale, bias, activation)
