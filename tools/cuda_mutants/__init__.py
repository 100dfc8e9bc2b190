"""What tools/cuda_mutations.py breaks: one module for each family of kernels."""

from __future__ import annotations

from cuda_mutants import (
    bitmap_decode,
    bitmap_decode_dense,
    block_sparse,
    gathered,
    group_lists,
    semi_structured,
    semi_structured_gradient,
    validate,
)
from cuda_mutants.mutant import Family, Mutant

FAMILIES: tuple[Family, ...] = (
    bitmap_decode.FAMILY,
    bitmap_decode_dense.FAMILY,
    block_sparse.FAMILY,
    gathered.FAMILY,
    group_lists.FAMILY,
    semi_structured.FAMILY,
    semi_structured_gradient.FAMILY,
    validate.FAMILY,
)

__all__ = ["FAMILIES", "Family", "Mutant"]
