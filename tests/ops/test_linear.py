"""Every linear operator against float64, on every instruction set this machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsecore as sc
from tests.cases import PACKINGS, TOLERANCE, difference, exact_linear, packings

ACTIVATIONS = tuple(sc.reference.ACTIVATIONS)


@packings
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_matches_float64(
    isa: str, pattern: sc.Pattern, layout: str, sparsity: float | None, dtype: torch.dtype
) -> None:
    for tokens, n, k in ((1, 64, 96), (7, 33, 130), (33, 80, 257), (66, 17, 48)):
        packed = sc.pack(torch.randn(n, k, dtype=dtype), pattern, sparsity=sparsity, layout=layout)
        input, bias = torch.randn(tokens, k, dtype=dtype), torch.randn(n, dtype=dtype)
        for activation in ACTIVATIONS if tokens == 7 else ("none",):
            got = packed.linear(input, bias, activation=activation)
            assert got.dtype == dtype
            assert difference(got, exact_linear(input, packed, bias, activation)) < TOLERANCE[dtype]


@packings
def test_integers_are_exact(isa: str, pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    weight, input = torch.randint(-4, 5, (50, 100)).float(), torch.randint(-4, 5, (19, 100)).float()
    packed = sc.pack(weight, pattern, sparsity=sparsity, layout=layout)
    assert torch.equal(packed.linear(input), input @ packed.to_dense().T)


@packings
def test_int8_weights(isa: str, pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    packed = sc.pack(torch.randn(40, 90), pattern, sparsity=sparsity, layout=layout, dtype=torch.int8)
    input, bias = torch.randn(11, 90), torch.randn(40)
    assert packed.values.dtype == torch.int8
    assert (
        difference(packed.linear(input, bias), exact_linear(input, packed, bias)) < TOLERANCE[torch.float32]
    )


@pytest.mark.parametrize("vector", [4, 8, 16, 32, 64])
def test_int8_compute_is_exact_for_its_quantisation(isa: str, vector: int) -> None:
    packed = sc.pack(torch.randn(70, 203), sc.NM(2, 4, vector=vector), dtype=torch.int8)
    input = torch.randn(13, 203)
    scale = input.abs().amax(1, keepdim=True) / 127
    quantised = (input / scale).round().clamp(-127, 127).double()
    exact = quantised @ packed.to_dense().double().T * scale.double()
    assert difference(packed.linear(input, compute="int8"), exact) < 2e-5


@pytest.mark.parametrize("pattern", ["4x1", "4x4", "1x16", "unstructured"])
def test_int8_compute_of_group_lists(isa: str, pattern: str) -> None:
    packed = sc.pack(torch.randn(70, 203), pattern, sparsity=0.6, dtype=torch.int8, layout="group_lists")
    input = torch.randn(13, 203)
    scale = input.abs().amax(1, keepdim=True) / 127
    quantised = (input / scale).round().clamp(-127, 127).double()
    exact = quantised @ packed.to_dense().double().T * scale.double()
    assert difference(packed.linear(input, compute="int8"), exact) < 2e-5


@packings
@pytest.mark.parametrize(
    "shape", [(0, 5, 16), (3, 0, 16), (3, 5, 0), (0, 0, 0), (1, 1, 1), (2, 1, 257)], ids=str
)
def test_empty_and_tiny(
    isa: str, pattern: sc.Pattern, layout: str, sparsity: float | None, shape: tuple[int, int, int]
) -> None:
    tokens, n, k = shape
    packed = sc.pack(torch.randn(n, k), pattern, sparsity=sparsity, layout=layout)
    input, bias = torch.randn(tokens, k), torch.randn(n)
    got = packed.validate().linear(input, bias)
    assert got.shape == (tokens, n)
    assert torch.allclose(got, input @ packed.to_dense().T + bias, atol=1e-5)


@packings
def test_strides_and_leading_dimensions(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    packed = sc.pack(torch.randn(24, 36), pattern, sparsity=sparsity, layout=layout)
    wide = torch.randn(2, 5, 72)
    for input in (
        wide[..., :36],
        wide[..., ::2],
        wide[:, ::2, 36:],
        wide[0, 0, :36],
        wide.mT[:, :36].mT[..., :36],
        torch.randn(36).expand(4, 36),
    ):
        got = packed.linear(input)
        assert got.shape == (*input.shape[:-1], 24)
        assert difference(got, exact_linear(input, packed, None)) < TOLERANCE[torch.float32]


@settings(max_examples=60, deadline=None)
@given(
    packing=st.sampled_from(PACKINGS),
    tokens=st.integers(0, 70),
    n=st.integers(0, 150),
    k=st.integers(0, 300),
    dtype=st.sampled_from(list(TOLERANCE)),
    gap=st.integers(0, 3),
)
def test_any_shape(
    packing: tuple[sc.Pattern, str, float | None], tokens: int, n: int, k: int, dtype: torch.dtype, gap: int
) -> None:
    pattern, layout, sparsity = packing
    packed = sc.pack(torch.randn(n, k, dtype=dtype), pattern, sparsity=sparsity, layout=layout).validate()
    input = torch.randn(tokens, k + gap, dtype=dtype)[:, :k]
    got = packed.linear(input)
    exact = exact_linear(input, packed, None)
    scale = max(float(exact.abs().max()) if exact.numel() else 0.0, 1.0)
    assert got.shape == (tokens, n)
    assert torch.allclose(got.double(), exact, rtol=0, atol=TOLERANCE[dtype] * scale)


@packings
def test_same_bits_for_any_thread_count(
    isa: str, pattern: sc.Pattern, layout: str, sparsity: float | None
) -> None:
    packed = sc.pack(torch.randn(150, 260), pattern, sparsity=sparsity, layout=layout)
    for tokens in (1, 5, 70):
        input = torch.randn(tokens, 260)
        torch.set_num_threads(1)
        one = packed.linear(input)
        torch.set_num_threads(2)
        assert torch.equal(packed.linear(input), one)


@packings
def test_a_token_does_not_depend_on_its_neighbours(
    pattern: sc.Pattern, layout: str, sparsity: float | None
) -> None:
    packed = sc.pack(torch.randn(40, 64), pattern, sparsity=sparsity, layout=layout)
    clean = torch.randn(9, 64)
    dirty = clean.clone()
    dirty[4] = float("nan")
    dirty[7] = float("inf")
    rows = [0, 1, 2, 3, 5, 6, 8]
    assert torch.equal(packed.linear(dirty)[rows], packed.linear(clean)[rows])
    assert packed.linear(dirty)[4].isnan().any()


@packings
def test_denormals_do_not_leak(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    packed = sc.pack(torch.randn(40, 64), pattern, sparsity=sparsity, layout=layout)
    packed.linear(torch.full((9, 64), 1e-39))
    tiny = torch.tensor(1e-38)
    assert float(tiny * 0.01) != 0.0


@packings
def test_several_python_threads_at_once(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    packed = sc.pack(torch.randn(90, 130), pattern, sparsity=sparsity, layout=layout)
    inputs = [torch.randn(tokens, 130) for tokens in (1, 3, 8, 40) * 4]
    expected = [packed.linear(input) for input in inputs]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(packed.linear, inputs), expected, strict=True):
            assert torch.equal(got, want)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_works_in_a_forked_child() -> None:
    packed = sc.pack(torch.randn(64, 64), sc.NM(2, 4))
    input = torch.randn(40, 64)
    torch.set_num_threads(1)
    expected = packed.linear(input)
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(packed.linear(input), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_works_in_a_child_of_a_process_that_used_threads() -> None:
    program = """
import os, signal, torch, sparsecore as sc
torch.set_num_threads(2)
packed = sc.pack(torch.randn(64, 64), sc.NM(2, 4))
input = torch.randn(400, 64)
expected = packed.linear(input)
child = os.fork()
if child == 0:
    signal.alarm(60)  # a child that waits for ever is ended
    os._exit(0 if torch.equal(packed.linear(input), expected) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_out_writes_in_place_and_allocates_nothing() -> None:
    packed = sc.pack(torch.randn(48, 64), sc.NM(2, 4))
    assert isinstance(packed, sc.RowLists)
    input, out = torch.randn(20, 64), torch.full((20, 48), float("nan"))
    arguments = (packed.values, packed.offsets, packed.block_ptr, None, None, 48, packed.block, 0, 0)
    torch.ops.sparsecore.row_lists_linear_out(input, *arguments, out)
    assert torch.equal(out, packed.linear(input))
    with pytest.raises(RuntimeError, match="out must"):
        torch.ops.sparsecore.row_lists_linear_out(input, *arguments, torch.empty(20, 47))


def test_errors_say_what_to_do() -> None:
    packed = sc.pack(torch.randn(48, 64), sc.NM(2, 4))
    with pytest.raises(RuntimeError, match="block_ptr must be"):
        packed.linear(torch.randn(3, 300))
    with pytest.raises(RuntimeError, match="input is int64"):
        packed.linear(torch.ones(3, 64, dtype=torch.int64))
    with pytest.raises(RuntimeError, match="bias must have 48 entries"):
        packed.linear(torch.randn(3, 64), torch.randn(47))
