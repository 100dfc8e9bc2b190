"""Linear layers over group lists of CUDA tensors: the CPU's operators and packed weights, gradients and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import sparsecore
from sparsecore import Group, Unstructured, reference
from sparsecore.formats import GroupLists, select_mask
from sparsecore.ops import group_lists_linear
from sparsecore.patterns import Pattern

DTYPES = (torch.bfloat16, torch.float16)
PATTERNS = (Unstructured(), Group(1, 16), Group(4, 1), Group(4, 4), Group(16, 1), Group(16, 16), Group(32, 2))


def whole_numbers(*shape: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> Tensor:
    """Small integers: products and sums are exact in every dtype."""
    return torch.randint(-2, 3, shape).to(device).to(dtype)


def packed(n: int, k: int, pattern: Pattern, dtype: torch.dtype, device: str) -> GroupLists:
    """A weight of small integers, packed on the CPU as for any other device."""
    mask = select_mask(torch.rand(n, k), pattern, sparsity=0.7)
    weight = sparsecore.pack(whole_numbers(n, k, dtype=dtype), pattern, mask, layout="group_lists")
    assert isinstance(weight, GroupLists)
    moved = {name: tensor.to(device) for name, tensor in weight.tensors().items()}
    return replace(weight, **moved)


def lists(weight: GroupLists) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return weight.values, weight.index, weight.order, weight.starts


def dense(weight: GroupLists) -> Tensor:
    unpacked = reference.group_lists_unpack(
        *(tensor.cpu() for tensor in lists(weight)), *weight.shape, weight.depth, weight.window
    )
    return unpacked.to(weight.values.device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("tokens", [0, 1, 5, 16, 20, 35, 70])
def test_linear_is_the_dense_product(tokens: int, pattern: Pattern, dtype: torch.dtype, device: str) -> None:
    weight = packed(96, 320, pattern, dtype, device)
    input = whole_numbers(tokens, 320, dtype=dtype, device=device)
    bias = whole_numbers(96, dtype=dtype, device=device)
    expected = input.double() @ dense(weight).double().T + bias.double()
    assert torch.equal(weight.linear(input, bias), expected.to(dtype))


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "hard_swish"])
def test_epilogue_in_its_order(activation: str, device: str) -> None:
    weight = packed(40, 96, Group(4, 1), torch.float16, device)
    weight = weight.with_values(torch.randn_like(weight.values))
    input = torch.randn(3, 5, 96, device=device).to(torch.float16)
    scale, bias = torch.rand(40, device=device) + 0.5, torch.randn(40, device=device)
    output = group_lists_linear(
        input,
        *lists(weight),
        scale,
        bias,
        out_features=40,
        depth=weight.depth,
        window=weight.window,
        activation=activation,
    )
    sums = (input.double() @ dense(weight).double().T) * scale.double() + bias.double()
    torch.testing.assert_close(output.double(), reference.activate(sums, activation), rtol=2e-3, atol=2e-3)


def test_views_with_strides_and_offsets(device: str) -> None:
    weight = packed(33, 72, Group(1, 8), torch.bfloat16, device)
    wide = whole_numbers(9, 147, device=device)
    for view in (wide[:, 1:73], wide[::2, :72], wide[:, :144:2]):
        assert torch.equal(weight.linear(view), weight.linear(view.contiguous()))
    input = wide[:, :72].contiguous()
    shifted = {}
    for name, tensor in weight.tensors().items():
        room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=device)[1:]
        shifted[name] = room.view(tensor.shape).copy_(tensor)
    for tokens in (2, 9):
        assert torch.equal(replace(weight, **shifted).linear(input[:tokens]), weight.linear(input[:tokens]))


@pytest.mark.parametrize("tokens", [3, 16])
def test_what_few_tokens_do_not_keep_is_not_multiplied(tokens: int, device: str) -> None:
    weight = packed(64, 96, Unstructured(), torch.bfloat16, device)
    weight = weight.with_values(torch.ones_like(weight.values))
    input = whole_numbers(tokens, 96, device=device)
    expected = weight.linear(input)
    input[1, 40] = float("inf")
    output, spared = weight.linear(input), dense(weight)[:, 40] == 0
    assert torch.equal(output[:, spared], expected[:, spared])
    assert not output[1, ~spared].isfinite().any()


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize(("with_structure", "tokens"), [(False, 35), (True, 35), (True, 3)])
def test_gradients_are_those_of_the_dense_layer(
    with_structure: bool, tokens: int, pattern: Pattern, device: str
) -> None:
    weight = packed(64, 160, pattern, torch.bfloat16, device)
    values = weight.values.clone().requires_grad_()
    matrix = dense(weight).double().requires_grad_()
    input = whole_numbers(2, tokens, 160, device=device).requires_grad_()
    bias = torch.zeros(64, device=device, requires_grad=True)
    transposed = weight.transposed_structure() if with_structure else None
    output = weight.with_values(values).trained_linear(input, bias, transposed)
    grad = whole_numbers(2, tokens, 64, device=device)
    got = torch.autograd.grad(output, (input, values, bias), grad)
    copy = input.detach().double().requires_grad_()
    expected = torch.autograd.grad(copy @ matrix.T, (copy, matrix), grad.double())
    assert torch.equal(got[0], expected[0].to(torch.bfloat16))
    of_values = reference.group_lists_weight_grad(
        grad.cpu(),
        input.detach().cpu(),
        *(tensor.cpu() for tensor in lists(weight)[1:]),
        weight.rows,
        weight.cols,
        weight.depth,
        weight.window,
    )
    assert torch.equal(got[1].cpu(), of_values.to(torch.bfloat16))
    assert torch.equal(got[2], grad.flatten(0, -2).sum(0).float())


def test_gradients_are_close_to_float64_ones(device: str) -> None:
    weight = packed(64, 96, Group(4, 4), torch.float16, device)
    weight = weight.with_values(torch.randn_like(weight.values))
    input = torch.randn(70, 96, device=device).to(torch.float16).requires_grad_()
    grad = torch.randn(70, 64, device=device).to(torch.float16)
    (got,) = torch.autograd.grad(weight.trained_linear(input, None, None), input, grad)
    torch.testing.assert_close(got.double(), grad.double() @ dense(weight).double(), rtol=2e-3, atol=2e-2)


def test_opcheck(device: str) -> None:
    weight = packed(40, 72, Group(4, 1), torch.bfloat16, device)
    ops = torch.ops.sparsecore
    input, grad = whole_numbers(5, 72, device=device), whole_numbers(5, 40, device=device)
    sizes = (weight.depth, weight.window)
    torch.library.opcheck(
        ops.group_lists_linear.default, (input, *lists(weight), None, None, 40, *sizes, 0, 0)
    )
    torch.library.opcheck(
        ops.group_lists_weight_grad.default,
        (grad, input, *lists(weight)[1:], weight.rows, weight.cols, *sizes),
    )


def test_compiles_whole(device: str) -> None:
    weight = packed(40, 72, Group(4, 1), torch.bfloat16, device)
    values = weight.values.clone().requires_grad_()
    structure = weight.transposed_structure()

    def layer(x: Tensor, values: Tensor) -> Tensor:
        return replace(weight, values=values).trained_linear(x, None, structure).float()

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    input = whole_numbers(2, 3, 72, device=device).requires_grad_()
    assert torch.equal(compiled(input, values), layer(input, values))
    got = torch.autograd.grad(compiled(input, values).sum(), (input, values))
    expected = torch.autograd.grad(layer(input, values).sum(), (input, values))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_refusals(device: str) -> None:
    weight = packed(32, 64, Group(4, 1), torch.bfloat16, device)
    input = whole_numbers(2, 64, device=device)
    with pytest.raises(
        RuntimeError, match=r"values are float32; on a .* device there are kernels for bfloat16"
    ):
        weight.to(torch.float32).linear(input.float())
    with pytest.raises(RuntimeError, match="input is float16 and the weight bfloat16"):
        weight.linear(input.half())
    with pytest.raises(RuntimeError, match="no kernel for these"):
        weight.linear(input, compute="int8")
    with pytest.raises(RuntimeError, match=r"order must be contiguous uint8 of shape \(2, 8\)"):
        replace(weight, depth=32).linear(input)
    with pytest.raises(RuntimeError, match="index must be int16"):
        replace(weight, depth=1024).linear(input)
    with pytest.raises(RuntimeError, match="values must be contiguous"):
        replace(weight, values=weight.values[1:]).linear(input)
    with pytest.raises(RuntimeError, match=r"bias must be contiguous with shape \(32,\)"):
        weight.linear(input, torch.ones(31, device=device))
