"""``SparseLinear`` on CUDA in every layout that it has there: what the tests of the CPU's layers ask, of tensors there.

On the emulator the tensors are the CPU's; ``as_cuda`` gives that device the plan of CUDA.
"""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.formats.layouts import ORDER, layouts_for
from tests.cuda.training import exchange_connections, train_kept_weights_only

pytestmark = pytest.mark.usefixtures("as_cuda")

# pattern, the layout it gets without being asked for, sparsity
LAYERS = [
    ("2:4", "semi_structured", None),
    ("6:8", "semi_structured", None),
    ("unstructured", "bitmap_decode", 0.8),
    ("4:16", "bitmap_decode", None),
    ("2:8/16", "shared_lists", None),
    ("8x1", "shared_lists", 0.6),
    ("4x1", "group_lists", 0.6),
    ("1x8", "group_lists", 0.6),
    ("4x4", "group_lists", 0.6),
    ("16x16", "block_sparse", 0.6),
    ("32x32", "block_sparse", 0.6),
    ("64x64", "block_sparse", 0.5),
    ("128x128", "block_sparse", 0.5),
    ("16:2:8", "vnm", None),
    ("64:2:5", "vnm", None),
    ("128:2:16", "vnm", None),
]
layers = pytest.mark.parametrize(("pattern", "layout", "sparsity"), LAYERS, ids=[row[0] for row in LAYERS])
HALVES = (torch.bfloat16, torch.float16)
K, N = 150, 70  # no multiples of anything


def make_layer(
    pattern: str,
    sparsity: float | None,
    device: str,
    dtype: torch.dtype = torch.bfloat16,
    *,
    n: int = N,
    k: int = K,
    activation: str = "none",
) -> sc.nn.SparseLinear:
    linear = nn.Linear(k, n, device=device, dtype=dtype)
    return sc.nn.SparseLinear.from_dense(linear, pattern, sparsity=sparsity, activation=activation)


def exact(layer: sc.nn.SparseLinear, input: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """In float64, of operands rounded to what is multiplied."""
    weight = layer.weight.to_dense().to(dtype or layer.weight_values.dtype).double()
    output = input.to(dtype or input.dtype).double() @ weight.T
    return sc.reference.activate(output + layer.bias.double(), layer.activation)


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got.double(), want.double(), rtol=1e-2, atol=1e-2)


def as_dense(layer: sc.nn.SparseLinear, values: Tensor) -> Tensor:
    return layer.weight.with_values(values).to_dense().double()


@layers
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_forward_and_back_to_dense(
    dtype: torch.dtype, activation: str, pattern: str, layout: str, sparsity: float | None, device: str
) -> None:
    linear = nn.Linear(K, N, device=device, dtype=dtype)
    layer = sc.nn.SparseLinear.from_dense(linear, pattern, sparsity=sparsity, activation=activation)
    assert layer.layout == layout == layouts_for(sc.pattern(pattern), device)[0]
    dense = layer.to_dense()
    assert torch.equal(dense.weight, linear.weight * layer.weight.mask())
    assert sc.check_pattern(dense.weight, pattern).ok
    assert layout in repr(layer)
    wide = torch.randn(6, K + 9, device=device, dtype=dtype)
    for input in (wide[:, :K], wide[:, 1 : K + 1], wide[::2, 8 : K + 8], wide[:, :K].reshape(2, 3, K)):
        with torch.no_grad():
            got = layer(input)
        assert got.dtype == dtype and got.shape == (*input.shape[:-1], N)
        close(got, exact(layer, input))


@layers
@pytest.mark.parametrize("tokens", [0, 1, 40, 150])
def test_gradients(tokens: int, pattern: str, layout: str, sparsity: float | None, device: str) -> None:
    layer = make_layer(pattern, sparsity, device)
    mask = layer.weight.mask()
    input = torch.randn(tokens, K, device=device, dtype=torch.bfloat16, requires_grad=True)
    output = layer(input)
    close(output, exact(layer, input.detach()))
    grad = torch.randn_like(output)
    output.backward(grad)
    close(input.grad, grad.double() @ layer.weight.to_dense().double())
    want = (grad.double().T @ input.detach().double()) * mask
    assert float((as_dense(layer, layer.weight_values.grad) - want).abs().max()) <= 1e-2 * max(
        float(want.abs().max()), 1e-9
    )
    torch.testing.assert_close(layer.bias.grad.double(), grad.double().sum(0), rtol=1e-2, atol=1e-1)


@layers
def test_one_token_without_leading_dimensions(
    pattern: str, layout: str, sparsity: float | None, device: str
) -> None:
    layer = make_layer(pattern, sparsity, device)
    input = torch.randn(K, device=device, dtype=torch.bfloat16, requires_grad=True)
    layer(input).sum().backward()
    close(input.grad, layer.weight.to_dense().double().sum(0))
    assert torch.equal(layer.bias.grad, torch.ones_like(layer.bias))
    close(as_dense(layer, layer.weight_values.grad), input.detach().double() * layer.weight.mask())


@layers
def test_training_moves_kept_weights_only(
    pattern: str, layout: str, sparsity: float | None, device: str
) -> None:
    train_kept_weights_only(make_layer(pattern, sparsity, device), tokens=16, steps=8)


@pytest.mark.parametrize(
    "row", [row for row in LAYERS if ":" in row[0] or row[2] == 0.8], ids=lambda row: row[0]
)
def test_connections_are_exchanged(row: tuple[str, str, float | None], device: str) -> None:
    """Of patterns that fix how much each row keeps, and of single weights."""
    pattern, layout, sparsity = row
    layer = make_layer(pattern, sparsity, device)
    exchange_connections(layer)
    assert layer.layout == layout


@layers
def test_float32_weights_train_under_autocast(
    pattern: str, layout: str, sparsity: float | None, device: str
) -> None:
    layer = make_layer(pattern, sparsity, device, torch.float32)
    input = torch.randn(6, K, device=device, requires_grad=True)
    with torch.autocast(device, torch.bfloat16):
        output = layer(input)
    assert output.dtype == torch.bfloat16
    close(output, exact(layer, input.detach(), torch.bfloat16))
    output.float().square().sum().backward()
    assert layer.weight_values.grad.dtype == input.grad.dtype == torch.float32
    grad = 2 * output.detach().double()
    want = (grad.T @ input.detach().bfloat16().double()) * layer.weight.mask()
    got = as_dense(layer, layer.weight_values.grad)
    assert float((got - want).abs().max()) < 2e-2 * float(want.abs().max())


@layers
def test_copies_are_equal_and_independent(
    pattern: str, layout: str, sparsity: float | None, device: str
) -> None:
    layer = make_layer(pattern, sparsity, device).eval()
    input = torch.randn(4, K, device=device, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = layer(input)
        for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(clone(input), expected)
            clone.weight_values.zero_()
            assert torch.equal(layer(input), expected)


@layers
@pytest.mark.parametrize("dtype", (*HALVES, torch.float32), ids=str)
def test_files_and_state_dicts(
    dtype: torch.dtype, pattern: str, layout: str, sparsity: float | None, device: str, tmp_path: Path
) -> None:
    layer = make_layer(pattern, sparsity, device, dtype)
    model = nn.Sequential(layer, nn.ReLU())
    sc.save(model, tmp_path / "model.safetensors")
    dense = nn.Sequential(nn.Linear(K, N, device=device), nn.ReLU())
    loaded = sc.load(dense, tmp_path / "model.safetensors")[0]
    assert (loaded.layout, loaded.pattern) == (layout, layer.pattern)
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    other = make_layer("unstructured", 0.9, device, dtype)  # another pattern, another number of values
    parameter = other.weight_values
    other.load_state_dict(load_file(tmp_path / "layer.safetensors", device=device))
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    another = make_layer("unstructured", 0.9, device, dtype)
    another.load_state_dict(torch.load(buffer, weights_only=True))
    assert other.weight_values is parameter
    for read in (loaded, other, another):
        assert read.layout == layout
        assert torch.equal(read.weight.to_dense().to(dtype), layer.weight.to_dense())
        assert torch.equal(read.weight.mask(), layer.weight.mask())


@layers
def test_moves_between_plans(
    pattern: str, layout: str, sparsity: float | None, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(ORDER, "cpu", ORDER["cpu of the tests"])
        on_cpu = sc.pack(torch.randn(N, K, dtype=torch.bfloat16), pattern, sparsity=sparsity)
    moved = sc.formats.placed(on_cpu, device).validate()
    assert moved.layout in layouts_for(moved.pattern, device)
    assert torch.equal(moved.to_dense().cpu(), on_cpu.to_dense())
    assert torch.equal(moved.mask().cpu(), on_cpu.mask())
    with monkeypatch.context() as patch:
        patch.setitem(ORDER, "cpu", ORDER["cpu of the tests"])
        back = sc.formats.placed(moved, "cpu").validate()
        assert back.layout in layouts_for(back.pattern, "cpu")
    assert torch.equal(back.to_dense(), on_cpu.to_dense())


@layers
@pytest.mark.parametrize("train", [False, True])
def test_compiles_whole(train: bool, pattern: str, layout: str, sparsity: float | None, device: str) -> None:
    model = nn.Sequential(make_layer(pattern, sparsity, device), nn.ReLU())
    clone = copy.deepcopy(model)
    input = torch.randn(4, K, device=device, dtype=torch.bfloat16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(train):
        got, want = compiled(input), clone(input)
    assert torch.equal(got, want)
    if train:
        got.float().square().sum().backward()
        want.float().square().sum().backward()
        assert torch.equal(model[0].weight_values.grad, clone[0].weight_values.grad)


@layers
def test_exports_with_any_number_of_tokens(
    pattern: str, layout: str, sparsity: float | None, device: str
) -> None:
    model = make_layer(pattern, sparsity, device, activation="relu").eval().requires_grad_(False)
    input = torch.randn(4, K, device=device, dtype=torch.bfloat16)
    tokens = torch.export.Dim("tokens", min=1, max=4096)
    exported = torch.export.export(model, (input,), dynamic_shapes=({0: tokens},)).module()
    for count in (4, 150):
        input = torch.randn(count, K, device=device, dtype=torch.bfloat16)
        assert torch.equal(exported(input), model(input))


@layers
@pytest.mark.parametrize(("n", "k"), [(0, 64), (64, 0), (0, 0), (1, 1), (3, 200)])
def test_small_and_empty_layers(
    n: int, k: int, pattern: str, layout: str, sparsity: float | None, device: str
) -> None:
    packed = sc.pack(torch.randn(n, k, device=device, dtype=torch.bfloat16), pattern, sparsity=sparsity)
    assert packed.validate().layout == layout
    layer = sc.nn.SparseLinear.from_packed(packed, torch.ones(n, device=device, dtype=torch.bfloat16))
    for tokens in (0, 3):
        input = torch.randn(tokens, k, device=device, dtype=torch.bfloat16, requires_grad=True)
        output = layer(input)
        close(output, exact(layer, input.detach()))
        output.sum().backward()
        close(input.grad, packed.to_dense().sum(0).expand(tokens, k))


@layers
def test_whole_models(pattern: str, layout: str, sparsity: float | None, device: str) -> None:
    model = nn.Sequential(nn.Linear(K, N), nn.GELU(), nn.Linear(N, 24)).to(device, torch.bfloat16)
    mask = sc.formats.select_mask(torch.rand(24, N, device=device), sc.pattern(pattern), sparsity)
    input = torch.randn(5, K, device=device, dtype=torch.bfloat16)
    sc.sparsify_(model, pattern, sparsity=sparsity, masks={"2": mask})
    assert [getattr(layer, "layout", None) for layer in model] == [layout, None, layout]
    assert torch.equal(model[2].weight.mask() & mask, mask)
    with torch.no_grad():
        close(model(input), sc.densify_(copy.deepcopy(model))(input))
    assert model[0].pattern.__str__() in str(sc.report(model).layers)


@layers
def test_a_plan_measures_every_layout(pattern: str, layout: str, sparsity: float | None, device: str) -> None:
    layer = make_layer(pattern, sparsity, device).eval()
    (plan,) = sc.plan_(layer, tokens=(2,), seconds=0.01, dtype=torch.bfloat16)
    assert set(plan.choices[0].seconds) == {*layouts_for(layer.pattern, device), "dense"}
