"""2:4 linear layers of CUDA tensors: operators, gradients, fake kernels and refusals."""

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

FLOAT8 = torch.float8_e4m3fn
DTYPES = (torch.bfloat16, torch.float16, torch.int8, FLOAT8)


def whole_numbers(*shape: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> Tensor:
    """Small integers: products and sums are exact in every dtype."""
    return torch.randint(-3, 4, shape).float().to(device).to(dtype)


def two_of_four(rows: int, columns: int) -> Tensor:
    """A mask that keeps zero, one or two of four neighbouring inputs."""
    scores = torch.rand(rows, (columns + 3) // 4, 4)
    kept = scores.topk(2, -1).indices
    mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, kept, True) & (
        torch.rand_like(scores) < 0.8
    )
    return mask.flatten(1)[:, :columns].contiguous()


def masked(weight: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, weight.float(), torch.zeros(())).to(weight.dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(64, 128), (1, 1), (70, 130), (17, 36), (0, 8), (8, 0)], ids=str)
def test_what_is_compressed_comes_back(shape: tuple[int, int], dtype: torch.dtype, device: str) -> None:
    weight, mask = whole_numbers(*shape, dtype=dtype, device=device), two_of_four(*shape).to(device)
    values, metadata = semi_structured_compress(weight, mask)
    dense = semi_structured_decompress(values, metadata, out_features=shape[0], in_features=shape[1])
    assert torch.equal(dense.float(), masked(weight, mask).float())
    assert torch.equal(reference.semi_structured_unpack(values, metadata, *shape).float(), dense.float())
    semi_structured_validate(values, metadata, out_features=shape[0], in_features=shape[1])


def test_by_row_keeps_the_two_largest(device: str) -> None:
    weight = torch.randn(48, 100, device=device).to(torch.float16)
    dense = semi_structured_decompress(*semi_structured_compress(weight), out_features=48, in_features=100)
    largest = weight.abs().reshape(48, 25, 4).topk(2, -1).values.double().sum()
    assert torch.equal(dense.abs().double().sum(), largest)
    assert int((dense != 0).reshape(48, 25, 4).sum(-1).max()) == 2


def test_two_way_serves_the_transposed_weight(device: str) -> None:
    weight = torch.randn(70, 132, device=device).to(torch.bfloat16)
    values, metadata, values_t, metadata_t = semi_structured_compress(
        weight, selection="two_way", transposed=True
    )
    dense = semi_structured_decompress(values, metadata, out_features=70, in_features=132)
    other = semi_structured_decompress(values_t, metadata_t, out_features=132, in_features=70)
    assert torch.equal(dense.T, other)
    assert int((dense != 0).sum()) > 0.4 * dense.numel()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("tokens", [0, 1, 7, 33, 130])
def test_linear_is_the_dense_product(tokens: int, dtype: torch.dtype, device: str) -> None:
    n, k = 72, 200
    weight, mask = whole_numbers(n, k, dtype=dtype, device=device), two_of_four(n, k).to(device)
    packed = semi_structured_compress(weight, mask)
    input = whole_numbers(tokens, k, dtype=dtype, device=device)
    bias = whole_numbers(n, dtype=torch.float32, device=device)
    output = semi_structured_linear(input, *packed, bias=bias, out_features=n, out_dtype=torch.float32)
    expected = input.double() @ masked(weight, mask).double().T + bias.double()
    assert torch.equal(output.double(), expected)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "hard_swish"])
def test_epilogue_in_its_order(activation: str, device: str) -> None:
    n, k = 40, 96
    weight = torch.randn(n, k, device=device).to(torch.float16)
    packed = semi_structured_compress(weight)
    input = torch.randn(3, 5, k, device=device).to(torch.float16)
    scale, token_scale = torch.rand(n, device=device), torch.rand(15, device=device)
    bias = torch.randn(n, device=device, dtype=torch.float16)
    residual = torch.randn(3, 5, n, device=device)
    output = semi_structured_linear(
        input,
        *packed,
        scale,
        bias,
        out_features=n,
        activation=activation,
        token_scale=token_scale,
        residual=residual,
        out_dtype=torch.float32,
    )
    expected = reference.semi_structured_linear(
        input, *packed, scale, token_scale, bias, residual, n, activation, torch.float64
    )
    torch.testing.assert_close(output.double(), expected, rtol=1e-3, atol=1e-3)


def test_views_with_strides_and_offsets(device: str) -> None:
    n, k = 33, 72
    packed = semi_structured_compress(whole_numbers(n, k, device=device))
    wide = whole_numbers(9, 2 * k + 3, device=device)
    for view in (wide[:, 1 : k + 1], wide[::2, :k], wide[:, : 2 * k : 2]):
        output = semi_structured_linear(view, *packed, out_features=n)
        assert torch.equal(output, semi_structured_linear(view.contiguous(), *packed, out_features=n))


def moved(tensor: torch.Tensor) -> torch.Tensor:
    """The same behind one element: it begins nowhere that vectors may."""
    place = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device)[1:].view(tensor.shape)
    return place.copy_(tensor)


@pytest.mark.parametrize("group", [4, 8])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8])
def test_weights_may_begin_anywhere(dtype: torch.dtype, group: int, device: str) -> None:
    n, k = 33, 72
    packed = semi_structured_compress(whole_numbers(n, k, device=device).to(dtype), group=group)
    away = [moved(tensor) for tensor in packed]
    input = whole_numbers(9, k, device=device).to(dtype)
    shape = {"out_features": n, "group": group}
    output = semi_structured_linear(input, *away, **shape, out_dtype=torch.float32)
    assert torch.equal(output, semi_structured_linear(input, *packed, **shape, out_dtype=torch.float32))
    shape["in_features"] = k
    assert torch.equal(
        semi_structured_decompress(*away, **shape), semi_structured_decompress(*packed, **shape)
    )
    semi_structured_validate(*away, **shape)


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_are_those_of_the_dense_layer(transposed: bool, device: str) -> None:
    n, k = 72, 136
    weight = whole_numbers(n, k, device=device)
    values, metadata, *other = semi_structured_compress(weight, selection="two_way", transposed=True)
    dense = semi_structured_decompress(values, metadata, out_features=n, in_features=k).requires_grad_()
    stored = semi_structured_decompress(torch.ones_like(values), metadata, out_features=n, in_features=k) != 0
    input = whole_numbers(6, k, device=device).requires_grad_()
    bias = torch.zeros(n, device=device, requires_grad=True)
    values.requires_grad_()
    output = semi_structured_linear(
        input,
        values,
        metadata,
        bias=bias,
        out_features=n,
        transposed=(other[0], other[1]) if transposed else None,
    )
    grad = whole_numbers(6, n, device=device)
    got = torch.autograd.grad(output, (input, values, bias), grad)
    copy = input.detach().clone().requires_grad_()
    expected = torch.autograd.grad(copy @ dense.T + bias.to(copy.dtype), (copy, dense), grad)
    assert torch.equal(got[0], expected[0])
    of_values = semi_structured_decompress(got[1], metadata, out_features=n, in_features=k)
    assert torch.equal(of_values, torch.where(stored, expected[1], torch.zeros_like(expected[1])))
    assert torch.equal(got[2], grad.float().sum(0))


def test_opcheck(device: str) -> None:
    n, k = 40, 72
    weight = whole_numbers(n, k, device=device)
    ops = torch.ops.sparsecore
    values, metadata = semi_structured_compress(weight)
    torch.library.opcheck(ops.semi_structured_compress.default, (weight, None, 2, True))
    torch.library.opcheck(ops.semi_structured_decompress.default, (values, metadata, n, k))
    torch.library.opcheck(ops.semi_structured_validate.default, (values, metadata, n, k))
    input = whole_numbers(5, k, device=device)
    arguments = (input, values, metadata, None, None, None, None, n, 0, torch.bfloat16)
    torch.library.opcheck(ops.semi_structured_linear.default, arguments)


def test_compiles_whole(device: str) -> None:
    n, k = 40, 72
    packed = semi_structured_compress(whole_numbers(n, k, device=device))
    input = whole_numbers(2, 3, k, device=device)

    def layer(x: Tensor) -> Tensor:
        return semi_structured_linear(x, *packed, out_features=n, activation="relu") * 2

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(input), layer(input))


def test_autocast_narrows_the_input(device: str) -> None:
    packed = semi_structured_compress(whole_numbers(16, 64, device=device))
    with torch.autocast(device, torch.bfloat16):
        output = semi_structured_linear(torch.ones(2, 64, device=device), *packed, out_features=16)
    assert output.dtype == torch.bfloat16


def test_damaged_metadata_is_refused(device: str) -> None:
    values, metadata = semi_structured_compress(whole_numbers(70, 130, device=device))
    metadata.view(-1)[3] = 0  # both places of every group are the first
    with pytest.raises(ValueError, match="ascending"):
        semi_structured_validate(values, metadata, out_features=70, in_features=130)


def test_refusals(device: str) -> None:
    weight = whole_numbers(16, 64, device=device)
    values, metadata = semi_structured_compress(weight)
    input = whole_numbers(2, 64, device=device)
    with pytest.raises(ValueError, match="selection"):
        semi_structured_compress(weight, selection="largest")
    with pytest.raises(RuntimeError, match=r"weight is float32"):
        semi_structured_compress(weight.float())
    with pytest.raises(RuntimeError, match=r"mask must be bool"):
        semi_structured_compress(weight, torch.ones(16, 64, device=device))
    with pytest.raises(RuntimeError, match="input is float16 and the weight bfloat16"):
        semi_structured_linear(input.half(), values, metadata, out_features=16)
    with pytest.raises(RuntimeError, match=r"weight \[16, 128\]"):
        semi_structured_linear(whole_numbers(2, 128, device=device), values, metadata, out_features=16)
    with pytest.raises(RuntimeError, match=r"bias must be contiguous with shape \(16,\)"):
        semi_structured_linear(input, values, metadata, bias=torch.ones(15, device=device), out_features=16)
    with pytest.raises(RuntimeError, match="out_dtype is int8"):
        semi_structured_linear(input, values, metadata, out_features=16, out_dtype=torch.int8)
    with pytest.raises(RuntimeError, match="residual must have the output's shape"):
        semi_structured_linear(
            input, values, metadata, residual=torch.ones(2, 15, device=device), out_features=16
        )
    with pytest.raises(RuntimeError, match="transposed packing"):
        semi_structured_compress(weight, transposed=True)
