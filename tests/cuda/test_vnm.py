"""V:N:M linear layers of CUDA tensors: compression, operators, gradients, fake kernels and refusals."""

from __future__ import annotations

import pytest
import torch
from benchmarks.gpu.families.base import capability_of
from torch import Tensor

import sparsecore
from sparsecore import reference
from sparsecore.ops import vnm_compress, vnm_decompress, vnm_linear, vnm_validate

DTYPES = (torch.bfloat16, torch.float16)


def whole_numbers(*shape: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> Tensor:
    """Small integers: products and sums are exact in every dtype."""
    return torch.randint(-3, 4, shape).to(device).to(dtype)


def allowed_mask(n: int, k: int, vector: int, m: int) -> Tensor:
    """A mask that keeps zero, one or two weights of four inputs that every run of channels picks anew."""
    groups = -(-k // m)
    mask = torch.zeros(n, groups * m, dtype=torch.bool)
    for run in range(0, n, vector):
        rows = mask[run : run + vector].view(-1, groups, m)
        picks = torch.rand(groups, m).topk(4).indices.expand(rows.shape[0], -1, -1)
        kept = picks.gather(-1, torch.rand(*picks.shape).topk(2).indices)
        rows.scatter_(-1, kept, torch.rand(kept.shape) < 0.9)
    return mask[:, :k].contiguous()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(64, 128, 16, 8), (1, 1, 64, 4), (70, 131, 32, 10), (200, 66, 128, 16)], ids=str
)
def test_what_is_compressed_comes_back(
    shape: tuple[int, int, int, int], dtype: torch.dtype, device: str
) -> None:
    n, k, vector, m = shape
    weight = whole_numbers(n, k, dtype=dtype, device=device)
    mask = allowed_mask(*shape).to(device)
    packed = vnm_compress(weight, mask, vector=vector, m=m)
    expected = torch.where(mask, weight, torch.zeros_like(weight))
    sizes = {"out_features": n, "in_features": k, "vector": vector}
    assert torch.equal(vnm_decompress(*packed, **sizes), expected)
    assert torch.equal(reference.vnm_unpack(*packed, n, k, vector), expected)
    vnm_validate(*packed, **sizes)


def test_magnitude_picks_inputs_then_weights(device: str) -> None:
    weight = torch.randn(64, 64, device=device).to(torch.float16)
    packed = vnm_compress(weight, vector=32, m=16)
    dense = vnm_decompress(*packed, out_features=64, in_features=64, vector=32)
    kept = (dense != 0).view(2, 32, 4, 16)
    assert int(kept.sum(-1).max()) == 2 and int(kept.any(1).sum(-1).max()) == 4
    scores = weight.float().abs().view(2, 32, 4, 16).sum(1)
    assert torch.equal(
        kept.any(1).nonzero(),
        torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, scores.topk(4).indices, True).nonzero(),
    )
    picked = torch.where(
        kept.any(1, keepdim=True),
        weight.view(2, 32, 4, 16).abs(),
        torch.zeros_like(weight.view(2, 32, 4, 16)),
    )
    assert torch.equal(picked.topk(2, -1).values.double().sum(), dense.abs().double().sum())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("vector", [16, 32, 64, 128])
@pytest.mark.parametrize("tokens", [0, 1, 9, 70, 130])
def test_linear_is_the_dense_product(tokens: int, vector: int, dtype: torch.dtype, device: str) -> None:
    n, k = 72, 200
    packed = vnm_compress(whole_numbers(n, k, dtype=dtype, device=device), vector=vector)
    input = whole_numbers(tokens, k, dtype=dtype, device=device)
    bias = whole_numbers(n, dtype=torch.float32, device=device)
    output = vnm_linear(input, *packed, bias=bias, out_features=n, vector=vector, out_dtype=torch.float32)
    weight = vnm_decompress(*packed, out_features=n, in_features=k, vector=vector)
    assert torch.equal(output.double(), input.double() @ weight.double().T + bias.double())


@pytest.mark.parametrize("vector", [32, 64])
@pytest.mark.parametrize("m", [4, 8, 12, 16])
def test_picked_from_whole_tiles(m: int, vector: int, device: str) -> None:
    if capability_of(device) != 90:
        pytest.skip("a kernel for sm_90")
    n, k = 300, 21 * m - 3
    packed = vnm_compress(whole_numbers(n, k, device=device), vector=vector, m=m)
    input = whole_numbers(140, k, device=device)
    with sparsecore.cuda.use("matmul_picked_sm90"):
        output = vnm_linear(input, *packed, out_features=n, vector=vector, out_dtype=torch.float32)
    weight = vnm_decompress(*packed, out_features=n, in_features=k, vector=vector)
    assert torch.equal(output.double(), input.double() @ weight.double().T)


@pytest.mark.parametrize(("k", "m", "groups"), [(64, 8, ""), (500, 20, "groups of 20 inputs, ")])
def test_groups_that_cannot_be_picked_from(k: int, m: int, groups: str, device: str) -> None:
    """64 inputs are eight groups of 8 and of 9."""
    packed = vnm_compress(whole_numbers(64, k, device=device), vector=64, m=m)
    input = whole_numbers(140, k, device=device)
    expected = vnm_linear(input, *packed, out_features=64, vector=64)
    message = (
        rf"no kernel for bfloat16 on sm_\d+, runs of 64, {groups}140 tokens.* known groups of up to 16 inputs"
    )
    with sparsecore.cuda.use("matmul_picked_sm90"), pytest.raises(RuntimeError, match=message):
        vnm_linear(input, *packed, out_features=64, vector=64)
    assert torch.equal(vnm_linear(input, *packed, out_features=64, vector=64), expected)


def test_epilogue_in_its_order(device: str) -> None:
    n, k = 40, 96
    packed = vnm_compress(torch.randn(n, k, device=device).to(torch.float16), vector=16)
    input = torch.randn(3, 5, k, device=device).to(torch.float16)
    scale, token_scale = torch.rand(n, device=device), torch.rand(15, device=device)
    bias, residual = torch.randn(n, device=device), torch.randn(3, 5, n, device=device)
    output = vnm_linear(
        input,
        *packed,
        scale,
        bias,
        out_features=n,
        vector=16,
        activation="silu",
        token_scale=token_scale,
        residual=residual,
        out_dtype=torch.float32,
    )
    expected = reference.vnm_linear(
        input, *packed, scale, token_scale, bias, residual, n, 16, "silu", torch.float64
    )
    torch.testing.assert_close(output.double(), expected, rtol=1e-3, atol=1e-3)


def test_views_with_strides_and_offsets(device: str) -> None:
    n, k = 33, 72
    packed = vnm_compress(whole_numbers(n, k, device=device), vector=16)
    wide = whole_numbers(9, 2 * k + 3, device=device)
    for view in (wide[:, 1 : k + 1], wide[::2, :k], wide[:, : 2 * k : 2]):
        output = vnm_linear(view, *packed, out_features=n, vector=16)
        assert torch.equal(output, vnm_linear(view.contiguous(), *packed, out_features=n, vector=16))
    # Arrays that begin anywhere are copied.
    moved = [torch.cat([t.flatten()[:1], t.flatten()])[1:].view_as(t) for t in packed]
    output = vnm_linear(wide[:, :k], *moved, out_features=n, vector=16)
    assert torch.equal(output, vnm_linear(wide[:, :k], *packed, out_features=n, vector=16))


@pytest.mark.parametrize("vector", [16, 128])
def test_gradients_are_those_of_the_dense_layer(vector: int, device: str) -> None:
    n, k = 150, 136
    values, metadata, columns = vnm_compress(whole_numbers(n, k, device=device), vector=vector)
    sizes = {"out_features": n, "in_features": k, "vector": vector}
    dense = vnm_decompress(values, metadata, columns, **sizes).requires_grad_()
    stored = vnm_decompress(torch.ones_like(values), metadata, columns, **sizes) != 0
    input = whole_numbers(6, k, device=device).requires_grad_()
    bias = torch.zeros(n, device=device, requires_grad=True)
    values.requires_grad_()
    output = vnm_linear(input, values, metadata, columns, bias=bias, out_features=n, vector=vector)
    grad = whole_numbers(6, n, device=device)
    got = torch.autograd.grad(output, (input, values, bias), grad)
    copy = input.detach().clone().requires_grad_()
    expected = torch.autograd.grad(copy @ dense.T + bias.to(copy.dtype), (copy, dense), grad)
    assert torch.equal(got[0], expected[0])
    of_values = vnm_decompress(got[1], metadata, columns, **sizes)
    assert torch.equal(of_values, torch.where(stored, expected[1], torch.zeros_like(expected[1])))
    assert torch.equal(got[2], grad.float().sum(0))


def test_opcheck(device: str) -> None:
    packed = vnm_compress(whole_numbers(40, 72, device=device), vector=16)
    arguments = (
        whole_numbers(5, 72, device=device),
        *packed,
        None,
        None,
        None,
        None,
        40,
        16,
        0,
        torch.bfloat16,
    )
    torch.library.opcheck(torch.ops.sparsecore.vnm_linear.default, arguments)


def test_compiles_whole(device: str) -> None:
    packed = vnm_compress(whole_numbers(40, 72, device=device), vector=16)
    input = whole_numbers(2, 3, 72, device=device)

    def layer(x: Tensor) -> Tensor:
        return vnm_linear(x, *packed, out_features=40, vector=16, activation="relu") * 2

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(input), layer(input))


def test_autocast_narrows_the_input(device: str) -> None:
    packed = vnm_compress(whole_numbers(16, 64, device=device), vector=16)
    with torch.autocast(device, torch.bfloat16):
        output = vnm_linear(torch.ones(2, 64, device=device), *packed, out_features=16, vector=16)
    assert output.dtype == torch.bfloat16


def test_damage_is_refused(device: str) -> None:
    n, k, vector = 70, 130, 32
    values, metadata, columns = vnm_compress(whole_numbers(n, k, device=device), vector=vector)
    sizes = {"out_features": n, "in_features": k, "vector": vector}
    for place, column in ((5, int(columns[1, 4])), (0, 130), (7, 3)):
        damaged = columns.clone()
        damaged[1, place] = column
        with pytest.raises(
            ValueError,
            match=r"of run 1 is outside of the weight's 130 inputs or its group, or does not ascend",
        ):
            vnm_validate(values, metadata, damaged, **sizes)
        # Nothing outside of the input is read.
        vnm_linear(
            whole_numbers(3, k, device=device), values, metadata, damaged, out_features=n, vector=vector
        )
    metadata.view(-1)[3] = 0
    with pytest.raises(ValueError, match="ascending"):
        vnm_validate(values, metadata, columns, **sizes)


def test_refusals(device: str) -> None:
    weight = whole_numbers(32, 64, device=device)
    values, metadata, columns = vnm_compress(weight, vector=32)
    input = whole_numbers(2, 64, device=device)
    with pytest.raises(ValueError, match="vector must be 16, 32, 64 or 128, got 8"):
        vnm_compress(weight, vector=8)
    with pytest.raises(ValueError, match="m must be at least 4"):
        vnm_compress(weight, m=2)
    with pytest.raises(ValueError, match="the mask keeps more than 32:2:8 allows"):
        vnm_compress(weight, torch.ones_like(weight, dtype=torch.bool), vector=32)
    with pytest.raises(ValueError, match="mask must be bool"):
        vnm_compress(weight, torch.ones_like(weight), vector=32)
    with pytest.raises(RuntimeError, match="weight is float32"):
        vnm_compress(weight.float(), vector=32)
    with pytest.raises(RuntimeError, match="input is float16 and the weight bfloat16"):
        vnm_linear(input.half(), values, metadata, columns, out_features=32, vector=32)
    with pytest.raises(RuntimeError, match=r"columns must be contiguous \(2, picked\)"):
        vnm_linear(input, values, metadata, columns, out_features=32, vector=16)
    with pytest.raises(RuntimeError, match=r"picked weight \[32, 28\]"):
        vnm_linear(input, values[:, :0], metadata, columns[:, :28].contiguous(), out_features=32, vector=32)
    with pytest.raises(RuntimeError, match="residual must have the output's shape"):
        vnm_linear(
            input,
            values,
            metadata,
            columns,
            residual=torch.ones(2, 15, device=device),
            out_features=32,
            vector=32,
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_two_streams_and_graphs() -> None:
    packed = vnm_compress(whole_numbers(512, 512, device="cuda"))
    input = whole_numbers(64, 512, device="cuda")
    expected = vnm_linear(input, *packed, out_features=512, vector=64)
    outputs = []
    for stream in (torch.cuda.Stream(), torch.cuda.Stream()):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            outputs.append(vnm_linear(input, *packed, out_features=512, vector=64))
    torch.cuda.synchronize()
    assert all(torch.equal(output, expected) for output in outputs)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = vnm_linear(input, *packed, out_features=512, vector=64)
    output.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(output, expected)
