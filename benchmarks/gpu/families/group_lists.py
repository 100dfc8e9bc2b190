"""Groups of weights in lists that are expanded in shared memory. Packed as for the CPU."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sparsecore import Group, Unstructured
from sparsecore.formats import GroupLists

from .base import Family, Layer, Variant, packed_on_cpu

LAYERS = ((4096, 4096),)
TOKENS = (1, 16, 1024)
KERNELS = ("group_lists_small_sm80", "group_lists_sm80")


def variant(
    rows: int,
    columns: int,
    dtype: torch.dtype = torch.bfloat16,
    *,
    kept: float = 0.3,
    trained: bool = False,
    by_kernel: tuple[int, ...] = (),
) -> Variant:
    """Groups of ``rows`` x ``columns``, a share of ``kept`` kept."""
    pattern = Unstructured() if rows == columns == 1 else Group(rows, columns)

    def make(weight: Tensor) -> Layer:
        packed = packed_on_cpu(weight, pattern, "group_lists", sparsity=1 - kept)
        assert isinstance(packed, GroupLists)
        structure = packed.transposed_structure()
        return Layer(
            packed.to_dense(),
            lambda x, bias: packed.linear(x, bias),
            out_dtype=dtype,
            values=packed.values,
            trained=lambda x, values: replace(packed, values=values).trained_linear(x, None, structure),
            spread=lambda values: replace(packed, values=values).to_dense(),
        )

    return Variant(
        name=f"groups of {rows} x {columns}, {kept:.0%}, {str(dtype).removeprefix('torch.')}",
        dtype=dtype,
        density=kept,
        make=make,
        peers=("cuBLAS",),
        layers=LAYERS,
        tokens=TOKENS,
        ragged=(1008, 1008),
        differentiable=True,
        values_are_trained=True,
        small=(96, 144),
        kernels=KERNELS,
        by_kernel=by_kernel,
        trained=((4096, 4096, 1024),) if trained else (),
    )


FAMILY = Family(
    name="group lists",
    operators=("group_lists_linear", "group_lists_weight_grad"),
    variants=(
        variant(4, 1, trained=True, by_kernel=(1, 2, 4, 8, 16, 32, 64)),
        variant(16, 1),
        variant(1, 16, torch.float16),
        variant(1, 1, kept=0.1, by_kernel=(1, 2, 4, 8, 16, 32, 64)),
    ),
)
