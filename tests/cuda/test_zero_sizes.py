"""Layers without outputs, without inputs or without either, of every packed format that runs on CUDA."""

from __future__ import annotations

import pytest
import torch

from sparsecore import NM, Group, Pattern, Unstructured, pack
from sparsecore.ops import vnm_compress, vnm_linear

SIZES = [(0, 64), (64, 0), (0, 0)]
PATTERNS = {
    "semi_structured": NM(2, 4),
    "shared_lists": NM(2, 8, vector=16),
    "group_lists": Group(4, 1),
    "bitmap_decode": Unstructured(),
}


def expected(n: int, device: str) -> torch.Tensor:
    """Nothing but the bias."""
    return torch.ones(3, n, dtype=torch.bfloat16, device=device)


@pytest.mark.parametrize(("layout", "pattern"), PATTERNS.items())
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_packed_layers(layout: str, pattern: Pattern, n: int, k: int, device: str) -> None:
    weight = pack(torch.zeros(n, k, dtype=torch.bfloat16, device=device), pattern, layout=layout)
    input = torch.ones(3, k, dtype=torch.bfloat16, device=device)
    output = weight.linear(input, torch.ones(n, dtype=torch.bfloat16, device=device))
    assert torch.equal(output, expected(n, device))


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_vnm(n: int, k: int, device: str) -> None:
    packed = vnm_compress(torch.zeros(n, k, dtype=torch.bfloat16, device=device), vector=16, m=8)
    input = torch.ones(3, k, dtype=torch.bfloat16, device=device)
    bias = torch.ones(n, dtype=torch.bfloat16, device=device)
    output = vnm_linear(input, *packed, bias=bias, out_features=n, vector=16)
    assert torch.equal(output, expected(n, device))
