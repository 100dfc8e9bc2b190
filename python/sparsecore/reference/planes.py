"""Dense operators of image networks in plain torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from sparsecore.reference.linear import activate


def _padded(input: Tensor, padding: Sequence[int]) -> Tensor:
    top, left, bottom, right = padding
    return functional.pad(input, (left, right, top, bottom))


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str = "none",
) -> Tensor:
    """A convolution with one kernel for each channel."""
    sums = functional.conv2d(
        _padded(input, padding),
        weight,
        bias,
        tuple(stride),
        0,
        tuple(dilation),
        input.shape[1],
    )
    return activate(sums, activation)


def stem_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    activation: str = "none",
) -> Tensor:
    """A dense convolution."""
    sums = functional.conv2d(_padded(input, padding), weight, bias, tuple(stride), 0, tuple(dilation))
    return activate(sums, activation)


def squeeze_excite(
    input: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    inner: str = "relu",
    gate: str = "sigmoid",
) -> Tensor:
    """Channels scaled by what two dense layers make of their means."""
    hidden = activate(functional.linear(input.mean((2, 3)), weight1, bias1), inner)
    gates = activate(functional.linear(hidden, weight2, bias2), gate)
    return input * torch.unflatten(gates, 1, (-1, 1, 1))
