"""What the tests of several folders share: patterns with their layouts, weights, and one tolerance table."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sparsecore as sc

# pattern, layout, sparsity: every layout with kernels of ours, and every way its lists can look
PACKINGS = [
    (sc.NM(2, 4), "row_lists", None),
    (sc.NM(1, 8), "row_lists", None),
    (sc.Unstructured(), "row_lists", 0.5),
    (sc.Unstructured(), "row_lists", 0.95),
    (sc.NM(2, 4, vector=16), "shared_lists", None),
    (sc.NM(1, 4, vector=32), "shared_lists", None),
    (sc.NM(2, 4, vector=64), "shared_lists", None),
    (sc.NM(3, 4, vector=4), "shared_lists", None),
    (sc.Group(8, 1), "shared_lists", 0.7),
    (sc.Group(16, 1), "shared_lists", 0.8),
    (sc.Unstructured(), "group_lists", 0.8),
    (sc.NM(2, 4), "group_lists", None),
    (sc.Group(2, 1), "group_lists", 0.6),
    (sc.Group(4, 1), "group_lists", 0.7),
    (sc.Group(64, 1), "group_lists", 0.5),
    (sc.Group(1, 8), "group_lists", 0.75),
    (sc.Group(4, 4), "group_lists", 0.5),
    (sc.Group(16, 16), "group_lists", 0.5),
    (sc.Group(4, 4), "row_lists", 0.5),
    (sc.NM(2, 4), "nm_decode", None),
    (sc.NM(1, 16), "nm_decode", None),
    (sc.NM(6, 8), "nm_decode", None),
    (sc.NM(5, 27), "nm_decode", None),
    (sc.Unstructured(), "bitmap_decode", 0.5),
    (sc.Unstructured(), "bitmap_decode", 0.93),
]
PACKING_IDS = [f"{layout}-{pattern!r}-{sparsity or ''}" for pattern, layout, sparsity in PACKINGS]
TRAINABLE = [packing for packing in PACKINGS if packing[1] != "nm_decode"]
TRAINABLE_IDS = [f"{layout}-{pattern!r}-{sparsity or ''}" for pattern, layout, sparsity in TRAINABLE]

packings = pytest.mark.parametrize(("pattern", "layout", "sparsity"), PACKINGS, ids=PACKING_IDS)
trainable = pytest.mark.parametrize(("pattern", "layout", "sparsity"), TRAINABLE, ids=TRAINABLE_IDS)

# relative to the largest magnitude of the exact result; outputs are rounded once
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 5e-3, torch.float16: 7e-4}


def difference(got: Tensor, exact: Tensor) -> float:
    """Largest difference relative to the largest magnitude of ``exact``; inf where nan or inf places differ."""
    got, exact = got.double(), exact.double()
    if not torch.equal(got.isfinite(), exact.isfinite()):
        return float("inf")
    if exact.numel() == 0:
        return 0.0
    return float((got - exact).abs().max() / exact.abs().max().clamp_min(1e-30))


def exact_linear(
    input: Tensor, packed: sc.PackedWeight, bias: Tensor | None, activation: str = "none"
) -> Tensor:
    """The result in float64 from the dense matrix."""
    dense = packed.to_dense().double()
    return sc.reference.linear(input.double(), dense, None, bias, activation)
