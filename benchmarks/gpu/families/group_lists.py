"""Groups of weights in lists that are expanded in shared memory. Packed as for the CPU."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

import sparsecore
from sparsecore import Group
from sparsecore.formats import GroupLists, select_mask

from .base import Family, Layer, Variant

LAYERS = ((4096, 4096),)
TOKENS = (1, 16, 1024)


def variant(rows: int, columns: int, dtype: torch.dtype = torch.bfloat16) -> Variant:
    """Groups of ``rows`` x ``columns``, 30 % kept."""

    def make(weight: Tensor) -> Layer:
        dense = weight.cpu()
        pattern = Group(rows, columns)
        mask = select_mask(dense.float().abs(), pattern, sparsity=0.7)
        packed = sparsecore.pack(dense, pattern, mask, layout="group_lists")
        assert isinstance(packed, GroupLists)
        moved = replace(packed, **{name: t.to(weight.device) for name, t in packed.tensors().items()})
        kept = torch.where(mask.to(weight.device), weight, torch.zeros_like(weight))
        return Layer(kept, lambda x, bias: moved.linear(x, bias), out_dtype=dtype)

    return Variant(
        name=f"groups of {rows} x {columns}, 30%, {str(dtype).removeprefix('torch.')}",
        dtype=dtype,
        density=0.3,
        make=make,
        peers=("cuBLAS",),
        layers=LAYERS,
        tokens=TOKENS,
        ragged=(1008, 1008),
        small=(96, 144),
    )


FAMILY = Family(
    name="group lists",
    operators=("group_lists_linear",),
    variants=(variant(4, 1), variant(16, 1), variant(1, 16, torch.float16)),
)
