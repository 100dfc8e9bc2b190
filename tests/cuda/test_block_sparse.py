"""Block-sparse linear layers of CUDA tensors: operators, gradients, fake kernels and refusals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import sparsecore
from sparsecore import reference
from sparsecore.formats import BlockSparse
from sparsecore.ops import block_sparse_linear, block_sparse_transpose, block_sparse_validate

DTYPES = (torch.bfloat16, torch.float16)
SIZES = (16, 32, 64, 128)


def whole_numbers(*shape: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> Tensor:
    """Small integers: products and sums are exact in every dtype."""
    return torch.randint(-2, 3, shape).float().to(device).to(dtype)


def block_weight(
    n: int, k: int, size: int, device: str, dtype: torch.dtype = torch.bfloat16, density: float = 0.5
) -> BlockSparse:
    """Random blocks; the second row of blocks keeps nothing."""
    mask = torch.rand(-(-n // size), -(-k // size)) < density
    mask[1:2] = False
    return BlockSparse.from_dense(
        whole_numbers(n, k, dtype=dtype, device=device), mask.to(device), block_size=size
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(256, 384), (1, 1), (70, 130), (0, 8), (8, 0)], ids=str)
def test_what_is_packed_comes_back(shape: tuple[int, int], size: int, device: str) -> None:
    weight = whole_numbers(*shape, device=device)
    mask = torch.rand(-(-shape[0] // size), -(-shape[1] // size), device=device) < 0.5
    packed = BlockSparse.from_dense(weight, mask, block_size=size).validate()
    kept = mask.repeat_interleave(size, 0).repeat_interleave(size, 1)[: shape[0], : shape[1]]
    assert torch.equal(packed.to_dense(), torch.where(kept, weight, torch.zeros_like(weight)))
    assert len(packed.col_indices) == int(mask.sum())


def test_the_mask_of_what_is_not_zero(device: str) -> None:
    packed = block_weight(100, 150, 32, device)
    again = BlockSparse.from_dense(packed.to_dense(), block_size=32)
    assert torch.equal(again.col_indices, packed.col_indices)
    assert torch.equal(again.values, packed.values)


@pytest.mark.filterwarnings("ignore:Sparse BSR tensor support is in beta state")
def test_bsr_there_and_back(device: str) -> None:
    packed = block_weight(128, 192, 32, device)
    matrix = packed.to_bsr()
    assert torch.equal(matrix.to_dense(), packed.to_dense())
    again = BlockSparse.from_bsr(packed.to_dense().to_sparse_bsr((32, 32))).validate()
    assert torch.equal(again.to_dense(), packed.to_dense())
    with pytest.raises(ValueError, match="no multiple of the block size 32"):
        block_weight(100, 192, 32, device).to_bsr()
    with pytest.raises(ValueError, match=r"square blocks of bfloat16, float16 or float32, got \(16, 32\)"):
        BlockSparse.from_bsr(packed.to_dense().to_sparse_bsr((16, 32)))
    with pytest.raises(ValueError, match=r"torch\.sparse_bsr"):
        BlockSparse.from_bsr(packed.to_dense())


def test_the_transposed_index_is_that_of_the_transposed_matrix(device: str) -> None:
    packed = block_weight(100, 150, 16, device, density=0.3)
    mirrored = BlockSparse.from_dense(
        packed.to_dense().T.contiguous(), (packed.transposed[0].new_zeros(10, 7) == 1), block_size=16
    )
    assert mirrored.col_indices.numel() == 0
    ccol, row, order, source = packed.transposed
    dense = reference.block_sparse_unpack(packed.values[source.long()].mT, ccol, row, 150, 100)
    assert torch.equal(dense, packed.to_dense().T)
    assert torch.equal(order, reference.block_sparse_order(ccol))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tokens", [0, 1, 12, 20, 33, 130])
def test_linear_is_the_dense_product(tokens: int, size: int, dtype: torch.dtype, device: str) -> None:
    weight = block_weight(200, 328, size, device, dtype)
    input = whole_numbers(tokens, 328, dtype=dtype, device=device)
    bias = whole_numbers(200, dtype=torch.float32, device=device)
    output = weight.linear(input, bias)
    expected = input.double() @ weight.to_dense().double().T + bias.double()
    assert torch.equal(output, expected.to(dtype))


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "hard_swish"])
def test_epilogue_in_its_order(activation: str, device: str) -> None:
    weight = block_weight(40, 96, 16, device, torch.float16)
    input = torch.randn(3, 5, 96, device=device).to(torch.float16)
    scale, token_scale = torch.rand(40, device=device), torch.rand(15, device=device)
    bias = torch.randn(40, device=device, dtype=torch.float16)
    residual = torch.randn(3, 5, 40, device=device)
    index = (weight.values, weight.crow_indices, weight.col_indices)
    output = block_sparse_linear(
        input,
        *index,
        weight.order,
        scale,
        bias,
        out_features=40,
        activation=activation,
        token_scale=token_scale,
        residual=residual,
        out_dtype=torch.float32,
    )
    expected = reference.block_sparse_linear(
        input, *index, scale, token_scale, bias, residual, 40, activation, torch.float64
    )
    torch.testing.assert_close(output.double(), expected, rtol=1e-3, atol=1e-3)


def test_views_with_strides_and_offsets(device: str) -> None:
    weight = block_weight(33, 72, 16, device)
    wide = whole_numbers(9, 147, device=device)
    for view in (wide[:, 1:73], wide[::2, :72], wide[:, :144:2]):
        assert torch.equal(weight.linear(view), weight.linear(view.contiguous()))
    shifted = torch.empty(weight.values.numel() + 1, dtype=weight.values.dtype, device=device)[1:]
    values = shifted.view(weight.values.shape).copy_(weight.values)
    input = wide[:, :72].contiguous()
    assert torch.equal(weight.with_values(values).linear(input), weight.linear(input))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("with_index", [False, True])
@pytest.mark.parametrize(
    "n", [150, 152]
)  # rows of the gradient that tensor copies cannot bring, and that they can
def test_gradients_are_those_of_the_dense_layer(n: int, with_index: bool, size: int, device: str) -> None:
    k = 200
    weight = block_weight(n, k, size, device)
    values = weight.values.clone().requires_grad_()
    dense = weight.to_dense().double().requires_grad_()
    input = whole_numbers(2, 35, k, device=device).requires_grad_()
    bias = torch.zeros(n, device=device, requires_grad=True)
    residual = whole_numbers(2, 35, n, device=device).requires_grad_()
    output = block_sparse_linear(
        input,
        values,
        weight.crow_indices,
        weight.col_indices,
        weight.order,
        bias=bias,
        residual=residual,
        out_features=n,
        transposed=weight.transposed if with_index else None,
    )
    grad = whole_numbers(2, 35, n, device=device)
    got = torch.autograd.grad(output, (input, values, bias, residual), grad)
    copy = input.detach().double().requires_grad_()
    expected = torch.autograd.grad(copy @ dense.T, (copy, dense), grad.double())
    assert torch.equal(got[0], expected[0].to(got[0].dtype))
    blocks = BlockSparse.from_dense(
        expected[1].to(torch.bfloat16),
        reference.block_sparse_unpack(
            torch.ones_like(weight.values), weight.crow_indices, weight.col_indices, n, k
        )[::size, ::size]
        != 0,
        block_size=size,
    )
    assert torch.equal(got[1], blocks.values)
    assert torch.equal(
        got[1].double(),
        reference.block_sparse_weight_grad(
            grad, input.detach(), weight.crow_indices, weight.col_indices, size
        ).to(torch.bfloat16),
    )
    assert torch.equal(got[2], grad.flatten(0, -2).float().sum(0))
    assert torch.equal(got[3], grad)


@pytest.mark.parametrize("tokens", [1, 8, 9, 32, 33])
@pytest.mark.parametrize("size", SIZES)
def test_the_gradient_of_few_tokens(size: int, tokens: int, device: str) -> None:
    weight = block_weight(150, 205, size, device, torch.float16)
    # Of a wider tensor that begins anywhere, and of one that does not.
    for grad in (
        whole_numbers(tokens, 160, dtype=torch.float16, device=device)[:, 3:153],
        whole_numbers(tokens, 150, dtype=torch.float16, device=device),
    ):
        expected = (grad.double() @ weight.to_dense().double()).to(torch.float16)
        for kernel in ("", "linear_small_sm80", "linear_sm80"):
            with sparsecore.cuda.use(kernel):
                got = torch.ops.sparsecore.block_sparse_input_grad(
                    grad, weight.values, *weight.transposed, 205
                )
            assert torch.equal(got, expected)


def test_gradients_are_close_to_float64_ones(device: str) -> None:
    weight = block_weight(96, 160, 32, device, torch.float16)
    values = torch.randn(weight.values.shape, device=device).to(torch.float16).requires_grad_()
    input = torch.randn(70, 160, device=device).to(torch.float16).requires_grad_()
    grad = torch.randn(70, 96, device=device).to(torch.float16)
    got = torch.autograd.grad(weight.with_values(values).linear(input), (input, values), grad)
    wide = [tensor.detach().double().requires_grad_() for tensor in (input, values)]
    dense = reference.block_sparse_unpack(wide[1], weight.crow_indices, weight.col_indices, 96, 160)
    expected = torch.autograd.grad(wide[0] @ dense.T, wide, grad.double())
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=2e-3, atol=2e-2)


def test_activations_and_scales_have_no_gradient(device: str) -> None:
    weight = block_weight(32, 32, 16, device)
    input = whole_numbers(2, 32, device=device).requires_grad_()
    with pytest.raises(RuntimeError, match="no gradient"):
        weight.linear(input, activation="relu").sum().backward()


def test_opcheck(device: str) -> None:
    weight = block_weight(40, 72, 16, device)
    ops = torch.ops.sparsecore
    input, grad = whole_numbers(5, 72, device=device), whole_numbers(5, 40, device=device)
    index = (weight.crow_indices, weight.col_indices)
    arguments = (input, weight.values, *index, weight.order, None, None, None, None, 40, 0, torch.bfloat16)
    torch.library.opcheck(ops.block_sparse_linear.default, arguments)
    torch.library.opcheck(ops.block_sparse_linear.default, (*arguments, *weight.transposed))
    torch.library.opcheck(ops.block_sparse_input_grad.default, (grad, weight.values, *weight.transposed, 72))
    torch.library.opcheck(ops.block_sparse_weight_grad.default, (grad, input, *index, 16, torch.float32))
    torch.library.opcheck(
        ops.block_sparse_validate.default, (*index, weight.order, *weight.transposed, 40, 72, 16)
    )


def test_compiles_whole(device: str) -> None:
    weight = block_weight(40, 72, 16, device)
    values = weight.values.clone().requires_grad_()

    def layer(x: Tensor, values: Tensor) -> Tensor:
        return block_sparse_linear(
            x, values, weight.crow_indices, weight.col_indices, weight.order, out_features=40
        ).float()

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    input = whole_numbers(2, 3, 72, device=device).requires_grad_()
    assert torch.equal(compiled(input, values), layer(input, values))
    got = torch.autograd.grad(compiled(input, values).sum(), (input, values))
    expected = torch.autograd.grad(layer(input, values).sum(), (input, values))
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_autocast_narrows_the_input(device: str) -> None:
    weight = block_weight(32, 64, 32, device)
    with torch.autocast(device, torch.bfloat16):
        assert weight.linear(torch.ones(2, 64, device=device)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda w: w.crow_indices.__setitem__(0, 1), "crow_indices do not ascend.* at row of blocks 0"),
        (lambda w: w.col_indices.__setitem__(3, 99), "col_indices are outside.* at entry 3"),
        (lambda w: w.order.__setitem__(0, 5), "order is not the rows"),
        (lambda w: w.transposed[1].__setitem__(0, -1), "the transposed index is damaged, at 0"),
        (lambda w: w.transposed[3].__setitem__(1, 100), "source does not name.* at entry 1"),
    ],
)
def test_a_damaged_index_is_refused(damage: object, message: str, device: str) -> None:
    weight = block_weight(70, 130, 16, device, density=0.7)
    damage(weight)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        weight.validate()


def test_refusals(device: str) -> None:
    weight = block_weight(32, 64, 16, device)
    input = whole_numbers(2, 64, device=device)
    with pytest.raises(ValueError, match="16, 32, 64 or 128 on a side, got 48"):
        BlockSparse.from_dense(whole_numbers(48, 48), block_size=48)
    with pytest.raises(ValueError, match="bfloat16, float16 or float32"):
        BlockSparse.from_dense(torch.ones(16, 16).double(), block_size=16)
    with pytest.raises(ValueError, match=r"mask must be torch\.bool"):
        BlockSparse.from_dense(whole_numbers(16, 16), torch.ones(1, 1), block_size=16)
    with pytest.raises(ValueError, match="values must have shape"):
        weight.with_values(weight.values[:1])
    with pytest.raises(ValueError, match=r"order must be torch\.int32"):
        replace(weight, order=weight.order.long()).validate()
    with pytest.raises(RuntimeError, match="input is float16 and the weight bfloat16"):
        weight.linear(input.half())
    with pytest.raises(RuntimeError, match=r"starts must be contiguous with shape \(4,\)"):
        replace(weight, shape=(48, 64)).linear(input)
    with pytest.raises(RuntimeError, match="order must be int32"):
        replace(weight, order=weight.order.long()).linear(input)
    with pytest.raises(RuntimeError, match=r"values has .* blocks and the index"):
        replace(weight, values=torch.cat([weight.values, weight.values])).linear(input)
    with pytest.raises(RuntimeError, match=r"bias must be contiguous with shape \(32,\)"):
        weight.linear(input, torch.ones(31, device=device))
    with pytest.raises(RuntimeError, match="the transposed index is"):
        torch.ops.sparsecore.block_sparse_validate(
            weight.crow_indices, weight.col_indices, weight.order, weight.order, None, None, None, 32, 64, 16
        )
    block_sparse_validate(
        weight.crow_indices, weight.col_indices, weight.order, out_features=32, in_features=64, block_size=16
    )
    assert len(block_sparse_transpose(weight.crow_indices, weight.col_indices, columns=4)) == 4
