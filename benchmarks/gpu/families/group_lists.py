"""Groups of weights in lists that are expanded in shared memory. Packed as for the CPU."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sparsecore import Group
from sparsecore.formats import GroupLists

from .base import Family, Layer, Variant, packed_on_cpu

LAYERS = ((4096, 4096),)
TOKENS = (1, 16, 1024)


def variant(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16, trained: bool = False) -> Variant:
    """Groups of ``rows`` x ``columns``, 30 % kept."""

    def make(weight: Tensor) -> Layer:
        packed = packed_on_cpu(weight, Group(rows, columns), "group_lists", sparsity=0.7)
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
        name=f"groups of {rows} x {columns}, 30%, {str(dtype).removeprefix('torch.')}",
        dtype=dtype,
        density=0.3,
        make=make,
        peers=("cuBLAS",),
        layers=LAYERS,
        tokens=TOKENS,
        ragged=(1008, 1008),
        differentiable=True,
        values_are_trained=True,
        small=(96, 144),
        trained=((4096, 4096, 1024),) if trained else (),
    )


FAMILY = Family(
    name="group lists",
    operators=("group_lists_linear", "group_lists_weight_grad"),
    variants=(variant(4, 1, trained=True), variant(16, 1), variant(1, 16, torch.float16)),
)
