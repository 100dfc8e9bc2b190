"""The variable N:16 layout in plain torch. It is specified in csrc/include/sparsecore/variable_nm.h."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsecore.reference.linear import linear

BLOCK = 16


def _stored(codes: Tensor) -> Iterator[tuple[int, int, int]]:
    """Block row, block column and N of every block that is not empty, in the order of storage."""
    for row, line in enumerate(codes.tolist()):
        for kept in (2, 4, 8, 16):
            for column, code in enumerate(line):
                if code == kept:
                    yield row, column, kept


def variable_nm_pack(weight: Tensor, mask: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``(slots, 16)`` and indices ``(pairs, 16)``, uint8."""
    values, indices = [weight.new_zeros((0, BLOCK))], [codes.new_zeros((0, BLOCK))]
    for row, column, kept in _stored(codes):
        here = (slice(row * BLOCK, (row + 1) * BLOCK), slice(column * BLOCK, (column + 1) * BLOCK))
        keeps, dense = mask[here], weight[here]
        if bool((keeps.sum(1) > kept).any()):
            raise ValueError(f"variable_nm_pack: the mask keeps more than {kept} of some 16 inputs.")
        place = (
            torch.argsort(~keeps, dim=1, stable=True)[:, :kept].sort(1).values
        )  # kept ones, filled up in order
        values.append(torch.where(keeps, dense, dense.new_zeros(())).gather(1, place).T)
        if kept < BLOCK:
            pairs = place.T.view(kept // 2, 2, BLOCK)
            indices.append((pairs[:, 0] | pairs[:, 1] << 4).to(torch.uint8))
    return torch.cat(values).contiguous(), torch.cat(indices).contiguous()


def variable_nm_unpack(
    values: Tensor, indices: Tensor, codes: Tensor, out_features: int, in_features: int
) -> Tensor:
    """The dense matrix; differentiable in ``values``."""
    rows, columns = [], []
    pair = 0
    for row, column, kept in _stored(codes):
        if kept == BLOCK:
            place = torch.arange(BLOCK, device=codes.device)[:, None].expand(BLOCK, BLOCK)
        else:
            both = indices[pair : pair + kept // 2].long()
            place = torch.stack([both & 15, both >> 4], 1).view(kept, BLOCK)
            pair += kept // 2
        columns.append(place + column * BLOCK)
        rows.append(torch.arange(row * BLOCK, (row + 1) * BLOCK, device=codes.device).expand(kept, BLOCK))
    dense = values.new_zeros((out_features, in_features))
    if not rows:
        return dense
    return dense.index_put((torch.cat(rows), torch.cat(columns)), values)


def variable_nm_linear(
    input: Tensor,
    values: Tensor,
    indices: Tensor,
    codes: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    out_features: int,
    activation: str = "none",
) -> Tensor:
    """``activation(input @ W.T + bias)``."""
    dense = variable_nm_unpack(values, indices, codes, out_features, input.shape[-1])
    return linear(input, dense, scale, bias, activation)
