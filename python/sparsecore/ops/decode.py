"""Linear layers for few tokens: per-row N:M with codes (inference only), and unstructured with a bitmap.

On a GPU both patterns are the bitmap kernel: a layer that moves there is packed anew (``formats/layouts.py``).

The gradients of a weight behind a bitmap are dense products: of the input with the weight unpacked, of the values with
the dense gradient, of which the kept places are taken. Each needs one dense matrix of the weight's shape for as long as
its product runs; nothing dense is kept between the passes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore.formats.base import ACTIVATIONS, COMPUTE
from sparsecore.ops import _common
from sparsecore.ops._common import (
    fake_kernel,
    fake_linear,
    narrowed,
    register,
    register_autocast,
    require_plain,
    token_rows,
)


def nm_decode_linear(
    input: Tensor,
    values: Tensor,
    codes: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    out_features: int,
    n: int,
    m: int,
    activation: str = "none",
    compute: str = "float32",
) -> Tensor:
    """``activation(input @ W.T + bias)`` with a per-row N:M weight in the decode layout; no gradients. On a CPU.

    Args:
        input: ``(..., in_features)``; any number of tokens is right, one to eight are fast.
        values: ``(tiles, slots, 16)``.
        codes: ``(tiles, words, 16)``, int32 bits.
        scale: ``(out_features,)`` float32, required beside int8 values.
        bias: ``(out_features,)``.
        out_features: Rows of W.
        n: Weights kept of every ``m``.
        m: Group length.
        activation: Fused: ``none``, ``relu``, ``gelu``, ``gelu_tanh``, ``silu``, ``relu6``, ``hard_swish``,
            ``hard_sigmoid`` or ``sigmoid``.
        compute: ``"float32"``.

    Returns:
        ``(..., out_features)`` in the dtype of ``input``.

    Raises:
        RuntimeError: Tensors that do not fit, or on a GPU.
    """
    if input.device.type == "cuda":
        raise RuntimeError(
            "nm_decode_linear: this layout is for the CPU. On a GPU pack the weight as bitmap_decode, as layers do "
            "when they move, and call bitmap_decode_linear."
        )
    if torch.float64 in (input.dtype, values.dtype):
        return reference.nm_decode_linear(input, values, codes, scale, bias, out_features, n, m, activation)
    return torch.ops.sparsecore.nm_decode_linear(  # type: ignore[no-any-return]
        input, values, codes, scale, bias, out_features, n, m, ACTIVATIONS[activation], COMPUTE[compute]
    )


def bitmap_decode_linear(
    input: Tensor,
    values: Tensor,
    bitmap: Tensor,
    row_ptr: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    out_features: int,
    activation: str = "none",
    compute: str = "float32",
) -> Tensor:
    """``activation(input @ W.T + bias)`` with an unstructured weight behind a bitmap.

    Differentiable in ``input``, ``values`` and ``bias`` where ``activation`` is ``"none"``.

    Args:
        input: ``(..., in_features)``; any number of tokens is right, one to eight are fast. On a GPU up to 128 tokens
            of bfloat16 or float16 read the bitmap. More of them, and float32, are a dense product with the weight
            unpacked for it, which takes the memory of the dense weight while it runs and rounds the product to the
            input's dtype before scale, bias and activation.
        values: ``(nnz,)``, on a GPU of the input's dtype or int8.
        bitmap: ``(out_features, ceil(in_features / 64))``, int64 bits.
        row_ptr: ``(out_features + 1,)`` int32.
        scale: ``(out_features,)`` float32, required beside int8 values.
        bias: ``(out_features,)``.
        out_features: Rows of W.
        activation: Fused: ``none``, ``relu``, ``gelu``, ``gelu_tanh``, ``silu``, ``relu6``, ``hard_swish``,
            ``hard_sigmoid`` or ``sigmoid``.
        compute: ``"float32"``, or ``"float16"``, which changes nothing on a GPU.

    Returns:
        ``(..., out_features)`` in the dtype of ``input``.
    """
    if torch.float64 in (input.dtype, values.dtype):
        return reference.bitmap_decode_linear(
            input, values, bitmap, row_ptr, scale, bias, out_features, activation
        )
    if input.device.type in _common.SIXTEEN_BITS and compute == "float16":
        compute = "float32"  # what it permits is so there anyway: products are of 16 bits, sums of 32
    input, values = narrowed(input, values)
    return torch.ops.sparsecore.bitmap_decode_linear(  # type: ignore[no-any-return]
        input, values, bitmap, row_ptr, scale, bias, out_features, ACTIVATIONS[activation], COMPUTE[compute]
    )


@fake_kernel("nm_decode_linear")
def _nm_decode_linear_fake(
    input: Tensor,
    values: Tensor,
    codes: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    out_features: int,
    *rest: int,
) -> Tensor:
    return fake_linear(input, out_features)


@fake_kernel("nm_decode_unpack")
def _nm_decode_unpack_fake(
    values: Tensor, codes: Tensor, out_features: int, in_features: int, *nm: int
) -> Tensor:
    return values.new_empty((out_features, in_features))


@fake_kernel("bitmap_decode_unpack")
def _bitmap_decode_unpack_fake(
    values: Tensor, bitmap: Tensor, row_ptr: Tensor, out_features: int, in_features: int
) -> Tensor:
    return values.new_empty((out_features, in_features))


@fake_kernel("bitmap_decode_gather")
def _bitmap_decode_gather_fake(dense: Tensor, bitmap: Tensor, row_ptr: Tensor, stored: int) -> Tensor:
    return dense.new_empty((stored,))


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, values, bitmap, row_ptr, scale, bias, out_features, activation, compute = inputs
    require_plain("bitmap_decode_linear", activation, compute)
    ctx.save_for_backward(input, values, bitmap, row_ptr, bias)
    ctx.out_features, ctx.quantised = out_features, scale is not None


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, values, bitmap, row_ptr, bias = ctx.saved_tensors
    if ctx.quantised:
        raise RuntimeError(
            "bitmap_decode_linear: int8 weights have no gradient. Train with floating-point values."
        )
    ops, n, k = torch.ops.sparsecore, ctx.out_features, input.shape[-1]
    grads: list[Any] = [None] * 9
    narrow = grad.to(input.dtype)
    if ctx.needs_input_grad[0]:
        grads[0] = narrow @ ops.bitmap_decode_unpack(values, bitmap, row_ptr, n, k).to(input.dtype)
    if ctx.needs_input_grad[1]:
        dense = token_rows(narrow).T @ token_rows(input)
        kept = ops.bitmap_decode_gather(dense.contiguous(), bitmap, row_ptr, values.shape[0])
        grads[1] = kept.to(values.dtype)
    if ctx.needs_input_grad[5]:
        grads[5] = token_rows(grad).float().sum(0).to(bias.dtype)
    return tuple(grads)


register(
    "bitmap_decode_linear",
    lambda input, values, bitmap, row_ptr, scale, bias, out_features, *rest: fake_linear(input, out_features),
    _backward,
    _setup,
)


@fake_kernel("nm_decode_linear_out")
def _nm_decode_linear_out_fake(*args: Any) -> None:
    return None


@fake_kernel("bitmap_decode_linear_out")
def _bitmap_decode_linear_out_fake(*args: Any) -> None:
    return None


register_autocast("nm_decode_linear")
