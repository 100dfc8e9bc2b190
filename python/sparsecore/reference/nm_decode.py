"""The N:M decode layout in plain torch. It is specified in csrc/include/sparsecore/nm_decode.h."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore.reference.linear import linear

TILE = 16


def _bits(m: int) -> int:
    return max(1, (m - 1).bit_length())


def nm_decode_pack(weight: Tensor, mask: Tensor, n: int, m: int) -> tuple[Tensor, Tensor]:
    """Values ``(tiles, slots, 16)`` and codes, int32 bits ``(tiles, words, 16)``."""
    rows, k = weight.shape
    groups, tiles, bits = -(-k // m), -(-rows // TILE), _bits(m)
    pad = (0, groups * m - k, 0, tiles * TILE - rows)
    kept = torch.nn.functional.pad(mask, pad).view(tiles * TILE, groups, m)
    dense = torch.nn.functional.pad(weight, pad).view(tiles * TILE, groups, m)
    if bool((kept.sum(-1) > n).any()):
        raise ValueError(f"nm_decode_pack: the mask keeps more than {n} of some {m} columns.")
    place = torch.argsort(~kept, dim=-1, stable=True)[..., :n]  # kept columns first, in order
    used = kept.gather(-1, place)
    values = torch.where(used, dense.gather(-1, place), dense.new_zeros(()))
    code = torch.where(used, place, place.new_zeros(()))
    slots, per_word = groups * n, 32 // bits
    words = -(-slots // per_word)
    values = values.view(tiles, TILE, slots).transpose(1, 2).contiguous()
    code = torch.nn.functional.pad(code.view(tiles, TILE, slots), (0, words * per_word - slots))
    shifts = torch.arange(per_word, device=code.device) * bits
    packed = (code.view(tiles, TILE, words, per_word) << shifts).sum(-1).transpose(1, 2)
    return values, torch.where(packed >= 2**31, packed - 2**32, packed).to(torch.int32).contiguous()


def nm_decode_unpack(
    values: Tensor, codes: Tensor, out_features: int, in_features: int, n: int, m: int
) -> Tensor:
    """The dense matrix; differentiable in ``values``."""
    bits, groups = _bits(m), -(-in_features // m)
    slots, per_word, tiles = groups * n, 32 // bits, values.shape[0]
    wide = codes.to(torch.int64) & 0xFFFFFFFF
    shifts = (torch.arange(per_word, device=codes.device) * bits).view(1, 1, per_word, 1)
    code = ((wide.unsqueeze(2) >> shifts) & (2**bits - 1)).view(tiles, codes.shape[1] * per_word, TILE)[
        :, :slots
    ]
    column = code + (torch.arange(slots, device=codes.device) // n * m).view(1, slots, 1)
    dense = values.new_zeros((tiles, groups * m + 32, TILE))
    # unused slots hold value 0 at code 0, where a kept weight may already stand: add, do not overwrite
    dense = dense.scatter_add(1, column, values)
    return dense[:, :in_features].transpose(1, 2).reshape(tiles * TILE, in_features)[:out_features]


def nm_decode_linear(
    input: Tensor,
    values: Tensor,
    codes: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    out_features: int,
    n: int,
    m: int,
    activation: str = "none",
) -> Tensor:
    """``activation(input @ W.T + bias)``."""
    dense = nm_decode_unpack(values, codes, out_features, input.shape[-1], n, m)
    return linear(input, dense, scale, bias, activation)
