"""Linear layers over shared lists of CUDA tensors: the CPU's operators and packed weights, gradients and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sparsecore
from sparsecore import NM, reference
from sparsecore.formats import SharedLists
from sparsecore.ops import shared_lists_linear
from sparsecore.ops.shared_lists import unpacked_input_grad

DTYPES = (torch.bfloat16, torch.float16)


def whole_numbers(*shape: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> Tensor:
    """Small integers: products and sums are exact in every dtype."""
    return torch.randint(-3, 4, shape).to(device).to(dtype)


def packed(n: int, k: int, vector: int, dtype: torch.dtype, device: str, keep: str = "2:8") -> SharedLists:
    """A weight of small integers, packed on the CPU as for any other device."""
    pattern = NM(*(int(part) for part in keep.split(":")), vector=vector)
    weight = sparsecore.pack(whole_numbers(n, k, dtype=dtype) + 8, pattern, layout="shared_lists")
    assert isinstance(weight, SharedLists)
    tensors = {name: tensor.to(device) for name, tensor in weight.tensors().items()}
    return SharedLists((n, k), pattern, tensors["values"], None, tensors["columns"], tensors["group_ptr"])


def lists(weight: SharedLists) -> tuple[Tensor, Tensor, Tensor]:
    return weight.values, weight.columns, weight.group_ptr


def dense(weight: SharedLists) -> Tensor:
    return reference.shared_lists_unpack(*lists(weight), *weight.shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vector", [8, 16, 32, 64])
def test_what_is_packed_comes_back(vector: int, dtype: torch.dtype, device: str) -> None:
    weight = packed(3 * vector - 5, 136, vector, dtype, device)
    assert torch.equal(weight.to_dense(), dense(weight))
    assert torch.equal(weight.mask(), dense(weight) != 0)
    weight.validate()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vector", [8, 16, 32, 64])
@pytest.mark.parametrize("tokens", [0, 1, 9, 70])
def test_linear_is_the_dense_product(tokens: int, vector: int, dtype: torch.dtype, device: str) -> None:
    weight = packed(72, 200, vector, dtype, device)
    input = whole_numbers(tokens, 200, dtype=dtype, device=device)
    bias = whole_numbers(72, dtype=dtype, device=device)
    output = weight.linear(input, bias)
    expected = input.double() @ dense(weight).double().T + bias.double()
    assert torch.equal(output, expected.to(dtype))


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "hard_swish"])
def test_epilogue_in_its_order(activation: str, device: str) -> None:
    weight = packed(40, 96, 16, torch.float16, device)
    weight = weight.with_values(torch.randn_like(weight.values))
    input = torch.randn(3, 5, 96, device=device).to(torch.float16)
    bias = torch.randn(40, device=device)
    scale = torch.rand(40, device=device) + 0.5
    output = shared_lists_linear(input, *lists(weight), scale, bias, out_features=40, activation=activation)
    expected = reference.shared_lists_linear(
        input.double(),
        weight.values.double(),
        *lists(weight)[1:],
        scale.double(),
        bias.double(),
        40,
        activation,
    )
    torch.testing.assert_close(output.double(), expected, rtol=2e-3, atol=2e-3)


def test_views_with_strides_and_offsets(device: str) -> None:
    weight = packed(33, 72, 16, torch.bfloat16, device)
    wide = whole_numbers(9, 2 * 72 + 3, device=device)
    for view in (wide[:, 1:73], wide[::2, :72], wide[:, :144:2]):
        assert torch.equal(weight.linear(view), weight.linear(view.contiguous()))
    # Values that begin anywhere are copied.
    values = torch.cat([weight.values.flatten()[:1], weight.values.flatten()])[1:].view_as(weight.values)
    assert torch.equal(weight.with_values(values).linear(wide[:, :72]), weight.linear(wide[:, :72]))


@pytest.mark.parametrize("vector", [8, 64])
def test_gradients_are_those_of_the_dense_layer(vector: int, device: str) -> None:
    n, k = 100, 136
    weight = packed(n, k, vector, torch.bfloat16, device)
    values = weight.values.clone().requires_grad_()
    matrix = reference.shared_lists_unpack(values, *lists(weight)[1:], n, k)
    input = whole_numbers(2, 3, k, device=device).requires_grad_()
    bias = torch.zeros(n, device=device, requires_grad=True)
    grad = whole_numbers(2, 3, n, device=device)
    expected = torch.autograd.grad(input.float() @ matrix.float().T, (input, values), grad.float())
    output = shared_lists_linear(input, values, *lists(weight)[1:], bias=bias, out_features=n)
    # On the emulator the CPU's row lists would make the input's gradient.
    got = torch.autograd.grad(output, (input, values, bias), grad)
    of_input = unpacked_input_grad(grad, *lists(weight), k)
    assert torch.equal(of_input, expected[0])
    assert torch.equal(got[1], expected[1])
    assert torch.equal(got[2], grad.float().sum((0, 1)))
    if device == "cuda":
        assert torch.equal(got[0], expected[0])


def test_opcheck(device: str) -> None:
    weight = packed(40, 72, 16, torch.bfloat16, device)
    input, ops = whole_numbers(5, 72, device=device), torch.ops.sparsecore
    torch.library.opcheck(ops.shared_lists_unpack.default, (*lists(weight), 40, 72))
    torch.library.opcheck(
        ops.shared_lists_weight_grad.default,
        (whole_numbers(5, 40, device=device), input, *lists(weight)[1:], 16),
    )
    torch.library.opcheck(ops.shared_lists_linear.default, (input, *lists(weight), None, None, 40, 0, 0))


def test_compiles_whole(device: str) -> None:
    weight = packed(40, 72, 16, torch.bfloat16, device)
    input = whole_numbers(2, 3, 72, device=device)

    def layer(x: Tensor) -> Tensor:
        return weight.linear(x, activation="relu") * 2

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(input), layer(input))


def test_a_layer_is_packed_moved_and_run(device: str) -> None:
    linear = torch.nn.Linear(64, 48, dtype=torch.bfloat16)
    layer = sparsecore.nn.SparseLinear.from_dense(linear, NM(2, 8, vector=16)).to(device)
    input = torch.randn(3, 64, device=device, dtype=torch.bfloat16)
    expected = input.double() @ layer.weight.to_dense().double().T + layer.bias.double()
    torch.testing.assert_close(layer(input).double(), expected, rtol=1e-2, atol=1e-2)


def test_damaged_columns_read_nothing_outside(device: str) -> None:
    weight = packed(40, 72, 16, torch.bfloat16, device)
    weight.columns[3] = -1
    weight.group_ptr[1] = 1 << 30
    weight.linear(whole_numbers(5, 72, device=device))
    with pytest.raises(ValueError, match="damaged"):
        weight.validate()


def test_refusals(device: str) -> None:
    weight = packed(40, 72, 16, torch.bfloat16, device)
    input = whole_numbers(2, 72, device=device)
    with pytest.raises(RuntimeError, match="input is float16 and the weight bfloat16"):
        weight.linear(input.half())
    with pytest.raises(RuntimeError, match="values are float32"):
        weight.to(torch.float32).linear(input.float())
    with pytest.raises(RuntimeError, match="needs int8 values"):
        weight.linear(input, compute="int8")
    with pytest.raises(RuntimeError, match=r"bias must be contiguous with shape \(40,\)"):
        weight.linear(input, torch.ones(39, device=device))
    with pytest.raises(RuntimeError, match="group_ptr must be contiguous"):
        shared_lists_linear(input, *lists(weight), out_features=90)
    with pytest.raises(RuntimeError, match="as many records as columns"):
        shared_lists_linear(input, weight.values[1:], *lists(weight)[1:], out_features=40)
    four = packed(40, 72, 4, torch.bfloat16, device)
    with pytest.raises(
        RuntimeError,
        match=r"no kernel for bfloat16 on sm_\d+, vectors of 4.*matmul_sm80: .*vectors of 8, 16, 32, 64",
    ):
        four.linear(input)
