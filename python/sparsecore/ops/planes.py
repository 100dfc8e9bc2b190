"""Dense operators of image networks that work on planes: depthwise and first convolutions, squeeze-and-excite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore.formats.base import ACTIVATIONS
from sparsecore.ops._common import register, require_plain
from sparsecore.ops.group_lists_conv import output_size


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    activation: str = "none",
) -> Tensor:
    """``activation(conv2d(input, weight, bias, groups=C))``: each channel with a kernel of its own.

    Fast for 3x3 and 5x5 with stride 1 or 2, right for every window. Differentiable where ``activation`` is ``"none"``.

    Args:
        input: ``(N, C, H, W)``, float32 (float64 takes the reference path); planes are read where they lie, other
            strides are copied.
        weight: ``(C, 1, kernel_h, kernel_w)``.
        bias: ``(C,)``.
        stride: Vertical and horizontal.
        padding: With zeros: top, left, bottom, right; top and left at most what the kernel reaches over.
        dilation: Vertical and horizontal.
        activation: A key of ``sparsecore.reference.ACTIVATIONS``.

    Returns:
        ``(N, C, H_out, W_out)``, contiguous.

    Raises:
        RuntimeError: Shapes that do not belong together, another type, a window that does not fit.
    """
    if input.dtype == torch.float64:
        return reference.depthwise_conv2d(input, weight, bias, stride, padding, dilation, activation)
    return torch.ops.sparsecore.depthwise_conv2d(  # type: ignore[no-any-return]
        input,
        weight.contiguous(),
        bias,
        list(stride),
        list(padding),
        list(dilation),
        ACTIVATIONS[activation],
    )


def stem_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0, 0, 0),
    dilation: Sequence[int] = (1, 1),
    activation: str = "none",
) -> Tensor:
    """``activation(conv2d(input, weight, bias))`` for few input channels, such as the colours of an image.

    Differentiable where ``activation`` is ``"none"``.

    Args:
        input: ``(N, C, H, W)``, float32 (float64 takes the reference path), contiguous or channels_last.
        weight: ``(out_channels, C, kernel_h, kernel_w)``.
        bias: ``(out_channels,)``.
        stride: Vertical and horizontal.
        padding: With zeros: top, left, bottom, right; top and left at most what the kernel reaches over.
        dilation: Vertical and horizontal.
        activation: A key of ``sparsecore.reference.ACTIVATIONS``.

    Returns:
        ``(N, out_channels, H_out, W_out)``, contiguous whatever the input was.

    Raises:
        RuntimeError: Shapes that do not belong together, another type, a window that does not fit.
    """
    if input.dtype == torch.float64:
        return reference.stem_conv2d(input, weight, bias, stride, padding, dilation, activation)
    return torch.ops.sparsecore.stem_conv2d(  # type: ignore[no-any-return]
        input,
        weight.permute(0, 2, 3, 1).contiguous(),
        bias,
        list(stride),
        list(padding),
        list(dilation),
        ACTIVATIONS[activation],
    )


def squeeze_excite(
    input: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    *,
    inner: str = "relu",
    gate: str = "sigmoid",
) -> Tensor:
    """``input * gate(W2 inner(W1 mean(input) + b1) + b2)``, channel by channel (Hu et al., arXiv:1709.01507).

    The kernel has no gradient: where one is wanted, plain torch computes the same.

    Args:
        input: ``(N, C, H, W)``, float32.
        weight1: ``(squeezed, C)``.
        bias1: ``(squeezed,)``.
        weight2: ``(C, squeezed)``.
        bias2: ``(C,)``.
        inner: Activation between the two layers, a key of ``sparsecore.reference.ACTIVATIONS``.
        gate: Activation of the scales.

    Returns:
        Like ``input``, contiguous.

    Raises:
        RuntimeError: Shapes that do not belong together, or another type.
    """
    operands = (input, weight1, bias1, weight2, bias2)
    wants_gradient = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in operands)
    if wants_gradient or input.dtype == torch.float64:
        return reference.squeeze_excite(*operands, inner, gate)
    return torch.ops.sparsecore.squeeze_excite(  # type: ignore[no-any-return]
        input, weight1.contiguous(), bias1, weight2.contiguous(), bias2, ACTIVATIONS[inner], ACTIVATIONS[gate]
    )


def _conv_setup(name: str) -> Any:
    def setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        input, weight, bias, stride, padding, dilation, activation = inputs
        require_plain(name, activation, 0)
        ctx.save_for_backward(input, weight)
        ctx.sizes, ctx.has_bias = (stride, padding, dilation), bias is not None

    return setup


def _conv_backward(ctx: Any, grad: Tensor, weight: Tensor, groups: int) -> tuple[Tensor | None, ...]:
    """Gradients of input, weight and bias by torch's own kernels; ``weight`` as torch lays it out."""
    input, stored = ctx.saved_tensors
    stride, (top, left, bottom, right), dilation = ctx.sizes
    padded = torch.nn.functional.pad(input, (left, right, top, bottom))
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.has_bias and ctx.needs_input_grad[2]]
    grad_input, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
        grad, padded, weight, [stored.shape[0]], stride, [0, 0], dilation, False, [0, 0], groups, wanted
    )
    if wanted[0]:
        height, width = input.shape[2:]
        grad_input = grad_input[:, :, top : top + height, left : left + width]
    return grad_input, grad_weight, grad_bias


def _depthwise_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, weight = ctx.saved_tensors
    return *_conv_backward(ctx, grad, weight, input.shape[1]), None, None, None, None


def _stem_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    weight = ctx.saved_tensors[1].permute(0, 3, 1, 2)
    grad_input, grad_weight, grad_bias = _conv_backward(ctx, grad, weight, 1)
    laid_out = None if grad_weight is None else grad_weight.permute(0, 2, 3, 1).contiguous()
    return grad_input, laid_out, grad_bias, None, None, None, None


def _conv_fake(kernel_axis: int) -> Any:
    def fake(
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        activation: int,
    ) -> Tensor:
        kernel = weight.shape[kernel_axis : kernel_axis + 2]
        high, wide = output_size(input.shape[2:], kernel, stride, padding, dilation)
        return input.new_empty((input.shape[0], weight.shape[0], high, wide))

    return fake


def _squeeze_excite_fake(input: Tensor, *rest: Any) -> Tensor:
    return input.new_empty(input.shape)


def _squeeze_excite_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    return None


def _squeeze_excite_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    raise RuntimeError(
        "squeeze_excite: the kernel has no gradient. Call sparsecore.ops.squeeze_excite, which takes plain torch where "
        "one is wanted."
    )


register(
    "depthwise_conv2d", _conv_fake(2), _depthwise_backward, _conv_setup("depthwise_conv2d"), activations=()
)
register("stem_conv2d", _conv_fake(1), _stem_backward, _conv_setup("stem_conv2d"), activations=())
register(
    "squeeze_excite", _squeeze_excite_fake, _squeeze_excite_backward, _squeeze_excite_setup, activations=()
)
