"""Linear layers over shared lists: neighbouring output channels keep the same columns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore.formats.base import ACTIVATIONS, COMPUTE
from sparsecore.ops._common import fake_kernel, fake_linear, narrowed, register, require_plain, token_rows
from sparsecore.ops.row_lists import TRANSPOSED_BLOCK, input_grad


def shared_lists_linear(
    input: Tensor,
    values: Tensor,
    columns: Tensor,
    group_ptr: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    out_features: int,
    activation: str = "none",
    compute: str = "float32",
    transposed: tuple[Tensor, ...] | None = None,
) -> Tensor:
    """``activation(input @ W.T + bias)`` with W as shared lists.

    Differentiable in ``input``, ``values`` and ``bias`` where ``activation`` is ``"none"``. float64 tensors take the
    reference path. CUDA tensors are bfloat16 or float16, input and values alike, with a vector of 8, 16, 32 or 64.

    Args:
        input: ``(..., in_features)``, float32, bfloat16 or float16, any strides.
        values: ``(records, vector)``, the same types or int8.
        columns: ``(records,)`` int16, the bits of uint16.
        group_ptr: ``(ceil(out_features / vector) + 1,)`` int32.
        scale: ``(out_features,)`` float32, required beside int8 values.
        bias: ``(out_features,)``.
        out_features: Rows of W.
        activation: Fused: ``none``, ``relu``, ``gelu``, ``gelu_tanh``, ``silu``, ``relu6``, ``hard_swish``,
            ``hard_sigmoid`` or ``sigmoid``.
        compute: ``"float32"``, ``"float16"``, or ``"int8"`` (int8 values; the input is quantised per token).
        transposed: What :func:`shared_lists_transpose` returns, to spare the backward pass that work; CUDA tensors have
            no use for it.

    Returns:
        ``(..., out_features)`` in the dtype of ``input``; sums are kept in float32 (int8: int32).
    """
    if torch.float64 in (input.dtype, values.dtype):
        return reference.shared_lists_linear(
            input, values, columns, group_ptr, scale, bias, out_features, activation
        )
    input, values = narrowed(input, values)
    return torch.ops.sparsecore.shared_lists_linear(  # type: ignore[no-any-return]
        input,
        values,
        columns,
        group_ptr,
        scale,
        bias,
        out_features,
        ACTIVATIONS[activation],
        COMPUTE[compute],
        *(transposed or (None, None, None)),
    )


def shared_lists_transpose(
    columns: Tensor, group_ptr: Tensor, *, vector: int, out_features: int, in_features: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The transposed matrix as row lists, and the place of each of its values among all elements of ``values``."""
    return torch.ops.sparsecore.shared_lists_transpose(  # type: ignore[no-any-return]
        columns, group_ptr, vector, out_features, in_features, TRANSPOSED_BLOCK
    )


def unpacked_input_grad(
    grad: Tensor, values: Tensor, columns: Tensor, group_ptr: Tensor, in_features: int
) -> Tensor:
    """``grad @ W`` by a dense product with the unpacked weight: what a GPU does.

    The transposed weight shares no lists, so tensor cores could not skip what it lacks.
    """
    dense = torch.ops.sparsecore.shared_lists_unpack(values, columns, group_ptr, grad.shape[-1], in_features)
    return grad @ dense  # type: ignore[no-any-return]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, values, columns, group_ptr, scale, bias, out_features, activation, compute = inputs[:9]
    require_plain("shared_lists_linear", activation, compute)
    ctx.save_for_backward(input, values, columns, group_ptr, bias, *inputs[9:12])
    ctx.out_features, ctx.quantised = out_features, scale is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, values, columns, group_ptr, bias, *transposed = ctx.saved_tensors
    if ctx.quantised:
        raise RuntimeError(
            "shared_lists_linear: int8 weights have no gradient. Train with floating-point values."
        )
    ops, vector = torch.ops.sparsecore, values.shape[1]
    grads: list[Any] = [None] * 12
    if ctx.needs_input_grad[0] and grad.is_cuda:
        grads[0] = unpacked_input_grad(grad, values, columns, group_ptr, input.shape[-1])
    elif ctx.needs_input_grad[0]:
        if transposed[0] is None:
            transposed = ops.shared_lists_transpose(
                columns, group_ptr, vector, ctx.out_features, input.shape[-1], TRANSPOSED_BLOCK
            )
        grads[0] = input_grad(grad, values.flatten(), tuple(transposed), input.shape[-1])
    if ctx.needs_input_grad[1]:
        grads[1] = ops.shared_lists_weight_grad(grad, input, columns, group_ptr, vector).to(values.dtype)
    if ctx.needs_input_grad[5]:
        grads[5] = token_rows(grad).sum(0).to(bias.dtype)
    return tuple(grads)


register(
    "shared_lists_linear",
    lambda input, values, columns, group_ptr, scale, bias, out_features, *rest: fake_linear(
        input, out_features
    ),
    _backward,
    _setup,
)


@fake_kernel("shared_lists_linear_out")
def _shared_lists_linear_out_fake(*args: Any) -> None:
    return None


@fake_kernel("shared_lists_weight_grad")
def _shared_lists_weight_grad_fake(
    grad_output: Tensor, input: Tensor, columns: Tensor, group_ptr: Tensor, vector: int
) -> Tensor:
    return input.new_empty((*columns.shape, vector), dtype=torch.float32)


@fake_kernel("shared_lists_transpose")
def _shared_lists_transpose_fake(
    columns: Tensor, group_ptr: Tensor, vector: int, out_features: int, in_features: int, block_t: int
) -> tuple[Tensor, Tensor, Tensor]:
    groups = group_ptr.shape[0] - 1
    if out_features == groups * vector:
        count: Any = columns.shape[0] * vector
    else:  # how much of the last group is padding depends on the data
        count = torch.library.get_ctx().new_dynamic_size()
    return (
        columns.new_empty((count,), dtype=torch.uint8),
        group_ptr.new_empty((-(-out_features // block_t), in_features + 1)),
        group_ptr.new_empty((count,)),
    )


@fake_kernel("shared_lists_unpack")
def _shared_lists_unpack_fake(
    values: Tensor, columns: Tensor, group_ptr: Tensor, out_features: int, in_features: int
) -> Tensor:
    return values.new_empty((out_features, in_features))
