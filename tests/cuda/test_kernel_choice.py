"""Kernels that are asked for by name: each computes the product, says what it cannot do, and lets the rule back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from benchmarks.gpu.families import FAMILIES
from benchmarks.gpu.families.base import Variant, device_has, relative_error

import sparsecore as sc
from sparsecore.ops import semi_structured_compress, semi_structured_linear
from tests.cuda.conftest import EMULATED

CHOICES = [
    (variant, kernel) for family in FAMILIES for variant in family.variants for kernel in variant.kernels
]


@pytest.fixture(autouse=True)
def rule_afterwards() -> Iterator[None]:
    yield
    if EMULATED or torch.cuda.is_available():
        sc.cuda.use("")


@pytest.mark.parametrize(("variant", "kernel"), CHOICES, ids=lambda part: getattr(part, "name", part))
def test_each_kernel_computes_the_product(variant: Variant, kernel: str, device: str) -> None:
    if kernel not in device_has(variant.kernels, device):
        pytest.skip(f"{kernel} is for another device")
    layer = variant.layer(*variant.small_aligned, device)
    generator = torch.Generator(device).manual_seed(1)
    tokens = 5 if "small" in kernel else 70
    x = variant.random(tokens, variant.small_aligned[1], device=device, generator=generator)
    with sc.cuda.use(kernel):
        y = layer.linear(x, None)
        again = layer.linear(x, None)
    expected = x.double() @ layer.weight.double().T
    expected = expected if layer.scale is None else expected * layer.scale.double()
    assert torch.equal(y, again) and relative_error(y, expected) < 1e-2


def packed(device: str) -> tuple[torch.Tensor, ...]:
    return semi_structured_compress(torch.randn(64, 128, device=device).to(torch.bfloat16))


def test_what_a_kernel_cannot_do_is_refused(device: str) -> None:
    weight = packed(device)
    x = torch.randn(40, 128, device=device).to(torch.bfloat16)
    expected = semi_structured_linear(x, *weight, out_features=64)
    message = r"no kernel for bfloat16 on sm_\d+, .*40 tokens.*matmul_small_sm80: .*up to 32 tokens"
    with sc.cuda.use("matmul_small_sm80"), pytest.raises(RuntimeError, match=message):
        semi_structured_linear(x, *weight, out_features=64)
    assert torch.equal(semi_structured_linear(x, *weight, out_features=64), expected)


def test_families_without_the_name_keep_to_their_rule(device: str) -> None:
    weight = packed(device)
    x = torch.randn(40, 128, device=device).to(torch.bfloat16)
    expected = semi_structured_linear(x, *weight, out_features=64)
    for name in ("linear_sm80", "small_sm80", "another"):
        with sc.cuda.use(name):
            assert torch.equal(semi_structured_linear(x, *weight, out_features=64), expected)


def test_blocks_within_blocks(device: str) -> None:
    """Each gives back the choice before it; a call without a block stays."""
    weight = packed(device)
    x = torch.randn(40, 128, device=device).to(torch.bfloat16)

    def refused() -> bool:
        try:
            semi_structured_linear(x, *weight, out_features=64)
        except RuntimeError:
            return True
        return False

    with sc.cuda.use("matmul_small_sm80"):
        with sc.cuda.use("matmul_sm80"):
            assert not refused()
        assert refused()
    assert not refused()
    sc.cuda.use("matmul_small_sm80")
    assert refused()
    sc.cuda.use("")
    assert not refused()


def test_the_environment_asks_from_the_start(device: str) -> None:
    program = (
        "import torch, sparsecore as sc\n"
        f"if {EMULATED!r}: torch.ops.load_library({EMULATED!r})\n"
        "assert torch.ops.sparsecore.cuda_use_kernel('') == 'matmul_sm80'\n"
    )
    environment = {**os.environ, "SPARSECORE_CUDA_KERNEL": "matmul_sm80"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
