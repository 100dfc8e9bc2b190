"""Vector-wise N:M: V channels keep the same n of every m inputs. Packed as for the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

import sparsecore
from sparsecore import NM, reference
from sparsecore.ops import shared_lists_linear

from .base import Family, Layer, Shape, Target, Variant

LAYERS = ((4096, 4096), (14336, 4096))
TOKENS = (4096, 16, 1024, 256)


def variant(n: int, m: int, vector: int, dtype: torch.dtype = torch.bfloat16) -> Variant:
    """``n``:``m`` shared by ``vector`` channels."""

    def make(weight: Tensor) -> Layer:
        outputs, inputs = weight.shape
        packed = sparsecore.pack(weight.cpu(), NM(n, m, vector=vector), layout="shared_lists").tensors()
        values, columns, group_ptr = (
            packed[name].to(weight.device) for name in ("values", "columns", "group_ptr")
        )

        def linear(x: Tensor, bias: Tensor | None) -> Tensor:
            return shared_lists_linear(x, values, columns, group_ptr, None, bias, out_features=outputs)

        return Layer(
            reference.shared_lists_unpack(values, columns, group_ptr, outputs, inputs),
            linear,
            out_dtype=dtype,
        )

    def targets(shape: Shape) -> tuple[Target, ...]:
        large = min(shape.outputs, shape.inputs) >= 4096 and shape.tokens >= 1024
        return (Target("cuBLAS", 2.4, 3.2),) if large and m == 4 * n else ()

    return Variant(
        name=f"{n}:{m} of {vector} channels, {str(dtype).removeprefix('torch.')}",
        dtype=dtype,
        density=n / m,
        make=make,
        peers=("cuBLAS",),
        targets=targets,
        layers=LAYERS,
        tokens=TOKENS,
        ragged=(1005, 1016),
        differentiable=True,
        small=(136, 192),
    )


FAMILY = Family(
    name="vector-wise N:M",
    operators=("shared_lists_linear",),
    variants=(
        variant(4, 16, 64),
        variant(1, 4, 64),
        variant(6, 8, 64),
        variant(2, 8, 64, torch.float16),
    ),
)
