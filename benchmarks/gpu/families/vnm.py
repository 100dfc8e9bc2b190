"""V:N:M weights: V channels pick four of M inputs, each keeps two of these."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore.ops import vnm_compress, vnm_decompress, vnm_linear

from .base import Check, Family, Layer, Shape, Target, Variant, every

LAYERS = ((4096, 4096), (14336, 4096), (8192, 8192))
TOKENS = (4096, 16, 1024, 256)
GOALS = {(64, 8): (1.6, 2.2), (128, 16): (2.6, 3.8)}


def variant(
    vector: int, m: int, dtype: torch.dtype = torch.bfloat16, by_kernel: tuple[int, ...] = ()
) -> Variant:
    """``vector``:2:``m``."""

    def make(weight: Tensor) -> Layer:
        outputs, inputs = weight.shape
        packed = vnm_compress(weight, vector=vector, m=m)

        values, *index = packed

        def linear(x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
            return vnm_linear(x, values, *index, bias=bias, out_features=outputs, vector=vector)

        def spread(values: Tensor) -> Tensor:
            return reference.vnm_unpack(values, *index, outputs, inputs, vector)

        return Layer(
            spread(values),
            lambda x, bias: linear(x, values, bias),
            out_dtype=dtype,
            values=values,
            trained=lambda x, values: linear(x, values, None),
            spread=spread,
        )

    picked = ("matmul_picked_sm90",) if vector in (32, 64) else ()

    def targets(shape: Shape) -> tuple[Target, ...]:
        large = min(shape.outputs, shape.inputs) >= 4096 and shape.tokens >= 1024
        return (Target("cuBLAS", *GOALS[vector, m]),) if large and (vector, m) in GOALS else ()

    return Variant(
        name=f"{vector}:2:{m} {str(dtype).removeprefix('torch.')}",
        dtype=dtype,
        density=2 / m,
        make=make,
        peers=("cuBLAS",),
        targets=targets,
        layers=LAYERS,
        tokens=TOKENS,
        ragged=(1005, 1011),
        differentiable=True,
        values_are_trained=True,
        small=(136, 200),
        kernels=("matmul_small_sm80", "matmul_sm80", "matmul_sm90", *picked),
        by_kernel=by_kernel,
        trained=((4096, 4096, 4096),) if by_kernel else (),
    )


def keeps_the_largest(device: str, small: bool) -> str:
    """Against plain torch: the inputs that each run of channels picks, and two weights of each channel."""
    rows, inputs, vector, m = (64, 128, 32, 16) if small else (4096, 4096, 64, 8)
    weight = torch.randn(rows, inputs, device=device).to(torch.bfloat16)
    packed = vnm_compress(weight, vector=vector, m=m)
    dense = vnm_decompress(*packed, out_features=rows, in_features=inputs, vector=vector)
    groups = weight.float().abs().view(rows // vector, vector, -1, m)
    picked = torch.zeros_like(groups, dtype=torch.bool)
    best = groups.sum(1, keepdim=True).topk(4, -1).indices
    picked.scatter_(-1, best.expand(-1, vector, -1, -1), True)
    largest = torch.where(picked, groups, torch.zeros_like(groups)).topk(2, -1).values
    kept = dense.float().abs().view_as(groups).topk(2, -1).values
    return every(
        (
            (
                torch.equal(dense, reference.vnm_unpack(*packed, rows, inputs, vector)),
                "decompression is not the layout",
            ),
            (torch.equal(torch.where(dense != 0, weight, dense), dense), "values are changed"),
            (torch.equal(kept, largest), "not the largest weights of the picked inputs"),
        )
    )


FAMILY = Family(
    name="V:N:M",
    operators=("vnm_linear",),
    variants=(
        variant(64, 8, by_kernel=(8, 32, 64, 128, 256, 1024)),
        variant(128, 16),
        variant(64, 8, torch.float16),
    ),
    checks=(Check("compress", keeps_the_largest),),
)
