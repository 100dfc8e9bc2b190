"""Convolutions over group lists. A kernel of any size becomes a matrix whose columns are (kernel position, channel)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sparsecore import reference
from sparsecore.formats.base import ACTIVATIONS, COMPUTE
from sparsecore.ops._common import fake_kernel, register, require_plain
from sparsecore.ops.group_lists import (
    TRANSPOSED_DEPTH,
    TRANSPOSED_WINDOW,
    group_lists_transpose,
    transposed_values,
)

SMALLEST_SCALE, LARGEST_SCALE = 1e-29, 1e29


def checked_scale(owner: str, input_scale: float | None, compute: str) -> float:
    """The scale as the operators take it, 0 for None; ValueError where it cannot be used."""
    if input_scale is None:
        return 0.0
    if not SMALLEST_SCALE <= input_scale <= LARGEST_SCALE:
        raise ValueError(
            f"{owner}: input_scale must be in {SMALLEST_SCALE}..{LARGEST_SCALE}, got {input_scale!r}. "
            "Pass the largest magnitude to be represented / 127, or None for a scale of each image."
        )
    if compute != "int8":
        raise ValueError(
            f"{owner}: input_scale is for int8 products, and the products are {compute}. Leave it None."
        )
    return float(input_scale)


def group_lists_conv2d(
    input: Tensor,
    values: Tensor,
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    out_channels: int,
    kernel_size: Sequence[int],
    depth: int,
    window: int,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    activation: str = "none",
    compute: str = "float32",
    input_scale: float | None = None,
    transposed: tuple[Tensor, ...] | None = None,
) -> Tensor:
    """``activation(conv2d(input, W) + bias + residual)`` with W as group lists.

    Contiguous images are computed plane by plane and channels_last ones pixel by pixel, without a copy; the output lies
    like the input. Differentiable in ``input``, ``values``, ``bias`` and ``residual`` where ``activation`` is
    ``"none"``. float64 tensors take the reference path.

    Args:
        input: ``(N, C, H, W)``, float32, bfloat16 or float16, contiguous, channels_last or a slice of channels of
            either; other strides are copied.
        values: ``(records + 1, cols, rows)`` of the matrix ``(out_channels, kernel_h * kernel_w * C)``, columns
            (kernel position, channel); the same types or int8.
        index: ``(records + 1,)`` uint8, or int16 (the bits of uint16) where ``depth / cols`` is above 256.
        order: ``(panels, groups)`` uint8.
        starts: ``(panels, groups + 1)`` int32.
        scale: ``(out_channels,)`` float32, required beside int8 values.
        bias: ``(out_channels,)``.
        residual: Like the output, added before the activation.
        out_channels: Rows of W.
        kernel_size: Vertical and horizontal.
        depth: Columns of a panel.
        window: Groups that are sorted among themselves.
        stride: Vertical and horizontal.
        padding: With zeros: top, left, bottom, right.
        dilation: Vertical and horizontal.
        activation: A key of ``sparsecore.reference.ACTIVATIONS``, for instance ``"relu6"``.
        compute: ``"float32"``, ``"float16"`` (permits products at the float16 rate), or ``"int8"`` (int8 values; each
            image is quantised on its own, or all with ``input_scale``).
        input_scale: For ``compute="int8"``: the images are rounded to multiples of it, and what is past ``127 *
            input_scale`` on either side is cut off, infinities included (a NaN becomes the lower end). None: the
            largest magnitude of each image / 127, and NaN where an image holds an infinity or a NaN. The reference
            path rounds nothing.
        transposed: What :func:`group_lists_transpose` returns, to spare the backward pass that work.

    Returns:
        ``(N, out_channels, H_out, W_out)`` in the dtype of ``input``; sums are kept in float32.

    Raises:
        RuntimeError: Arrays that do not belong together, an image smaller than the kernel, or a type without a kernel.
        ValueError: An ``input_scale`` out of range (1e-29 to 1e29) or beside another ``compute`` than ``"int8"``.
    """
    x_scale = checked_scale("group_lists_conv2d", input_scale, compute)
    sizes = (list(kernel_size), list(stride), list(padding), list(dilation))
    if torch.float64 in (input.dtype, values.dtype):
        return reference.group_lists_conv2d(
            input,
            values,
            index,
            order,
            starts,
            scale,
            bias,
            residual,
            out_channels,
            *sizes,
            depth,
            window,
            activation,
        )
    return torch.ops.sparsecore.group_lists_conv2d(  # type: ignore[no-any-return]
        input,
        values,
        index,
        order,
        starts,
        scale,
        bias,
        residual,
        out_channels,
        *sizes,
        depth,
        window,
        ACTIVATIONS[activation],
        COMPUTE[compute],
        *(transposed or (None, None, None, None)),
        x_scale,
    )


def lies_as_pixels(image: Tensor) -> bool:
    """Whether the kernels take this image pixel by pixel, as channels_last tensors lie, rather than plane by plane."""
    images, channels, height, width = image.shape
    if images > 1 and image.stride(0) == 0 and image.numel():
        return False  # copied into planes

    def follow(step: int) -> bool:
        return (width <= 1 or image.stride(3) == step) and (height <= 1 or image.stride(2) == width * step)

    if follow(1) and (channels <= 1 or image.stride(1) >= height * width):
        return False
    pixel = image.stride(3) if width > 1 else image.stride(2) if height > 1 else channels
    return (channels <= 1 or image.stride(1) == 1) and follow(pixel) and pixel >= channels


def output_size(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, int]:
    """Height and width of what a convolution makes of images of this size."""
    high, wide = (
        (size[i] + padding[i] + padding[i + 2] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1
        for i in (0, 1)
    )
    return high, wide


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, values, index, order, starts, scale, bias, _residual, out_channels, *sizes = inputs[:13]
    depth, window, activation, compute = inputs[13:17]
    require_plain("group_lists_conv2d", activation, compute)
    ctx.save_for_backward(input, values, index, order, starts, bias, *inputs[17:21])
    ctx.sizes, ctx.lists, ctx.quantised = sizes, (out_channels, depth, window), scale is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, values, index, order, starts, bias, *transposed = ctx.saved_tensors
    if ctx.quantised:
        raise RuntimeError(
            "group_lists_conv2d: int8 weights have no gradient. Train with floating-point values."
        )
    (out_channels, depth, window), (cols, rows) = ctx.lists, values.shape[1:]
    grads: list[Any] = [None] * 22
    if ctx.needs_input_grad[0]:
        if transposed[0] is None:
            taps = ctx.sizes[0][0] * ctx.sizes[0][1]
            transposed = group_lists_transpose(
                index,
                order,
                starts,
                rows=rows,
                cols=cols,
                out_features=out_channels,
                in_features=taps * input.shape[1],
                depth=depth,
                window=window,
            )
        grads[0] = _input_grad(grad, values, transposed, input, *ctx.sizes)
    if ctx.needs_input_grad[1]:
        kept = torch.ops.sparsecore.group_lists_conv2d_weight_grad(
            grad, input, index, order, starts, rows, cols, *ctx.sizes, depth, window
        )
        grads[1] = kept.to(values.dtype)
    if ctx.needs_input_grad[6]:
        grads[6] = grad.sum((0, 2, 3)).to(bias.dtype)
    if ctx.needs_input_grad[7]:
        grads[7] = grad
    return tuple(grads)


def _input_grad(
    grad: Tensor,
    values: Tensor,
    transposed: Sequence[Tensor],
    input: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """A 1x1 convolution with the transposed matrix; under larger kernels its columns are summed where they overlap."""
    images, channels, height, width = input.shape
    taps = kernel[0] * kernel[1]
    index_t, order_t, starts_t, source = transposed
    columns: Tensor = torch.ops.sparsecore.group_lists_conv2d(
        grad,
        transposed_values(values, source),
        index_t,
        order_t,
        starts_t,
        None,
        None,
        None,
        taps * channels,
        [1, 1],
        [1, 1],
        [0, 0, 0, 0],
        [1, 1],
        TRANSPOSED_DEPTH,
        TRANSPOSED_WINDOW,
        0,
        0,
    )
    if taps == 1 and tuple(stride) == (1, 1) and not any(padding):
        return columns
    top, left, bottom, right = padding
    by_channel = (
        columns.reshape(images, taps, channels, -1).transpose(1, 2).reshape(images, channels * taps, -1)
    )
    padded = functional.fold(
        by_channel,
        (height + top + bottom, width + left + right),
        tuple(kernel),
        tuple(dilation),
        0,
        tuple(stride),
    )
    return padded[:, :, top : top + height, left : left + width]


def _fake(
    input: Tensor,
    values: Tensor,
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out_channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *rest: Any,
) -> Tensor:
    high, wide = output_size(input.shape[2:], kernel, stride, padding, dilation)
    layout = torch.channels_last if lies_as_pixels(input) else torch.contiguous_format
    return torch.empty(
        (input.shape[0], out_channels, high, wide),
        dtype=input.dtype,
        device=input.device,
        memory_format=layout,
    )


register("group_lists_conv2d", _fake, _backward, _setup, activations=(0, 7))


@fake_kernel("group_lists_conv2d_out")
def _group_lists_conv2d_out_fake(*args: Any) -> None:
    return None


@fake_kernel("group_lists_conv2d_weight_grad")
def _group_lists_conv2d_weight_grad_fake(
    grad_output: Tensor,
    input: Tensor,
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    rows: int,
    cols: int,
    *rest: Any,
) -> Tensor:
    return input.new_empty((index.shape[0], cols, rows), dtype=torch.float32)
