"""Linear layers whose weight keeps another N of 16 in every 16 x 16 block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore.formats.base import ACTIVATIONS, COMPUTE
from sparsecore.ops._common import fake_kernel, fake_linear, register, require_plain, token_rows


def variable_nm_linear(
    input: Tensor,
    values: Tensor,
    indices: Tensor,
    codes: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    out_features: int,
    activation: str = "none",
    compute: str = "float32",
) -> Tensor:
    """``activation(input @ W.T + bias)`` with a variable N:16 weight.

    Args:
        input: ``(..., in_features)``; any number of tokens is right, one to eight are fast.
        values: ``(slots, 16)``.
        indices: ``(pairs, 16)`` uint8, two indices of four bits each.
        codes: ``(out_features / 16, in_features / 16)`` uint8: 0, 2, 4, 8 or 16.
        scale: ``(out_features,)`` float32, required beside int8 values.
        bias: ``(out_features,)``.
        out_features: Rows of W.
        activation: Fused: ``none``, ``relu``, ``gelu``, ``gelu_tanh``, ``silu``, ``relu6``, ``hard_swish``,
            ``hard_sigmoid`` or ``sigmoid``.
        compute: ``"float32"``.

    Returns:
        ``(..., out_features)`` in the dtype of ``input``. Gradients reach input, values and bias.
    """
    if torch.float64 in (input.dtype, values.dtype):
        return reference.variable_nm_linear(
            input, values, indices, codes, scale, bias, out_features, activation
        )
    return torch.ops.sparsecore.variable_nm_linear(  # type: ignore[no-any-return]
        input, values, indices, codes, scale, bias, out_features, ACTIVATIONS[activation], COMPUTE[compute]
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, values, indices, codes, scale, bias, out_features, activation, compute = inputs
    require_plain("variable_nm_linear", activation, compute)
    ctx.save_for_backward(input, values, indices, codes, bias)
    ctx.out_features, ctx.quantised = out_features, scale is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """By dense products with the unpacked weight: the format is made for inference."""
    input, values, indices, codes, bias = ctx.saved_tensors
    if ctx.quantised:
        raise RuntimeError(
            "variable_nm_linear: int8 weights have no gradient. Train with floating-point values."
        )
    ops, shape = torch.ops.sparsecore, (ctx.out_features, input.shape[-1])
    grads: list[Any] = [None] * 9
    rows = token_rows(grad)
    if ctx.needs_input_grad[0]:
        grads[0] = (grad.float() @ ops.variable_nm_unpack(values, indices, codes, *shape).float()).to(
            input.dtype
        )
    if ctx.needs_input_grad[1]:
        dense = rows.float().T @ token_rows(input).float()
        stored = ops.variable_nm_unpack(torch.ones_like(values), indices, codes, *shape) != 0
        grads[1] = ops.variable_nm_pack(dense, stored, codes)[0].to(values.dtype)
    if ctx.needs_input_grad[5]:
        grads[5] = rows.sum(0).to(bias.dtype)
    return tuple(grads)


register(
    "variable_nm_linear",
    lambda input, values, indices, codes, scale, bias, out_features, *rest: fake_linear(input, out_features),
    _backward,
    _setup,
)


@fake_kernel("variable_nm_linear_out")
def _variable_nm_linear_out_fake(*args: Any) -> None:
    return None


@fake_kernel("variable_nm_unpack")
def _variable_nm_unpack_fake(
    values: Tensor, indices: Tensor, codes: Tensor, out_features: int, in_features: int
) -> Tensor:
    return values.new_empty((out_features, in_features))


@fake_kernel("variable_nm_pack")
def _variable_nm_pack_fake(weight: Tensor, mask: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    context = torch.library.get_ctx()
    slots, pairs = context.new_dynamic_size(), context.new_dynamic_size()
    return weight.new_empty((slots, 16)), codes.new_empty((pairs, 16))
