"""Unstructured and per-row N:M weights behind a bitmap, for few tokens. Packed as for the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

import sparsecore
from sparsecore import NM, Pattern, Unstructured, reference
from sparsecore.ops import bitmap_decode_linear

from .base import Family, Layer, Variant

LAYERS = ((4096, 4096), (14336, 4096))
TOKENS = (1, 8, 32, 64)


def variant(pattern: Pattern, density: float, dtype: torch.dtype) -> Variant:
    """``density`` is what the pattern keeps."""

    def make(weight: Tensor) -> Layer:
        outputs, inputs = weight.shape
        sparsity = 1 - density if isinstance(pattern, Unstructured) else None
        packed = sparsecore.pack(weight.cpu(), pattern, sparsity=sparsity, layout="bitmap_decode").tensors()
        values, bitmap, row_ptr = (packed[name].to(weight.device) for name in ("values", "bitmap", "row_ptr"))

        def linear(x: Tensor, bias: Tensor | None) -> Tensor:
            return bitmap_decode_linear(x, values, bitmap, row_ptr, None, bias, out_features=outputs)

        dense = reference.bitmap_decode_unpack(values, bitmap, row_ptr, outputs, inputs)
        return Layer(dense, linear, out_dtype=dtype)

    label = f"{pattern.n}:{pattern.m}" if isinstance(pattern, NM) else f"{1 - density:.0%} unstructured"
    return Variant(
        name=f"bitmap, {label}, {str(dtype).removeprefix('torch.')}",
        dtype=dtype,
        density=density,
        make=make,
        peers=("cuBLAS",),
        layers=LAYERS,
        tokens=TOKENS,
        ragged=(1005, 1013),
        small=(40, 200),
    )


FAMILY = Family(
    name="bitmap decode",
    operators=("bitmap_decode_linear",),
    variants=(
        variant(Unstructured(), 0.5, torch.bfloat16),
        variant(NM(4, 16), 0.25, torch.bfloat16),
        variant(Unstructured(), 0.3, torch.float16),
    ),
)
