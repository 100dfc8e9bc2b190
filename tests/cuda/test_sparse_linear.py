"""``SparseLinear`` and whole models with 2:4, 4:6 and 6:8 on CUDA: made, trained, saved, copied, compiled.

On the emulator the tensors are the CPU's; ``as_cuda`` gives that device the plan of CUDA.
"""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.formats.layouts import ORDER
from sparsecore.ops.window_lift import largest_of_group, lift
from tests.cuda.training import exchange_connections, train_kept_weights_only

pytestmark = pytest.mark.usefixtures("as_cuda")
HALVES = (torch.bfloat16, torch.float16)
INPUTS = {"2:4": 72, "6:8": 75, "4:6": 77}  # of the lifted ones odd, with a last group that is cut off
each_pattern = pytest.mark.parametrize("pattern", list(INPUTS))


def make_layer(
    device: str, dtype: torch.dtype = torch.bfloat16, n: int = 40, pattern: str = "2:4"
) -> sc.nn.SparseLinear:
    linear = nn.Linear(INPUTS[pattern], n, device=device, dtype=dtype)
    return sc.nn.SparseLinear.from_dense(linear, pattern)


def exact(layer: sc.nn.SparseLinear, input: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    weight = layer.weight.to_dense().to(dtype or layer.weight_values.dtype).double()
    output = input.to(dtype or input.dtype).double() @ weight.T
    return output if layer.bias is None else output + layer.bias.double()


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got.double(), want.double(), rtol=1e-2, atol=1e-2)


@each_pattern
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_forward_and_back_to_dense(dtype: torch.dtype, activation: str, pattern: str, device: str) -> None:
    k = INPUTS[pattern] + 64
    linear = nn.Linear(k, 70, device=device, dtype=dtype)
    layer = sc.nn.SparseLinear.from_dense(linear, pattern, activation=activation)
    assert layer.layout == "semi_structured"
    dense = layer.to_dense()
    assert torch.equal(dense.weight, linear.weight * layer.weight.mask())
    input = torch.randn(3, 5, k, device=device, dtype=dtype)
    with torch.no_grad():
        got = layer(input)
    assert got.dtype == dtype
    close(got, sc.reference.activate(exact(layer, input), activation))
    assert "semi_structured" in repr(layer)


@pytest.mark.parametrize(("pattern", "inputs"), [("2:4", 500), ("6:8", 756), ("4:6", 672)])
def test_a_layer_of_its_own(pattern: str, inputs: int, device: str) -> None:
    """500 inputs are so many of the 2:4 weight: 12 for each 8, 8 for each 6."""
    layer = sc.nn.SparseLinear(500, 70, pattern=pattern, device=device, dtype=torch.bfloat16)
    assert layer.layout == "semi_structured"
    assert layer.weight.nbytes == 2 * -(-inputs // 64) * (64 * 64 * 2 * 9 // 16)


@pytest.mark.parametrize("pattern", ["6:8", "4:6"])
@pytest.mark.parametrize("dtype", (*HALVES, torch.int8), ids=str)
def test_the_kernel_packs_what_the_reference_does(dtype: torch.dtype, pattern: str, device: str) -> None:
    kind, shape = sc.pattern(pattern), (70, 131)
    weight = torch.randn(shape, device=device)
    weight = weight if dtype == torch.int8 else weight.to(dtype)
    mask = sc.formats.select_mask(torch.rand(shape), kind) & (torch.rand(shape) < 0.9)
    stored = torch.int8 if dtype == torch.int8 else None
    packed = sc.pack(weight, pattern, mask.to(device), dtype=stored).validate()
    full = largest_of_group(mask, None, kind.m)
    assert torch.equal(packed.mask().cpu(), full)
    assert packed.stored == int(full.sum())
    plain = packed.to_dense() if stored is None else packed.integers()
    assert stored is not None or torch.equal(plain, torch.where(mask.to(device), weight, 0))
    assert not plain[~mask.to(device)].any()
    for got, want in zip(
        (packed.values, packed.metadata),
        sc.reference.semi_structured_pack(*lift(plain.cpu(), full, kind.m)),
        strict=True,
    ):
        assert torch.equal(got.cpu(), want)


@each_pattern
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_gradients(dtype: torch.dtype, pattern: str, device: str) -> None:
    layer = make_layer(device, dtype, pattern=pattern)
    mask = layer.weight.mask()
    input = torch.randn(6, layer.in_features, device=device, dtype=dtype, requires_grad=True)
    output = layer(input)
    grad = torch.randn_like(output)
    output.backward(grad)
    weight = layer.weight.to_dense().double()
    close(input.grad, grad.double() @ weight)
    of_values = layer.weight.with_values(layer.weight_values.grad).to_dense()
    close(of_values, (grad.double().T @ input.detach().double()) * mask)
    close(layer.bias.grad, grad.double().sum(0))


@each_pattern
def test_training_moves_kept_weights_only(pattern: str, device: str) -> None:
    train_kept_weights_only(make_layer(device, pattern=pattern), tokens=32, steps=10)


@each_pattern
def test_connections_are_exchanged(pattern: str, device: str) -> None:
    exchange_connections(make_layer(device, pattern=pattern))


@each_pattern
def test_float32_weights_train_under_autocast(pattern: str, device: str) -> None:
    layer = make_layer(device, torch.float32, pattern=pattern)
    assert layer.weight_values.dtype == torch.float32
    input = torch.randn(6, layer.in_features, device=device, requires_grad=True)
    with torch.autocast(device, torch.bfloat16):
        output = layer(input)
    assert output.dtype == torch.bfloat16
    close(output, exact(layer, input.detach(), torch.bfloat16))
    output.float().square().sum().backward()
    assert layer.weight_values.grad.dtype == torch.float32
    of_values = layer.weight.with_values(layer.weight_values.grad).to_dense().double()
    grad = 2 * output.detach().double()
    want = (grad.T @ input.detach().bfloat16().double()) * layer.weight.mask()
    assert float((of_values - want).abs().max()) < 2e-2 * float(want.abs().max())
    with torch.no_grad(), pytest.raises(ValueError, match=r"no float32 product.*autocast"):
        layer(input)


def test_float16_products_of_float32_layers(device: str) -> None:
    linear = nn.Linear(72, 40, device=device)
    layer = sc.nn.SparseLinear.from_dense(linear, "2:4", compute_dtype=torch.float16)
    input = torch.randn(6, 72, device=device)
    with torch.no_grad():
        got = layer(input)
    assert got.dtype == torch.float32
    close(got, exact(layer, input))


@each_pattern
def test_int8_products(pattern: str, device: str) -> None:
    k = INPUTS[pattern] + 64
    linear = nn.Linear(k, 40, device=device)
    layer = sc.nn.SparseLinear.from_dense(linear, pattern, dtype=torch.int8, compute_dtype=torch.int8)
    assert layer.layout == "semi_structured"
    input = torch.randn(2, 6, k, device=device)
    input[1, 2] = 0
    with torch.no_grad():
        got, want = layer(input), exact(layer, input, torch.float32)
    assert got.dtype == torch.float32
    assert float((got - want).norm() / want.norm()) < 0.02
    plain = sc.nn.SparseLinear.from_dense(linear, pattern, dtype=torch.int8)
    with torch.no_grad(), pytest.raises(ValueError, match=r"compute_dtype=torch\.int8"):
        plain(input)


@each_pattern
@pytest.mark.parametrize("dtype", (*HALVES, torch.float32), ids=str)
def test_files_and_state_dicts(dtype: torch.dtype, pattern: str, device: str, tmp_path: Path) -> None:
    model = nn.Sequential(make_layer(device, dtype, pattern=pattern), nn.ReLU())
    k = INPUTS[pattern]
    sc.save(model, tmp_path / "model.safetensors")
    loaded = sc.load(
        nn.Sequential(nn.Linear(k, 40, device=device), nn.ReLU()), tmp_path / "model.safetensors"
    )
    assert loaded[0].layout == "semi_structured"
    assert torch.equal(loaded[0].weight.to_dense(), model[0].weight.to_dense())
    other = nn.Sequential(sc.nn.SparseLinear.from_dense(nn.Linear(k, 40, device=device), pattern), nn.ReLU())
    parameter = other[0].weight_values
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert other[0].weight_values is parameter
    assert torch.equal(other[0].weight.to_dense().to(dtype), model[0].weight.to_dense())


@each_pattern
def test_a_file_made_on_the_cpu(
    pattern: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    k = INPUTS[pattern]
    with monkeypatch.context() as patch:
        patch.setitem(ORDER, "cpu", ORDER["cpu of the tests"])
        packed = sc.pack(torch.randn(40, k, dtype=torch.bfloat16), pattern)
        assert packed.layout == "row_lists"
        sc.save(nn.Sequential(sc.nn.SparseLinear.from_packed(packed)), tmp_path / "model.safetensors")
    model = nn.Sequential(nn.Linear(k, 40, bias=False, device=device, dtype=torch.bfloat16))
    layer = sc.load(model, tmp_path / "model.safetensors")[0]
    assert layer.layout == "semi_structured"
    assert torch.equal(layer.weight.to_dense().cpu(), packed.to_dense())


@each_pattern
def test_crafted_metadata_is_refused(pattern: str, device: str, tmp_path: Path) -> None:
    layer = make_layer(device, pattern=pattern)
    before = layer.weight.to_dense()
    state = copy.deepcopy(layer.state_dict())
    for at in (0, 77, state["weight_metadata"].numel() - 1):
        crafted = copy.deepcopy(state)
        crafted["weight_metadata"].view(-1)[at] = 0
        with pytest.raises(RuntimeError, match="does not name two ascending places"):
            layer.load_state_dict(crafted)
    with pytest.raises(RuntimeError, match="metadata must be"):
        layer.load_state_dict(state | {"weight_metadata": state["weight_metadata"][..., :64].contiguous()})
    with pytest.raises(RuntimeError, match="values must be"):
        layer.load_state_dict(state | {"weight_values": state["weight_values"][..., :64].contiguous()})
    assert torch.equal(layer.weight.to_dense(), before)
    with pytest.raises(ValueError, match="does not name two ascending places"):
        broken = layer.weight
        broken.metadata.view(-1)[5] = 0
        sc.nn.SparseLinear.from_packed(broken)


def test_an_input_that_two_windows_store_is_refused(device: str) -> None:
    layer = make_layer(device, pattern="4:6")
    before = layer.weight.to_dense()
    # the first window of 6 takes inputs 0 and 2 in place of 0 and 1, the second 2 and 4: zeros all, so no sum is wrong
    n, k = layer.weight.shape
    mask = torch.tensor([1, 0, 1, 0, 1, 0, 1, 0], dtype=torch.bool).repeat(n, -(-k // 6))
    values, metadata = sc.reference.semi_structured_pack(torch.zeros(mask.shape, dtype=torch.bfloat16), mask)
    crafted = layer.state_dict() | {
        "weight_values": values.to(device),
        "weight_metadata": metadata.to(device),
    }
    with pytest.raises(RuntimeError, match="channel 0 must store 52 different inputs, got 39"):
        layer.load_state_dict(crafted)
    assert torch.equal(layer.weight.to_dense(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8], ids=str)
def test_the_plain_check_agrees_with_the_kernel(dtype: torch.dtype, device: str) -> None:
    refused = 0
    for trial in range(60):
        n, k = int(torch.randint(1, 150, ())), int(torch.randint(1, 300, ()))
        mask = sc.formats.select_mask(torch.rand(n, k), sc.NM(2, 4))
        values, metadata = sc.reference.semi_structured_pack(torch.randint(-9, 9, (n, k)).to(dtype), mask)
        for _ in range(trial % 3):
            at = int(torch.randint(0, metadata.numel(), ()))
            metadata.view(-1)[at] ^= 1 << int(torch.randint(0, 31, ()))
        if trial % 5 == 0:
            values.view(-1)[int(torch.randint(0, values.numel(), ()))] = 1
        want = int(sc.reference.semi_structured_damage(values, metadata, n, k))
        on_device = (values.to(device), metadata.to(device))
        assert int(torch.ops.sparsecore.semi_structured_validate(*on_device, n, k)) == want
        refused += want >= 0
    assert 20 < refused < 60


def test_copies_are_equal_and_independent(device: str) -> None:
    layer = make_layer(device).eval()
    input = torch.randn(4, 72, device=device, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = layer(input)
        for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(clone(input), expected)
            clone.weight_values.zero_()
            assert torch.equal(layer(input), expected)


def test_autocast(device: str) -> None:
    layer = make_layer(device)
    input = torch.randn(4, 72, device=device)
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        got = layer(input)
    assert torch.equal(got, layer(input.bfloat16()).detach())


@pytest.mark.parametrize("pattern", ["2:4", "6:8"])
@pytest.mark.parametrize("train", [False, True])
def test_compiles_whole(train: bool, pattern: str, device: str) -> None:
    model = nn.Sequential(make_layer(device, pattern=pattern), nn.ReLU())
    clone = copy.deepcopy(model)
    input = torch.randn(4, INPUTS[pattern], device=device, dtype=torch.bfloat16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(train):
        got, want = compiled(input), clone(input)
    assert torch.equal(got, want)
    if train:
        got.float().square().sum().backward()
        want.float().square().sum().backward()
        assert torch.equal(model[0].weight_values.grad, clone[0].weight_values.grad)


@pytest.mark.parametrize("pattern", ["2:4", "6:8"])
def test_exports(pattern: str, device: str) -> None:
    model = make_layer(device, pattern=pattern).eval().requires_grad_(False)
    input = torch.randn(4, INPUTS[pattern], device=device, dtype=torch.bfloat16)
    assert torch.equal(torch.export.export(model, (input,)).module()(input), model(input))


@each_pattern
def test_whole_models(pattern: str, device: str) -> None:
    k = INPUTS[pattern]
    model = nn.Sequential(nn.Linear(k, 40), nn.GELU(), nn.Linear(40, 24)).to(device, torch.bfloat16)
    mask = sc.formats.select_mask(torch.rand(24, 40, device=device), sc.pattern(pattern))
    input = torch.randn(5, k, device=device, dtype=torch.bfloat16)
    sc.sparsify_(model, pattern, masks={"2": mask})
    assert [getattr(layer, "layout", None) for layer in model] == ["semi_structured", None, "semi_structured"]
    assert torch.equal(model[2].weight.mask(), mask)
    with torch.no_grad():
        sparse = model(input)
        close(sparse, sc.densify_(model)(input))
    assert pattern in str(sc.report(sc.sparsify_(model, pattern)))


def test_patterns_without_kernels_say_so(device: str) -> None:
    with pytest.raises(
        ValueError, match=rf"no kernels for VariableNM\(\) on {device}; this installation has there: .*semi"
    ):
        sc.sparsify_(nn.Sequential(nn.Linear(64, 48, device=device)), sc.VariableNM())


@pytest.mark.parametrize("pattern", ["4x1", "1x8", "4x4", "16x8"])
def test_blocks_are_group_lists(pattern: str, device: str) -> None:
    model = nn.Sequential(nn.Linear(80, 48, device=device).to(torch.bfloat16))
    sc.sparsify_(model, pattern, sparsity=0.7)
    assert model[0].layout == "group_lists"
    input = torch.randn(5, 80, device=device, dtype=torch.bfloat16)
    with torch.no_grad():
        close(model(input), sc.densify_(model)(input))


@each_pattern
def test_moves_between_plans(pattern: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(ORDER, "cpu", ORDER["cpu of the tests"])
        on_cpu = sc.pack(torch.randn(40, INPUTS[pattern], dtype=torch.bfloat16), pattern)
        int8 = sc.pack(torch.randn(40, INPUTS[pattern]), pattern, dtype=torch.int8)
    for packed in (on_cpu, int8):
        moved = sc.formats.placed(packed, device)
        assert (packed.layout, moved.layout) == ("row_lists", "semi_structured")
        assert moved.dtype == packed.dtype
        moved.validate()
        assert torch.equal(moved.to_dense().cpu(), packed.to_dense())
        assert torch.equal(moved.mask().cpu(), packed.mask())
        with monkeypatch.context() as patch:
            patch.setitem(ORDER, "cpu", ORDER["cpu of the tests"])
            back = sc.formats.placed(moved, "cpu")
        if device == "cuda":
            assert back.layout == "row_lists"
        assert torch.equal(back.to_dense(), packed.to_dense())


@pytest.mark.parametrize(("pattern", "others"), [("2:4", set()), ("6:8", {"bitmap_decode"})])
def test_a_plan_measures_there_too(pattern: str, others: set[str], device: str) -> None:
    layer = make_layer(device, pattern=pattern).eval()
    (plan,) = sc.plan_(layer, tokens=(4,), seconds=0.01, dtype=torch.bfloat16)
    assert set(plan.choices[0].seconds) == {"semi_structured", "group_lists", "dense"} | others
