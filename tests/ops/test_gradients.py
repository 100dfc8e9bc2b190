"""Gradients: the reference by finite differences in float64, the kernels against the reference."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import sparsecore as sc
from tests.cases import difference, trainable


def _inputs(packed: sc.PackedWeight, tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    n, k = packed.shape
    return (
        torch.randn(tokens, k, dtype=dtype, requires_grad=True),
        packed.values.detach().clone().requires_grad_(),
        torch.randn(n, dtype=dtype, requires_grad=True),
    )


@trainable
def test_reference_passes_gradcheck(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    packed = sc.pack(torch.randn(10, 24, dtype=torch.float64), pattern, sparsity=sparsity, layout=layout)

    def run(input: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        return packed.with_values(values).linear(input, bias)

    assert torch.autograd.gradcheck(run, _inputs(packed, 3, torch.float64))


@trainable
@pytest.mark.parametrize("tokens", [1, 5, 33, 130])
def test_kernels_match_the_reference(
    isa: str, pattern: sc.Pattern, layout: str, sparsity: float | None, tokens: int
) -> None:
    packed = sc.pack(torch.randn(70, 150), pattern, sparsity=sparsity, layout=layout)
    got_inputs = _inputs(packed, tokens, torch.float32)
    exact_inputs = [tensor.detach().double().requires_grad_() for tensor in got_inputs]
    got = packed.with_values(got_inputs[1]).linear(got_inputs[0], got_inputs[2])
    exact = packed.with_values(exact_inputs[1]).linear(exact_inputs[0], exact_inputs[2])
    direction = torch.randn_like(got)
    got.backward(direction)
    exact.backward(direction.double())
    for ours, theirs in zip(got_inputs, exact_inputs, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert difference(ours.grad, theirs.grad) < 5e-6


@trainable
def test_one_token_without_leading_dimensions(
    pattern: sc.Pattern, layout: str, sparsity: float | None
) -> None:
    packed = sc.pack(torch.randn(20, 32), pattern, sparsity=sparsity, layout=layout)
    input, values, bias = (tensor.detach() for tensor in _inputs(packed, 1, torch.float32))
    leaves = [input[0].requires_grad_(), values.requires_grad_(), bias.requires_grad_()]
    packed.with_values(values).linear(leaves[0], bias).sum().backward()
    assert torch.allclose(leaves[0].grad, packed.to_dense().sum(0), atol=1e-5)
    assert torch.allclose(
        packed.with_values(values.grad).to_dense(), input[0].detach() * packed.mask(), atol=1e-5
    )
    assert torch.equal(bias.grad, torch.ones(20))


@trainable
def test_bfloat16_gradients(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    packed = sc.pack(torch.randn(40, 60, dtype=torch.bfloat16), pattern, sparsity=sparsity, layout=layout)
    input, values, bias = _inputs(packed, 9, torch.bfloat16)
    packed.with_values(values).linear(input, bias).sum().backward()
    assert values.grad is not None
    assert values.grad.dtype == torch.bfloat16
    exact = packed.with_values(values.detach().float())
    full = torch.ones(40, 9) @ input.detach().float()
    got = packed.with_values(values.grad).to_dense().float()
    assert difference(got, full * exact.mask()) < 5e-3


@trainable
def test_same_gradient_bits_for_any_thread_count(
    pattern: sc.Pattern, layout: str, sparsity: float | None
) -> None:
    packed = sc.pack(torch.randn(90, 200), pattern, sparsity=sparsity, layout=layout)
    grads = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        input, values, bias = _inputs(packed, 70, torch.float32)
        packed.with_values(values).linear(input, bias).square().sum().backward()
        grads.append((input.grad, values.grad, bias.grad))
    for one, two in zip(*grads, strict=True):
        assert torch.equal(one, two)


@trainable
def test_opcheck(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    packed = sc.pack(torch.randn(64, 40), pattern, sparsity=sparsity, layout=layout)
    input, values, bias = _inputs(packed, 5, torch.float32)
    indices = [getattr(packed, name) for name in packed.index_names]
    sizes = (64, *packed.attributes().values())
    op = getattr(torch.ops.sparsecore, f"{layout}_linear").default
    torch.library.opcheck(op, (input, values, *indices, None, bias, *sizes, 0, 0))


def test_opcheck_decode() -> None:
    ops, weight, input = torch.ops.sparsecore, torch.randn(40, 64), torch.randn(3, 64)
    codes = sc.pack(weight, sc.NM(2, 4), layout="nm_decode")
    assert isinstance(codes, sc.NMDecode)
    torch.library.opcheck(
        ops.nm_decode_linear.default, (input, codes.values, codes.codes, None, None, 40, 2, 4, 0, 0)
    )
    bits = sc.pack(weight, sc.Unstructured(), sparsity=0.5, layout="bitmap_decode")
    assert isinstance(bits, sc.BitmapDecode)
    torch.library.opcheck(
        ops.bitmap_decode_linear.default,
        (input, bits.values, bits.bitmap, bits.row_ptr, None, None, 40, 0, 0),
    )


def test_fused_activation_refuses_gradients() -> None:
    packed = sc.pack(torch.randn(8, 16), sc.NM(2, 4))
    with pytest.raises(RuntimeError, match="fused activation"):
        packed.linear(torch.randn(2, 16, requires_grad=True), activation="gelu")


@trainable
def test_transpose_is_the_transposed_matrix(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    if layout == "bitmap_decode":
        return  # its gradient goes through the dense matrix
    packed = sc.pack(torch.randn(70, 301), pattern, sparsity=sparsity, layout=layout)
    assert isinstance(packed, (sc.RowLists, sc.SharedLists, sc.GroupLists))
    transposed, order = packed.transpose()
    assert torch.equal(transposed.validate().to_dense(), packed.to_dense().T)
    if isinstance(packed, sc.GroupLists):
        assert torch.equal(packed.values[order].transpose(1, 2), transposed.values[:-1])
    else:
        assert torch.equal(packed.values.flatten()[order], transposed.values)


@trainable
def test_autocast_narrows_the_input_only(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    packed = sc.pack(torch.randn(20, 32), pattern, sparsity=sparsity, layout=layout)
    input = torch.randn(4, 32, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = packed.linear(input)
    assert got.dtype == torch.bfloat16
    got.float().sum().backward()
    assert input.grad is not None
    assert input.grad.dtype == torch.float32
