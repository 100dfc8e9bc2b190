"""Unstructured and N:M linear layers of CUDA tensors behind a bitmap: the operator, packed weights, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sparsecore as sc
from sparsecore import reference
from sparsecore.formats.layouts import layouts_for
from sparsecore.ops import bitmap_decode_linear
from tests.cuda.test_semi_structured import whole_numbers

TYPES = [(x, v) for x in (torch.bfloat16, torch.float16) for v in (x, torch.int8)]


def packed_weight(
    n: int, k: int, dtype: torch.dtype, device: str, density: float = 0.5
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    mask = torch.rand(n, k) < density
    weight = whole_numbers(n, k, dtype=dtype) * mask
    return weight.double().to(device), tuple(t.to(device) for t in reference.bitmap_decode_pack(weight, mask))


@pytest.mark.parametrize("types", TYPES, ids=str)
@pytest.mark.parametrize("tokens", [0, 1, 13, 70])
def test_linear_is_the_dense_product(
    tokens: int, types: tuple[torch.dtype, torch.dtype], device: str
) -> None:
    n, k = 40, 600
    dense, packed = packed_weight(n, k, types[1], device)
    input = whole_numbers(tokens, k, dtype=types[0], device=device)
    scale = 0.5 ** torch.randint(0, 3, (n,), device=device).float()
    bias = whole_numbers(n, dtype=torch.float32, device=device)
    output = bitmap_decode_linear(input, *packed, scale, bias, out_features=n)
    expected = (input.double() @ dense.T * scale + bias.double()).to(types[0])
    assert torch.equal(output, expected)


@pytest.mark.parametrize(
    "types", [*TYPES, (torch.float32, torch.float32), (torch.float32, torch.int8)], ids=str
)
@pytest.mark.parametrize("shape", [(257, 24, 130), (2, 150, 20, 70), (300, 0, 8), (300, 8, 0)], ids=str)
def test_many_tokens_and_float32_are_dense_products(
    shape: tuple[int, ...], types: tuple[torch.dtype, torch.dtype], device: str
) -> None:
    *tokens, n, k = shape
    dense, packed = packed_weight(n, k, types[1], device)
    input = whole_numbers(*tokens, k, dtype=types[0], device=device)
    scale = 0.5 ** torch.randint(0, 3, (n,), device=device).float()
    bias = whole_numbers(n, dtype=torch.float32, device=device)
    product = input.double() @ dense.T
    output = bitmap_decode_linear(input, *packed, scale, bias, out_features=n, activation="relu")
    rounded = product.to(types[0]).double()
    assert torch.equal(output, (rounded * scale + bias.double()).relu().to(types[0]))
    if types[1] != torch.int8:
        assert torch.equal(bitmap_decode_linear(input, *packed, out_features=n), product.to(types[0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_gradients_are_the_dense_ones(dtype: torch.dtype, device: str) -> None:
    n, k = 24, 150
    dense, (values, *places) = packed_weight(n, k, dtype, device)
    input = whole_numbers(3, 2, k, dtype=dtype, device=device).requires_grad_()
    bias = whole_numbers(n, dtype=torch.float32, device=device).requires_grad_()
    values.requires_grad_()
    output = bitmap_decode_linear(input, values, *places, None, bias, out_features=n)
    grad = whole_numbers(3, 2, n, dtype=dtype, device=device)
    output.backward(grad)
    assert torch.equal(input.grad.double(), (grad.double() @ dense).to(dtype).double())
    full = grad.double().flatten(0, 1).T @ input.detach().double().flatten(0, 1)
    kept = torch.ops.sparsecore.bitmap_decode_unpack(torch.ones_like(values), *places, n, k) != 0
    assert torch.equal(values.grad, full[kept].to(dtype))
    assert torch.equal(bias.grad, grad.float().sum((0, 1)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int8], ids=str)
def test_unpacking_and_gathering(dtype: torch.dtype, device: str) -> None:
    dense, (values, *places) = packed_weight(30, 2300, dtype, device)
    unpacked = torch.ops.sparsecore.bitmap_decode_unpack(values, *places, 30, 2300)
    assert unpacked.dtype == dtype and torch.equal(unpacked.double(), dense)
    if dtype == torch.int8:
        return
    other = torch.randn(30, 2300, device=device).to(dtype)
    kept = torch.ops.sparsecore.bitmap_decode_unpack(torch.ones_like(values), *places, 30, 2300) != 0
    gathered = torch.ops.sparsecore.bitmap_decode_gather(other, *places, len(values))
    assert torch.equal(gathered, other[kept])
    for operator, arguments in (
        (torch.ops.sparsecore.bitmap_decode_unpack, (values, *places, 30, 2300)),
        (torch.ops.sparsecore.bitmap_decode_gather, (other, *places, len(values))),
    ):
        torch.library.opcheck(operator.default, arguments)
    strided = other.T.contiguous().T
    assert torch.equal(
        torch.ops.sparsecore.bitmap_decode_gather(strided, *places, len(values)),
        torch.ops.sparsecore.bitmap_decode_gather(other, *places, len(values)),
    )


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
def test_activation_and_views(activation: str, device: str) -> None:
    n, k = 33, 300
    _, packed = packed_weight(n, k, torch.float16, device)
    wide = torch.randn(6, k + 9, device=device).to(torch.float16)
    bias = torch.randn(n, device=device)
    for input in (wide[:, :k], wide[:, 1 : k + 1], wide[::2, 8 : k + 8], wide[:, :k].reshape(2, 3, k)):
        output = bitmap_decode_linear(input, *packed, None, bias, out_features=n, activation=activation)
        expected = reference.bitmap_decode_linear(
            input.double(), packed[0].double(), *packed[1:], None, bias.double(), n, activation
        )
        torch.testing.assert_close(output.double(), expected, rtol=2e-3, atol=2e-2)


def test_values_that_begin_anywhere(device: str) -> None:
    dense, (values, bitmap, row_ptr) = packed_weight(20, 200, torch.bfloat16, device)
    input = whole_numbers(3, 200, device=device)
    askew = torch.cat([values[:1], values])[1:]
    output = bitmap_decode_linear(input, askew, bitmap, row_ptr, out_features=20)
    assert torch.equal(output, (input.double() @ dense.T).to(torch.bfloat16))


@pytest.mark.usefixtures("as_cuda")
@pytest.mark.parametrize("pattern", [sc.NM(4, 16), sc.NM(3, 5), sc.Unstructured()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8], ids=str)
def test_layers_are_packed_behind_a_bitmap(pattern: sc.Pattern, dtype: torch.dtype, device: str) -> None:
    assert layouts_for(pattern, device)[0] == "bitmap_decode"
    weight = torch.randn(40, 130, device=device).to(torch.bfloat16)
    sparsity = 0.6 if isinstance(pattern, sc.Unstructured) else None
    packed = sc.pack(weight, pattern, sparsity=sparsity, dtype=dtype).validate()
    assert packed.layout == "bitmap_decode" and packed.pattern == pattern
    assert int(packed.mask().sum()) == packed.stored
    input = torch.randn(4, 130, device=device).to(torch.bfloat16)
    expected = input.double() @ packed.to_dense().double().T
    torch.testing.assert_close(packed.linear(input).double(), expected, rtol=1e-2, atol=5e-2)


def test_opcheck_and_compile(device: str) -> None:
    _, packed = packed_weight(24, 100, torch.bfloat16, device)
    input = whole_numbers(2, 3, 100, device=device)
    arguments = (input, *packed, None, None, 24, 0, 0)
    torch.library.opcheck(torch.ops.sparsecore.bitmap_decode_linear.default, arguments)

    def layer(x: Tensor) -> Tensor:
        return bitmap_decode_linear(x, *packed, out_features=24, activation="relu") * 2

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(input), layer(input))


def test_autocast_narrows_the_input(device: str) -> None:
    _, packed = packed_weight(16, 64, torch.bfloat16, device)
    with torch.autocast(device, torch.bfloat16):
        output = bitmap_decode_linear(torch.ones(2, 64, device=device), *packed, out_features=16)
    assert output.dtype == torch.bfloat16


@pytest.mark.usefixtures("as_cuda")
def test_float16_products_are_allowed_and_change_nothing(device: str) -> None:
    _, packed = packed_weight(16, 64, torch.bfloat16, device)
    input = whole_numbers(2, 64, device=device)
    allowed = bitmap_decode_linear(input, *packed, out_features=16, compute="float16")
    assert torch.equal(allowed, bitmap_decode_linear(input, *packed, out_features=16))


def test_refusals(device: str) -> None:
    _, (values, bitmap, row_ptr) = packed_weight(16, 100, torch.bfloat16, device)
    input = whole_numbers(2, 100, device=device)
    with pytest.raises(RuntimeError, match="input is float16 and the weight bfloat16"):
        bitmap_decode_linear(input.half(), values, bitmap, row_ptr, out_features=16)
    with pytest.raises(RuntimeError, match="input is float32 and the weight bfloat16"):
        bitmap_decode_linear(input.float(), values, bitmap, row_ptr, out_features=16)
    with pytest.raises(RuntimeError, match="int8 values need a scale"):
        bitmap_decode_linear(input, values.to(torch.int8), bitmap, row_ptr, out_features=16)
    with pytest.raises(RuntimeError, match=r"bitmap must be \(16, 3\), got \(16, 2\)"):
        bitmap_decode_linear(whole_numbers(2, 130, device=device), values, bitmap, row_ptr, out_features=16)
    with pytest.raises(RuntimeError, match="row_ptr must have 17 entries"):
        bitmap_decode_linear(input, values, bitmap, row_ptr[:16], out_features=16)
    with pytest.raises(RuntimeError, match=r"row_ptr must be contiguous, int32"):
        bitmap_decode_linear(input, values, bitmap, row_ptr.long(), out_features=16)
    with pytest.raises(RuntimeError, match="compute must be float32"):
        bitmap_decode_linear(input, values, bitmap, row_ptr, out_features=16, compute="int8")
    damaged = sc.formats.BitmapDecode((16, 100), sc.Unstructured(), values, None, bitmap, row_ptr.flip(0))
    with pytest.raises(ValueError, match="bitmap_decode"):
        damaged.validate()
