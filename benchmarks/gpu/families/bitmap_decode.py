"""Unstructured and per-row N:M weights behind a bitmap. Packed as for the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore import NM, Pattern, Unstructured

from .base import Family, Layer, Variant, packed_on_cpu

LAYERS = ((4096, 4096), (14336, 4096))
TOKENS = (1, 8, 32, 128, 256)  # the last two are either side of where the operator unpacks the weight


def variant(
    pattern: Pattern, density: float, dtype: torch.dtype, values: torch.dtype | None = None
) -> Variant:
    """``density`` is what the pattern keeps; ``values`` int8 where weights are."""

    def make(weight: Tensor) -> Layer:
        sparsity = 1 - density if isinstance(pattern, Unstructured) else None
        packed = packed_on_cpu(weight, pattern, "bitmap_decode", sparsity=sparsity, dtype=values)
        return Layer(packed.to_dense(), lambda x, bias: packed.linear(x, bias), out_dtype=dtype)

    label = f"{pattern.n}:{pattern.m}" if isinstance(pattern, NM) else f"{1 - density:.0%} unstructured"
    return Variant(
        name=f"bitmap, {label}, {str(dtype).removeprefix('torch.')}{', int8 weights' if values else ''}",
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
        variant(Unstructured(), 0.5, torch.bfloat16, torch.int8),
    ),
)
