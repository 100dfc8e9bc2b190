"""The dense side: ``activation(input @ weight.T + bias)``."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def activate(input: Tensor, activation: str) -> Tensor:
    """Applies ``"none"``, ``"relu"``, ``"gelu"``, ``"gelu_tanh"`` or ``"silu"``."""
    if activation == "relu":
        return functional.relu(input)
    if activation == "gelu":
        return functional.gelu(input)
    if activation == "gelu_tanh":
        return functional.gelu(input, approximate="tanh")
    if activation == "silu":
        return functional.silu(input)
    if activation != "none":
        raise ValueError(
            f"activate: activation must be none, relu, gelu, gelu_tanh or silu, got {activation!r}."
        )
    return input


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
