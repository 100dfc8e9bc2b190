"""Calls of our operators for the benchmarks: into memory that is there already, checked against the dense product."""

from __future__ import annotations

import torch
from torch import Tensor

import sparsecore as sc
from peers import Peer
from sparsecore.formats.base import COMPUTE
from sparsecore.formats.group_lists import GroupLists

# Relative errors (Frobenius) above which a result counts as wrong. int8 activations are rounded to 255 steps.
LIMITS = {torch.float32: 2e-6, torch.bfloat16: 4e-3, torch.float16: 1.5e-3}
INT8_LIMIT = 2e-2


def into(packed: sc.PackedWeight, input: Tensor, bias: Tensor, out: Tensor, compute: str = "float32") -> Peer:
    """The ``_out`` operator of the weight's layout, without a layer around it."""
    op = getattr(torch.ops.sparsecore, f"{packed.layout}_linear_out")
    indices = [getattr(packed, name) for name in packed.index_names]
    sizes: list[int] = [packed.shape[0]]
    if isinstance(packed, sc.RowLists):
        sizes.append(packed.block)
    if isinstance(packed, GroupLists):
        sizes += [packed.depth, packed.window]
    if isinstance(packed, sc.NMDecode) and isinstance(packed.pattern, sc.NM):
        sizes += [packed.pattern.n, packed.pattern.m]
    arguments = (packed.values, *indices, packed.scale, bias, *sizes, 0, COMPUTE[compute], out)
    return lambda: op(input, *arguments)


def checked_error(
    packed: sc.PackedWeight, dense: Tensor, input: Tensor, bias: Tensor, out: Tensor, compute: str, what: str
) -> float:
    """The relative error of ``out``; a result that is wrong is never timed.

    Args:
        packed: What computed ``out``.
        dense: ``packed.to_dense()`` in float64.
        input: The activations.
        bias: The bias.
        out: The result.
        compute: Of the operator.
        what: Names the case in the error.

    Raises:
        RuntimeError: The error is above the limit of the type.
    """
    exact = torch.addmm(bias.double(), input.double(), dense.T)
    error = float((out.double() - exact).norm() / exact.norm())
    limit = (
        INT8_LIMIT if compute == "int8" else LIMITS[torch.float16 if compute == "float16" else input.dtype]
    )
    if not error <= limit:
        raise RuntimeError(f"{what}: wrong result, relative error {error:.1e}, allowed {limit:.1e}")
    return error
