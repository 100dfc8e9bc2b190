"""2:4 weights as sparse tensor cores take them, in plain torch.

The layout is that of ``csrc/include/sparsecore/semi_structured.h``: blocks of 64 channels by 128 bytes of inputs, and
in a block the order in which the lanes of a warp hold the first operand of a sparse product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore.reference.linear import activate


def semi_structured_unpack(values: Tensor, metadata: Tensor, out_features: int, in_features: int) -> Tensor:
    """The dense weight.

    Args:
        values: ``(n blocks, k blocks, 4096 / bytes)`` of the weight's dtype.
        metadata: ``(n blocks, k blocks, 256 / bytes)`` int32.
        out_features: Rows, at most ``64 * n blocks``.
        in_features: Columns, at most ``128 / bytes * k blocks``.

    Returns:
        ``(out_features, in_features)`` in the dtype of ``values``.
    """
    size, (rows, columns) = values.element_size(), values.shape[:2]
    bits_of = {1: torch.int8, 2: torch.int16}[size]  # torch moves few things of eight-bit floats
    # One unit is eight bytes of a dense row: a register of stored weights, and their places.
    units = torch.cartesian_prod(*(torch.arange(n) for n in (4, 2, 2, 2, 8, 4)))
    part, step, half, b, g, t = units.to(values.device).unbind(1)
    stored = values.view(bits_of).reshape(rows, columns, 4, 2, 32, 4, 4 // size)[
        :, :, part, step, 4 * g + t, half + 2 * b
    ]
    words = metadata.reshape(rows, columns, 4, 32, 2 // size).long() & 0xFFFFFFFF
    if size == 2:
        bits = words[:, :, part, 4 * g + 2 * step + b, 0] >> (16 * half + 4 * t)
    else:
        bits = words[:, :, part, 4 * g + half + 2 * b, step] >> (8 * t)
    slot = torch.arange(4 // size, device=values.device)
    place = (bits[..., None] >> (2 * slot)) & 3
    depth = 128 // size
    channel = (16 * part + g + 8 * half)[:, None]
    column = ((8 * step + 4 * b + t) * (8 // size))[:, None] + 4 * (slot // 2) + place
    dense = torch.zeros(rows, columns, 64 * depth, dtype=bits_of, device=values.device)
    dense.scatter_(-1, (channel * depth + column).flatten(-2), stored.flatten(-2))
    dense = dense.reshape(rows, columns, 64, depth).transpose(1, 2).reshape(64 * rows, depth * columns)
    return dense[:out_features, :in_features].contiguous().view(values.dtype)


def window_lift_unpack(
    values: Tensor, metadata: Tensor, out_features: int, in_features: int, group: int
) -> Tensor:
    """The dense weight of a ``(group-2):group`` packing in float64; group 4 is 2:4.

    Lifted input ``4 W + p`` is input ``2 (W + W // (group / 2 - 1)) + p``: four inputs for each window, of which there
    are ``group / 2 - 1`` in a group.
    """
    windows = -(-in_features // group) * (group // 2 - 1)
    lifted = semi_structured_unpack(values, metadata, out_features, 4 * windows).double()
    window = torch.arange(windows, device=values.device)
    first = 2 * (window + window // (group // 2 - 1))
    source = (first[:, None] + torch.arange(4, device=values.device)).flatten()
    padded = lifted.new_zeros(out_features, -(-in_features // group) * group)
    return padded.index_add_(1, source, lifted)[:, :in_features].contiguous()


def semi_structured_linear(
    input: Tensor,
    values: Tensor,
    metadata: Tensor,
    scale: Tensor | None,
    token_scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    activation: str,
    out_dtype: torch.dtype,
    group: int = 4,
) -> Tensor:
    """``activation(scale * token_scale * (input @ W.T) + bias) + residual``, in float64."""
    output = input.double() @ window_lift_unpack(values, metadata, out_features, input.shape[-1], group).T
    if scale is not None:
        output = output * scale
    if token_scale is not None:
        output = output * token_scale.reshape(*input.shape[:-1], 1)
    output = activate(output if bias is None else output + bias.double(), activation)
    return (output if residual is None else output + residual.double()).to(out_dtype)
