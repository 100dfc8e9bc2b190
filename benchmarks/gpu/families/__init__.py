"""The families of CUDA kernels, in the order in which a visit takes them. A new one is a file here and a row below."""

from __future__ import annotations

from . import bitmap_decode, block_sparse, group_lists, semi_structured, shared_lists, vnm
from .base import Family

FAMILIES: tuple[Family, ...] = (
    semi_structured.FAMILY,
    vnm.FAMILY,
    shared_lists.FAMILY,
    block_sparse.FAMILY,
    bitmap_decode.FAMILY,
    group_lists.FAMILY,
)
