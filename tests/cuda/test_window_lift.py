"""(2N-2):2N linear layers of CUDA tensors, packed as lifted 2:4: operators, gradients and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparsecore import reference
from sparsecore.ops import (
    semi_structured_compress,
    semi_structured_decompress,
    semi_structured_linear,
    semi_structured_validate,
)
from tests.cuda.test_semi_structured import masked, whole_numbers

DTYPES = (torch.bfloat16, torch.float16, torch.int8)
GROUPS = (6, 8, 10, 32)


def all_but_two(rows: int, columns: int, group: int) -> Tensor:
    """A mask that keeps ``group - 2`` of each group, in some rows fewer."""
    scores = torch.rand(rows, (columns + group - 1) // group, group)
    kept = torch.ones_like(scores, dtype=torch.bool).scatter_(-1, scores.topk(2, -1).indices, False)
    kept[::3] &= torch.rand_like(scores[::3]) < 0.6
    return kept.flatten(1)[:, :columns].contiguous()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("shape", [(70, 130), (1, 1), (17, 96), (0, 8), (8, 0)], ids=str)
def test_what_is_compressed_comes_back(
    shape: tuple[int, int], group: int, dtype: torch.dtype, device: str
) -> None:
    (n, k), mask = shape, all_but_two(*shape, group).to(device)
    weight = whole_numbers(n, k, dtype=dtype, device=device)
    values, metadata = semi_structured_compress(weight, mask, group=group)
    semi_structured_validate(values, metadata, out_features=n, in_features=k, group=group)
    dense = semi_structured_decompress(values, metadata, out_features=n, in_features=k, group=group)
    assert torch.equal(dense.float(), masked(weight, mask).float())
    assert torch.equal(reference.window_lift_unpack(values, metadata, n, k, group), dense.double())
    inputs = -(-k // group) * (group // 2 - 1) * 4
    assert values.shape[:2] == (-(-n // 64), -(-inputs // (128 // weight.element_size())))


def test_without_a_mask_the_largest_of_a_group_stay(device: str) -> None:
    weight = torch.randn(48, 96, device=device).to(torch.float16)
    weight[0, 3] = torch.nan
    packed = semi_structured_compress(weight, group=8)
    dense = semi_structured_decompress(*packed, out_features=48, in_features=96, group=8)
    assert int((dense != 0).view(48, 12, 8).sum(-1).max()) == 6 and bool(dense[0, 3].isnan())
    largest = weight[1:].abs().view(47, 12, 8).topk(6, -1).values.double().sum()
    assert torch.equal(dense[1:].abs().double().sum(), largest)
    # a mask that keeps too many keeps the largest of them
    everything = torch.ones(48, 96, dtype=torch.bool, device=device)
    again = semi_structured_compress(weight, everything, group=8)
    assert all(
        torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(packed, again, strict=True)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [0, 1, 17, 70])
def test_linear_is_the_dense_product(tokens: int, dtype: torch.dtype, device: str) -> None:
    n, k, group = 72, 200, 8
    weight, mask = whole_numbers(n, k, dtype=dtype, device=device), all_but_two(n, k, group).to(device)
    packed = semi_structured_compress(weight, mask, group=group)
    input = whole_numbers(tokens, k, dtype=dtype, device=device)
    bias = whole_numbers(n, dtype=torch.float32, device=device)
    output = semi_structured_linear(
        input, *packed, bias=bias, out_features=n, out_dtype=torch.float32, group=group
    )
    expected = input.double() @ masked(weight, mask).double().T + bias.double()
    assert torch.equal(output.double(), expected)


@pytest.mark.parametrize("group", GROUPS)
def test_epilogue_and_views(group: int, device: str) -> None:
    n, k = 40, 102
    packed = semi_structured_compress(torch.randn(n, k, device=device).to(torch.float16), group=group)
    wide = torch.randn(15, k + 5, device=device).to(torch.float16)
    scale, token_scale = torch.rand(n, device=device), torch.rand(15, device=device)
    bias, residual = torch.randn(n, device=device), torch.randn(15, n, device=device)
    for input in (wide[:, :k], wide[:, 1 : k + 1], wide[:, 4 : k + 4]):
        output = semi_structured_linear(
            input,
            *packed,
            scale,
            bias,
            out_features=n,
            activation="silu",
            token_scale=token_scale,
            residual=residual,
            out_dtype=torch.float32,
            group=group,
        )
        expected = reference.semi_structured_linear(
            input, *packed, scale, token_scale, bias, residual, n, "silu", torch.float64, group
        )
        torch.testing.assert_close(output.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_are_those_of_the_dense_layer(transposed: bool, device: str) -> None:
    n, k, group = 48, 72, 6
    # all but the same two of six along either direction
    mask = ((torch.arange(n)[:, None] + torch.arange(k)) % 6 > 1).to(device)
    weight = whole_numbers(n, k, device=device)
    values, metadata, *other = semi_structured_compress(weight, mask, transposed=transposed, group=group)
    dense = masked(weight, mask).requires_grad_()
    input = whole_numbers(6, k, device=device).requires_grad_()
    values.requires_grad_()
    output = semi_structured_linear(
        input,
        values,
        metadata,
        out_features=n,
        group=group,
        transposed=(other[0], other[1]) if transposed else None,
    )
    grad = whole_numbers(6, n, device=device)
    got = torch.autograd.grad(output, (input, values), grad)
    copy = input.detach().clone().requires_grad_()
    expected = torch.autograd.grad(copy @ dense.T, (copy, dense), grad)
    assert torch.equal(got[0], expected[0])
    # every window is full, so that each kept weight has one slot and each slot a kept weight
    of_values = semi_structured_decompress(got[1], metadata, out_features=n, in_features=k, group=group)
    assert torch.equal(of_values, masked(expected[1], mask))


def test_opcheck_and_compile(device: str) -> None:
    n, k = 40, 72
    packed = semi_structured_compress(whole_numbers(n, k, device=device), group=8)
    input = whole_numbers(2, 3, k, device=device)
    arguments = (input, *packed, None, None, None, None, n, 0, torch.bfloat16, None, None, 8)
    torch.library.opcheck(torch.ops.sparsecore.semi_structured_linear.default, arguments)

    def layer(x: Tensor) -> Tensor:
        return semi_structured_linear(x, *packed, out_features=n, activation="relu", group=8) * 2

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(input), layer(input))


def test_refusals(device: str) -> None:
    weight = whole_numbers(16, 60, device=device)
    values, metadata = semi_structured_compress(weight, group=6)
    input = whole_numbers(2, 60, device=device)
    for group in (5, 2, 66):
        with pytest.raises(ValueError, match="even number from 4 to 64"):
            semi_structured_compress(weight, group=group)
    with pytest.raises(ValueError, match="two_way"):
        semi_structured_compress(weight, selection="two_way", group=6)
    with pytest.raises(ValueError, match="serves both directions"):
        semi_structured_compress(weight, transposed=True, group=6)
    with pytest.raises(ValueError, match="take bfloat16, float16 and int8"):
        semi_structured_compress(weight.float(), group=6)
    with pytest.raises(ValueError, match="bool mask of its shape"):
        semi_structured_compress(weight, torch.ones(16, 59, dtype=torch.bool, device=device), group=6)
    with pytest.raises(RuntimeError, match="group"):
        semi_structured_linear(input, values, metadata, out_features=16, group=7)
    with pytest.raises(RuntimeError, match=r"weight \[16, 16\]"):
        semi_structured_linear(input[:, :12], values, metadata, out_features=16, group=6)
    # input 2 in both of its windows
    lifted = torch.zeros(1, 8, dtype=torch.bfloat16, device=device)
    lifted[0, 2] = lifted[0, 4] = 1
    twice = semi_structured_compress(lifted)
    with pytest.raises(ValueError, match="input 2 of channel 0 has a weight in two windows"):
        semi_structured_validate(*twice, out_features=1, in_features=6, group=6)
    once = semi_structured_compress(lifted * torch.tensor([1, 1, 1, 1, 0, 0, 0, 0], device=device))
    with pytest.raises(ValueError, match="input 2 of channel 0 is past the last"):
        semi_structured_validate(*once, out_features=1, in_features=2, group=6)
