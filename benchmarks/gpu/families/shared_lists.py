"""Vector-wise N:M: V channels keep the same n of every m inputs. Packed as for the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore import NM, reference
from sparsecore.formats import SharedLists
from sparsecore.ops import shared_lists_linear

from .base import Family, Layer, Shape, Target, Variant, packed_on_cpu

LAYERS = ((4096, 4096), (14336, 4096))
TOKENS = (4096, 16, 1024, 256)


def variant(
    n: int,
    m: int,
    vector: int,
    dtype: torch.dtype = torch.bfloat16,
    by_kernel: tuple[int, ...] = (),
) -> Variant:
    """``n``:``m`` shared by ``vector`` channels."""

    def make(weight: Tensor) -> Layer:
        outputs, inputs = weight.shape
        packed = packed_on_cpu(weight, NM(n, m, vector=vector), "shared_lists")
        assert isinstance(packed, SharedLists)
        lists = packed.columns, packed.group_ptr

        def linear(x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
            return shared_lists_linear(x, values, *lists, None, bias, out_features=outputs)

        def spread(values: Tensor) -> Tensor:
            return reference.shared_lists_unpack(values, *lists, outputs, inputs)

        return Layer(
            spread(packed.values),
            lambda x, bias: linear(x, packed.values, bias),
            out_dtype=dtype,
            values=packed.values,
            trained=lambda x, values: linear(x, values, None),
            spread=spread,
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
        values_are_trained=True,
        small=(136, 192),
        kernels=("matmul_small_sm80", "matmul_sm80", "matmul_sm90"),
        by_kernel=by_kernel,
        trained=((4096, 4096, 4096),) if by_kernel else (),
    )


FAMILY = Family(
    name="vector-wise N:M",
    operators=("shared_lists_linear", "shared_lists_weight_grad"),
    variants=(
        variant(4, 16, 64, by_kernel=(8, 32, 64, 96, 128, 256)),
        variant(1, 4, 64),
        variant(6, 8, 64),
        variant(2, 8, 64, torch.float16),
    ),
)
