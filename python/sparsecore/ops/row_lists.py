"""Linear layers over row lists: any per-row pattern."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore.formats.base import ACTIVATIONS, COMPUTE
from sparsecore.ops._common import fake_kernel, fake_linear, register, require_plain, token_rows

TRANSPOSED_BLOCK = 128


def row_lists_linear(
    input: Tensor,
    values: Tensor,
    offsets: Tensor,
    block_ptr: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    out_features: int,
    block: int,
    activation: str = "none",
    compute: str = "float32",
    transposed: tuple[Tensor, ...] | None = None,
) -> Tensor:
    """``activation(input @ W.T + bias)`` with W as row lists.

    Differentiable in ``input``, ``values`` and ``bias`` where ``activation`` is ``"none"``. float64 tensors take the
    reference path.

    Args:
        input: ``(..., in_features)``, float32, bfloat16 or float16, any strides.
        values: ``(nnz,)``, the same types or int8.
        offsets: ``(nnz,)`` uint8, column inside the block.
        block_ptr: ``(blocks, out_features + 1)`` int32.
        scale: ``(out_features,)`` float32, required beside int8 values.
        bias: ``(out_features,)``.
        out_features: Rows of W.
        block: Columns of a block.
        activation: Fused: ``none``, ``relu``, ``gelu``, ``gelu_tanh``, ``silu``, ``relu6``, ``hard_swish``,
            ``hard_sigmoid`` or ``sigmoid``.
        compute: ``"float32"`` or ``"float16"`` (products at the float16 rate where the CPU has one).
        transposed: What :func:`row_lists_transpose` returns, to spare the backward pass that work.

    Returns:
        ``(..., out_features)`` in the dtype of ``input``; sums are kept in float32.
    """
    if torch.float64 in (input.dtype, values.dtype):
        return reference.row_lists_linear(
            input, values, offsets, block_ptr, scale, bias, out_features, block, activation
        )
    return torch.ops.sparsecore.row_lists_linear(  # type: ignore[no-any-return]
        input,
        values,
        offsets,
        block_ptr,
        scale,
        bias,
        out_features,
        block,
        ACTIVATIONS[activation],
        COMPUTE[compute],
        *(transposed or (None, None, None)),
    )


def row_lists_transpose(
    offsets: Tensor, block_ptr: Tensor, *, out_features: int, in_features: int, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets and block_ptr of the transposed matrix, and the place of each of its values in the original."""
    return torch.ops.sparsecore.row_lists_transpose(  # type: ignore[no-any-return]
        offsets, block_ptr, out_features, in_features, block, TRANSPOSED_BLOCK
    )


def input_grad(
    grad: Tensor, values: Tensor, transposed: tuple[Tensor, Tensor, Tensor], in_features: int
) -> Tensor:
    """``grad @ W`` as a product with the transposed row lists; ``values`` are those of W, flat."""
    offsets_t, block_ptr_t, order = transposed
    return torch.ops.sparsecore.row_lists_linear(  # type: ignore[no-any-return]
        grad,
        values.index_select(0, order),
        offsets_t,
        block_ptr_t,
        None,
        None,
        in_features,
        TRANSPOSED_BLOCK,
        0,
        0,
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, values, offsets, block_ptr, scale, bias, out_features, block, activation, compute = inputs[:10]
    require_plain("row_lists_linear", activation, compute)
    ctx.save_for_backward(input, values, offsets, block_ptr, bias, *inputs[10:13])
    ctx.out_features, ctx.block, ctx.quantised = out_features, block, scale is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, values, offsets, block_ptr, bias, *transposed = ctx.saved_tensors
    if ctx.quantised:
        raise RuntimeError(
            "row_lists_linear: int8 weights have no gradient. Train with floating-point values."
        )
    ops = torch.ops.sparsecore
    grads: list[Any] = [None] * 13
    if ctx.needs_input_grad[0]:
        if transposed[0] is None:
            transposed = ops.row_lists_transpose(
                offsets, block_ptr, ctx.out_features, input.shape[-1], ctx.block, TRANSPOSED_BLOCK
            )
        grads[0] = input_grad(grad, values, tuple(transposed), input.shape[-1])
    if ctx.needs_input_grad[1]:
        kept = ops.row_lists_weight_grad(grad, input, offsets, block_ptr, ctx.block)
        grads[1] = kept.to(values.dtype)
    if ctx.needs_input_grad[5]:
        grads[5] = token_rows(grad).sum(0).to(bias.dtype)
    return tuple(grads)


register(
    "row_lists_linear",
    lambda input, values, offsets, block_ptr, scale, bias, out_features, *rest: fake_linear(
        input, out_features
    ),
    _backward,
    _setup,
)


@fake_kernel("row_lists_linear_out")
def _row_lists_linear_out_fake(*args: Any) -> None:
    return None


@fake_kernel("row_lists_weight_grad")
def _row_lists_weight_grad_fake(
    grad_output: Tensor, input: Tensor, offsets: Tensor, block_ptr: Tensor, block: int
) -> Tensor:
    return input.new_empty(offsets.shape, dtype=torch.float32)


@fake_kernel("row_lists_transpose")
def _row_lists_transpose_fake(
    offsets: Tensor, block_ptr: Tensor, out_features: int, in_features: int, block: int, block_t: int
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(offsets),
        block_ptr.new_empty((-(-out_features // block_t), in_features + 1)),
        block_ptr.new_empty(offsets.shape),
    )


@fake_kernel("row_lists_unpack")
def _row_lists_unpack_fake(
    values: Tensor, offsets: Tensor, block_ptr: Tensor, out_features: int, in_features: int, block: int
) -> Tensor:
    return values.new_empty((out_features, in_features))
