"""Linear layers for few tokens: per-row N:M with codes, and unstructured with a bitmap. Inference only.

On a GPU both patterns are the bitmap kernel: a layer that moves there is packed anew (``formats/layouts.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore.formats.base import ACTIVATIONS, COMPUTE
from sparsecore.ops._common import fake_kernel, fake_linear, register_autocast


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
    """``activation(input @ W.T + bias)`` with an unstructured weight behind a bitmap; no gradients.

    Args:
        input: ``(..., in_features)``; any number of tokens is right, one to eight are fast. On a GPU bfloat16 or
            float16, and up to 32 tokens read the weight once; each further 32 read it again, so that above 64 the
            dense weight (:meth:`sparsecore.formats.BitmapDecode.to_dense`) is the better operand.
        values: ``(nnz,)``, on a GPU of the input's dtype or int8.
        bitmap: ``(out_features, ceil(in_features / 64))``, int64 bits.
        row_ptr: ``(out_features + 1,)`` int32.
        scale: ``(out_features,)`` float32, required beside int8 values.
        bias: ``(out_features,)``.
        out_features: Rows of W.
        activation: Fused: ``none``, ``relu``, ``gelu``, ``gelu_tanh``, ``silu``, ``relu6``, ``hard_swish``,
            ``hard_sigmoid`` or ``sigmoid``.
        compute: ``"float32"``.

    Returns:
        ``(..., out_features)`` in the dtype of ``input``.
    """
    if torch.float64 in (input.dtype, values.dtype):
        return reference.bitmap_decode_linear(
            input, values, bitmap, row_ptr, scale, bias, out_features, activation
        )
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


@fake_kernel("bitmap_decode_linear")
def _bitmap_decode_linear_fake(
    input: Tensor,
    values: Tensor,
    bitmap: Tensor,
    row_ptr: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    out_features: int,
    *rest: int,
) -> Tensor:
    return fake_linear(input, out_features)


@fake_kernel("nm_decode_linear_out")
def _nm_decode_linear_out_fake(*args: Any) -> None:
    return None


@fake_kernel("bitmap_decode_linear_out")
def _bitmap_decode_linear_out_fake(*args: Any) -> None:
    return None


register_autocast("nm_decode_linear")
register_autocast("bitmap_decode_linear")
