"""A linear layer with a block-sparse weight in Triton, written here to have something to be compared with.

    y[t, r B + o] = bias[r B + o] + sum over blocks b of block row r, i < B of values[b, o, i] * x[t, column[b] B + i]

One program makes TOKENS x B of y and walks the blocks of its row. Blocks of 16 to 128, 16-bit floats, float32 sums;
indices are torch's, 64 bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def bsr_linear_kernel(
    x,
    row_starts,
    columns,
    values,
    bias,
    y,
    tokens,
    x_stride,
    y_stride,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
    BIAS: tl.constexpr,
):
    block_row = tl.program_id(0)
    rows = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    inner = tl.arange(0, BLOCK)
    present = rows[:, None] < tokens
    sums = tl.zeros((TOKENS, BLOCK), dtype=tl.float32)
    for block in range(tl.load(row_starts + block_row), tl.load(row_starts + block_row + 1)):
        column = tl.load(columns + block)
        inputs = x + rows[:, None].to(tl.int64) * x_stride + column * BLOCK + inner[None, :]
        # [input, output]: the block transposed.
        weights = values + block * BLOCK * BLOCK + inner[None, :] * BLOCK + inner[:, None]
        sums = tl.dot(tl.load(inputs, mask=present, other=0.0), tl.load(weights), sums)
    outputs = block_row * BLOCK + inner
    if BIAS:
        sums += tl.load(bias + outputs)[None, :].to(tl.float32)
    to = y + rows[:, None].to(tl.int64) * y_stride + outputs[None, :]
    tl.store(to, sums.to(y.dtype.element_ty), mask=present)


# Tokens of a program, warps, stages.
CONFIGURATIONS = ((16, 4, 3), (32, 4, 4), (64, 4, 3), (128, 4, 3), (128, 8, 3), (128, 8, 4))


def bsr_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, configuration: tuple[int, int, int] = (64, 4, 3)
) -> Tensor:
    """``x @ weight.T + bias``.

    Args:
        x: ``(tokens, inputs)``, columns dense.
        weight: ``(outputs, inputs)`` in torch's BSR layout, square blocks.
        bias: ``(outputs,)`` or None.
        configuration: One of :data:`CONFIGURATIONS`.
    """
    values, (tokens, warps, stages) = weight.values(), configuration
    block = values.shape[1]
    y = torch.empty(x.shape[0], weight.shape[0], dtype=x.dtype, device=x.device)
    grid = (weight.shape[0] // block, triton.cdiv(x.shape[0], tokens))
    bsr_linear_kernel[grid](
        x,
        weight.crow_indices(),
        weight.col_indices(),
        values,
        bias if bias is not None else x,
        y,
        x.shape[0],
        x.stride(0),
        y.stride(0),
        BLOCK=block,
        TOKENS=tokens,
        BIAS=bias is not None,
        num_warps=warps,
        num_stages=stages,
    )
    return y
