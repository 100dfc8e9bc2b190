"""SparseLinear behaves as a layer should: gradients, dtypes, copies, files, compilers."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import sparsecore as sc
from tests.cases import packings, trainable


def _layer(
    pattern: sc.Pattern, layout: str, sparsity: float | None, n: int = 48, k: int = 70
) -> sc.nn.SparseLinear:
    return sc.nn.SparseLinear.from_dense(nn.Linear(k, n), pattern, sparsity=sparsity, layout=layout)


@packings
def test_from_dense_and_back(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    linear = nn.Linear(70, 48)
    layer = sc.nn.SparseLinear.from_dense(linear, pattern, sparsity=sparsity, layout=layout)
    dense = layer.to_dense()
    assert torch.equal(dense.weight, linear.weight * layer.weight.mask())
    assert torch.equal(dense.bias, linear.bias)
    input = torch.randn(3, 5, 70)
    assert torch.allclose(layer(input), dense(input), atol=1e-5)
    again = sc.nn.SparseLinear.from_dense(dense, pattern, layer.weight.mask(), layout=layout)
    with torch.no_grad():
        assert torch.equal(again(input), layer(input))


@packings
def test_copies_are_equal_and_independent(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    layer = _layer(pattern, layout, sparsity).eval()
    input = torch.randn(4, 70)
    with torch.no_grad():
        expected = layer(input)
        for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(clone(input), expected)
            clone.weight_values.zero_()
            assert torch.equal(layer(input), expected)


@packings
def test_state_dict_is_plain_tensors(
    tmp_path: Path, pattern: sc.Pattern, layout: str, sparsity: float | None
) -> None:
    layer = _layer(pattern, layout, sparsity)
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    other = _layer(sc.Unstructured(), "row_lists", 0.9)  # another pattern, another number of values
    other.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    assert (other.layout, other.pattern) == (layer.layout, layer.pattern)
    input = torch.randn(4, 70)
    assert torch.equal(other(input), layer(input))
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))


def test_loading_keeps_the_parameter_that_an_optimizer_holds() -> None:
    layer, source = _layer(sc.NM(2, 4), "row_lists", None), _layer(sc.NM(1, 4), "row_lists", None)
    parameter = layer.weight_values
    layer.load_state_dict(source.state_dict())
    assert layer.weight_values is parameter
    assert torch.equal(parameter, source.weight_values)


@pytest.mark.parametrize("key", ["weight_values", "weight_offsets", "weight_block_ptr", "_extra_state"])
def test_damaged_state_is_refused_and_nothing_changes(key: str) -> None:
    layer = _layer(sc.NM(2, 4), "row_lists", None)
    before, input = copy.deepcopy(layer), torch.randn(4, 70)
    state = copy.deepcopy(layer.state_dict())
    for damaged in (
        state[key][:-1].clone(),
        torch.full_like(state[key], 255 if state[key].dtype == torch.uint8 else -1),
    ):
        if key == "weight_values" and damaged.shape == state[key].shape:
            continue  # any finite value is a legal weight
        with pytest.raises(RuntimeError, match="SparseLinear"):
            layer.load_state_dict({**state, key: damaged})
        assert torch.equal(layer(input), before(input))
    with pytest.raises(RuntimeError, match=r"SparseLinear|missing"):
        layer.load_state_dict({name: value for name, value in state.items() if name != key})


@trainable
def test_training_moves_kept_weights_only(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    layer = _layer(pattern, layout, sparsity)
    mask, target = layer.weight.mask(), torch.randn(64, 48)
    input = torch.randn(64, 70)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (layer(input) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.98 * losses[0]
    assert not layer.weight.to_dense()[~mask].any()


def test_gradients_equal_those_of_the_masked_dense_layer() -> None:
    for activation in ("none", "gelu", "silu"):
        linear = nn.Linear(40, 30)
        layer = sc.nn.SparseLinear.from_dense(linear, sc.NM(2, 4), activation=activation)
        mask, dense = layer.weight.mask(), layer.to_dense()
        ours, theirs = torch.randn(9, 40, requires_grad=True), None
        theirs = ours.detach().clone().requires_grad_()
        layer(ours).square().sum().backward()
        sc.reference.activate(dense(theirs), activation).square().sum().backward()
        assert ours.grad is not None
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-4)
        assert isinstance(layer.weight_values, nn.Parameter)
        assert layer.weight_values.grad is not None
        got = layer.weight.with_values(layer.weight_values.grad).to_dense()
        assert torch.allclose(got, dense.weight.grad * mask, atol=1e-4)


@packings
def test_dtypes(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    layer = _layer(pattern, layout, sparsity)
    exact = layer.to_dense().double()
    input = torch.randn(6, 70)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 0.1)):
        narrow = copy.deepcopy(layer).to(dtype)
        assert narrow.weight_values.dtype == dtype
        got = narrow(input.to(dtype))
        assert got.dtype == dtype
        assert torch.allclose(got.double(), exact(input.double()), atol=tolerance)


def test_int8_layers_keep_float32_scales() -> None:
    linear = nn.Linear(64, 32)
    layer = sc.nn.SparseLinear.from_dense(
        linear, sc.NM(2, 4, vector=16), dtype=torch.int8, compute_dtype=torch.int8
    ).to(torch.bfloat16)
    assert layer.weight_values.dtype == torch.int8
    assert layer.weight_scale is not None
    assert layer.weight_scale.dtype == torch.float32
    with torch.no_grad():
        got = layer(torch.randn(5, 64, dtype=torch.bfloat16))
    assert got.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="needs int8 values in shared or group lists"):
        sc.nn.SparseLinear.from_dense(linear, sc.NM(2, 4), compute_dtype=torch.int8)


def test_float16_compute_stays_within_its_bound() -> None:
    linear = nn.Linear(768, 256)
    layer = sc.nn.SparseLinear.from_dense(linear, sc.NM(2, 4), compute_dtype=torch.float16)
    exact, input = layer.to_dense(), torch.randn(40, 768)
    with torch.no_grad():
        got, want = layer(input), exact(input)
    assert got.dtype == torch.float32
    assert float((got - want).norm() / want.norm()) <= 1.5e-3


@packings
def test_compiles_without_graph_breaks(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    model = nn.Sequential(_layer(pattern, layout, sparsity), nn.ReLU()).eval()
    input = torch.randn(6, 70)
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert torch.allclose(compiled(input), model(input), atol=1e-5)


@trainable
def test_compiled_training(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    model = _layer(pattern, layout, sparsity)
    clone = copy.deepcopy(model)
    input = torch.randn(6, 70)
    torch.compile(model, fullgraph=True, backend="aot_eager")(input).square().sum().backward()
    clone(input).square().sum().backward()
    assert torch.allclose(model.weight_values.grad, clone.weight_values.grad, atol=1e-4)


@packings
@pytest.mark.parametrize("dtype", [None, torch.int8])
def test_gradients_of_inputs_compile(
    pattern: sc.Pattern, layout: str, sparsity: float | None, dtype: torch.dtype | None
) -> None:
    dense = nn.Linear(70, 48)
    model = sc.nn.SparseLinear.from_dense(dense, pattern, sparsity=sparsity, layout=layout, dtype=dtype)
    input, other = torch.randn(6, 70, requires_grad=True), torch.randn(6, 70)
    other.copy_(input.detach())
    other.requires_grad_()
    torch.compile(model, fullgraph=True, backend="aot_eager")(input).square().sum().backward()
    model(other).square().sum().backward()
    assert torch.allclose(input.grad, other.grad, atol=1e-4)
    assert copy.deepcopy(model).to("meta")(torch.empty(3, 70, device="meta")).shape == (3, 48)


@packings
def test_exports(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    model = _layer(pattern, layout, sparsity).eval().requires_grad_(False)
    input = torch.randn(6, 70)
    exported = torch.export.export(model, (input,))
    assert torch.allclose(exported.module()(input), model(input), atol=1e-5)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_inductor() -> None:
    model = nn.Sequential(_layer(sc.NM(2, 4), "row_lists", None), nn.GELU()).eval()
    input = torch.randn(6, 70)
    with torch.no_grad():
        assert torch.allclose(torch.compile(model, fullgraph=True)(input), model(input), atol=1e-5)


def test_plan_is_never_slower_than_dense_by_its_own_measurement() -> None:
    layer = _layer(sc.NM(2, 4), "row_lists", None, 256, 256).eval()
    dense, input = layer.to_dense(), torch.randn(3, 256)
    (plan,) = sc.plan_(layer, tokens=(1, 8), seconds=0.02)
    for choice in plan.choices:
        assert choice.seconds[choice.kept] <= choice.seconds["dense"]
        assert choice.kept in str(plan)
    with torch.no_grad():
        assert torch.allclose(layer(input), dense(input), atol=1e-4)
    kept = sum(weight.nbytes for _, weight in layer.routes)
    assert layer.nbytes == layer.weight.nbytes + kept + layer.bias.nbytes


def test_clear_errors() -> None:
    layer = _layer(sc.NM(2, 4), "row_lists", None)
    with pytest.raises(ValueError, match=r"input must be \(\.\.\., 70\)"):
        layer(torch.randn(3, 71))
    with pytest.raises(TypeError, match=r"SparseLinear: .* floating-point type, got torch\.int64"):
        layer(torch.zeros(3, 70, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"floating-point type, got list"):
        layer([0.0] * 70)
    with pytest.raises(TypeError, match=r"needs an nn\.Linear"):
        sc.nn.SparseLinear.from_dense(nn.ReLU(), sc.NM(2, 4))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="activation must be one of"):
        sc.nn.SparseLinear(8, 8, pattern="2:4", activation="tanh")
