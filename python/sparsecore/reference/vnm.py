"""V:N:M weights with N = 2 in plain torch. The layout is specified in csrc/include/sparsecore/vnm_cuda.h."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore.reference.linear import activate
from sparsecore.reference.semi_structured import semi_structured_unpack

NO_COLUMN = 0xFFFF
"""Stands in ``columns`` where a group of inputs has fewer than four."""


def vnm_columns(columns: Tensor) -> Tensor:
    """The columns as indices: they are stored as the bits of uint16."""
    return columns.to(torch.int64) & 0xFFFF


def vnm_select(weight: Tensor, vector: int, m: int) -> Tensor:
    """The four inputs of every ``m`` that each run of ``vector`` channels picks: the largest sums of magnitudes.

    Args:
        weight: ``(n, k)``, or a mask of that shape, whose kept inputs come first.
        vector: Channels that pick together.
        m: Inputs of a group, at least 4.

    Returns:
        ``(ceil(n / vector), 4 * ceil(k / m))`` int16, ascending in each group; of equal inputs the first.
    """
    n, k = weight.shape
    runs, groups = -(-n // vector), -(-k // m)
    padded = torch.nn.functional.pad(weight.float().abs(), (0, 0, 0, runs * vector - n))
    scores = torch.nn.functional.pad(padded.view(runs, vector, k).sum(1), (0, groups * m - k), value=-1.0)
    picked = (
        scores.view(runs, groups, m).argsort(dim=-1, descending=True, stable=True)[..., :4].sort(-1).values
    )
    picked = (picked + m * torch.arange(groups, device=weight.device)[:, None]).flatten(1)
    picked = torch.where(picked < k, picked, NO_COLUMN)
    return torch.where(picked > 0x7FFF, picked - 0x10000, picked).to(torch.int16)


def vnm_gather(dense: Tensor, columns: Tensor, vector: int) -> Tensor:
    """The picked matrix ``(n, picked)`` of a dense ``(n, k)``; 0 where there is no column."""
    index = vnm_columns(columns).repeat_interleave(vector, 0)[: dense.shape[0]]
    exists = index < dense.shape[1]
    if dense.shape[1] == 0:
        return dense.new_zeros(index.shape)
    gathered = dense.gather(1, index.clamp(max=dense.shape[1] - 1))
    return torch.where(exists, gathered, torch.zeros((), dtype=dense.dtype, device=dense.device))


def vnm_scatter(picked: Tensor, columns: Tensor, vector: int, in_features: int) -> Tensor:
    """The dense ``(n, in_features)`` of a picked matrix."""
    index = vnm_columns(columns).repeat_interleave(vector, 0)[: picked.shape[0]]
    # What has no column goes into one more, which is cut off.
    dense = picked.new_zeros(picked.shape[0], in_features + 1)
    return dense.scatter(1, index.clamp(max=in_features), picked)[:, :in_features].contiguous()


def vnm_unpack(
    values: Tensor, metadata: Tensor, columns: Tensor, out_features: int, in_features: int, vector: int
) -> Tensor:
    """The dense weight ``(out_features, in_features)``."""
    picked = semi_structured_unpack(values, metadata, out_features, columns.shape[1])
    return vnm_scatter(picked, columns, vector, in_features)


def vnm_linear(
    input: Tensor,
    values: Tensor,
    metadata: Tensor,
    columns: Tensor,
    scale: Tensor | None,
    token_scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    vector: int,
    activation: str,
    out_dtype: torch.dtype,
) -> Tensor:
    """``activation(scale * token_scale * (input @ W.T) + bias) + residual``, in float64."""
    weight = vnm_unpack(values, metadata, columns, out_features, input.shape[-1], vector)
    output = input.double() @ weight.double().T
    if scale is not None:
        output = output * scale
    if token_scale is not None:
        output = output * token_scale.reshape(*input.shape[:-1], 1)
    output = activate(output if bias is None else output + bias.double(), activation)
    return (output if residual is None else output + residual.double()).to(out_dtype)
