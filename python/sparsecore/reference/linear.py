"""The dense side: ``activation(input @ weight.T + bias)``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
    "relu6": functional.relu6,
    "hard_swish": functional.hardswish,
    "hard_sigmoid": functional.hardsigmoid,
    "sigmoid": torch.sigmoid,
}
"""What the kernels fuse, by name."""


def activate(input: Tensor, activation: str) -> Tensor:
    """Applies an activation by its name, one of the keys of :data:`ACTIVATIONS`."""
    if activation not in ACTIVATIONS:
        raise ValueError(f"activate: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}.")
    return ACTIVATIONS[activation](input)


def linear(
    input: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, activation: str = "none"
) -> Tensor:
    """Sums and activation in float32 (float64 where the input is), rounded once to the dtype of ``input``."""
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    dense = weight.to(wide)
    if scale is not None:
        dense = dense * scale.to(wide).unsqueeze(1)
    sums = functional.linear(input.to(wide), dense, None if bias is None else bias.to(wide))
    return activate(sums, activation).to(input.dtype)
