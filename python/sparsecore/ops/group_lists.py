"""Linear layers over group lists: blocks of neighbouring outputs x neighbouring inputs, single weights included."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore.formats.base import ACTIVATIONS, COMPUTE
from sparsecore.ops._common import fake_kernel, fake_linear, narrowed, register, require_plain, token_rows

# Of the transposed matrix, which serves the gradient of the input.
TRANSPOSED_DEPTH = 128
TRANSPOSED_WINDOW = 64

Transposed = tuple[Tensor, Tensor, Tensor, Tensor]


def group_lists_linear(
    input: Tensor,
    values: Tensor,
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    out_features: int,
    depth: int,
    window: int,
    activation: str = "none",
    compute: str = "float32",
    transposed: tuple[Tensor, ...] | None = None,
) -> Tensor:
    """``activation(input @ W.T + bias)`` with W as group lists.

    Differentiable in ``input``, ``values`` and ``bias`` where ``activation`` is ``"none"``. float64 tensors take the
    reference path. CUDA tensors are bfloat16 or float16; float32 values are narrowed to the dtype of the input, which
    autocast chooses.

    Args:
        input: ``(..., in_features)``, float32, bfloat16 or float16, any strides.
        values: ``(records + 1, cols, rows)``, the same types or int8; the last record is zero.
        index: ``(records + 1,)`` uint8, or int16 (the bits of uint16) where ``depth / cols`` is above 256.
        order: ``(panels, groups)`` uint8.
        starts: ``(panels, groups + 1)`` int32.
        scale: ``(out_features,)`` float32, required beside int8 values.
        bias: ``(out_features,)``.
        out_features: Rows of W.
        depth: Columns of a panel.
        window: Groups that are sorted among themselves.
        activation: A key of ``sparsecore.reference.ACTIVATIONS``, for instance ``"relu"``.
        compute: ``"float32"``, ``"float16"`` (permits products at the float16 rate), or ``"int8"`` (int8 values; the
            input is quantised per token).
        transposed: What :func:`group_lists_transpose` returns, to spare the backward pass that work.

    Returns:
        ``(..., out_features)`` in the dtype of ``input``; sums are kept in float32.

    Raises:
        RuntimeError: Arrays that do not belong together, or a type without a kernel.
    """
    if torch.float64 in (input.dtype, values.dtype):
        return reference.group_lists_linear(
            input, values, index, order, starts, scale, bias, out_features, depth, window, activation
        )
    input, values = narrowed(input, values)
    return torch.ops.sparsecore.group_lists_linear(  # type: ignore[no-any-return]
        input,
        values,
        index,
        order,
        starts,
        scale,
        bias,
        out_features,
        depth,
        window,
        ACTIVATIONS[activation],
        COMPUTE[compute],
        *(transposed or (None, None, None, None)),
    )


def group_lists_transpose(
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    *,
    rows: int,
    cols: int,
    out_features: int,
    in_features: int,
    depth: int,
    window: int,
) -> Transposed:
    """The structure of the transposed matrix, whose blocks are ``cols`` x ``rows``.

    Returns:
        ``index``, ``order`` and ``starts`` with a depth of ``TRANSPOSED_DEPTH`` and a window of ``TRANSPOSED_WINDOW``,
        and ``source``, ``(records,)`` int32: record i is record ``source[i]`` of the original, transposed.
    """
    return torch.ops.sparsecore.group_lists_transpose(  # type: ignore[no-any-return]
        index,
        order,
        starts,
        rows,
        cols,
        out_features,
        in_features,
        depth,
        window,
        TRANSPOSED_DEPTH,
        TRANSPOSED_WINDOW,
    )


def transposed_values(values: Tensor, source: Tensor) -> Tensor:
    """The values of the transposed matrix, ``(records + 1, rows, cols)``."""
    records = values.index_select(0, source).transpose(1, 2)
    return torch.cat([records, records.new_zeros((1, *records.shape[1:]))])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, values, index, order, starts, scale, bias, out_features, depth, window, activation, compute = (
        inputs[:12]
    )
    require_plain("group_lists_linear", activation, compute)
    ctx.save_for_backward(input, values, index, order, starts, bias, *inputs[12:16])
    ctx.sizes, ctx.quantised = (out_features, depth, window), scale is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, values, index, order, starts, bias, *transposed = ctx.saved_tensors
    if ctx.quantised:
        raise RuntimeError(
            "group_lists_linear: int8 weights have no gradient. Train with floating-point values."
        )
    (out_features, depth, window), (cols, rows) = ctx.sizes, values.shape[1:]
    grads: list[Any] = [None] * 16
    if ctx.needs_input_grad[0]:
        if transposed[0] is None:
            transposed = group_lists_transpose(
                index,
                order,
                starts,
                rows=rows,
                cols=cols,
                out_features=out_features,
                in_features=input.shape[-1],
                depth=depth,
                window=window,
            )
        index_t, order_t, starts_t, source = transposed
        grads[0] = torch.ops.sparsecore.group_lists_linear(
            grad,
            transposed_values(values, source),
            index_t,
            order_t,
            starts_t,
            None,
            None,
            input.shape[-1],
            TRANSPOSED_DEPTH,
            TRANSPOSED_WINDOW,
            0,
            0,
        )
    if ctx.needs_input_grad[1]:
        kept = torch.ops.sparsecore.group_lists_weight_grad(
            grad, input, index, order, starts, rows, cols, depth, window
        )
        grads[1] = kept.to(values.dtype)
    if ctx.needs_input_grad[6]:
        grads[6] = token_rows(grad).sum(0).to(bias.dtype)
    return tuple(grads)


register(
    "group_lists_linear",
    lambda input, values, index, order, starts, scale, bias, out_features, *rest: fake_linear(
        input, out_features
    ),
    _backward,
    _setup,
)


@fake_kernel("group_lists_linear_out")
def _group_lists_linear_out_fake(*args: Any) -> None:
    return None


@fake_kernel("group_lists_weight_grad")
def _group_lists_weight_grad_fake(
    grad_output: Tensor,
    input: Tensor,
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    rows: int,
    cols: int,
    depth: int,
    window: int,
) -> Tensor:
    return input.new_empty((index.shape[0], cols, rows), dtype=torch.float32)


@fake_kernel("group_lists_transpose")
def _group_lists_transpose_fake(
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    rows: int,
    cols: int,
    out_features: int,
    in_features: int,
    depth: int,
    window: int,
    depth_t: int,
    window_t: int,
) -> Transposed:
    panels, groups = -(-out_features // depth_t), -(-in_features // cols)
    narrow = depth_t // rows <= 256
    return (
        index.new_empty(index.shape, dtype=torch.uint8 if narrow else torch.int16),
        order.new_empty((panels, groups)),
        starts.new_empty((panels, groups + 1)),
        starts.new_empty((index.shape[0] - 1,)),
    )


@fake_kernel("group_lists_unpack")
def _group_lists_unpack_fake(
    values: Tensor,
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    out_features: int,
    in_features: int,
    depth: int,
    window: int,
) -> Tensor:
    return values.new_empty((out_features, in_features))
