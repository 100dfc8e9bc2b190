"""SparseConv2d behaves as a layer should: geometry, gradients, copies, files, compilers, plans."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import sparsecore as sc
from sparsecore.formats.matrices import to_matrix
from sparsecore.nn.conv import why_dense

PATTERNS: list[tuple[str, float | None]] = [
    ("unstructured", 0.8),
    ("2:4", None),
    ("4x1", 0.7),
    ("1x8", 0.5),
    ("4x4", 0.6),
    ("16x1", 0.5),
]
patterns = pytest.mark.parametrize(("pattern", "sparsity"), PATTERNS, ids=str)
GEOMETRIES: list[dict[str, object]] = [
    {"kernel_size": 1},
    {"kernel_size": 1, "stride": 2},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 5), "stride": (1, 2), "padding": (2, 0), "dilation": (2, 1)},
    {"kernel_size": 3, "padding": "same"},
    {"kernel_size": (2, 4), "padding": "same", "dilation": 3},
    {"kernel_size": 3, "padding": "valid", "bias": False},
]


def _layer(pattern: str = "4x1", sparsity: float | None = 0.7, **options: object) -> sc.nn.SparseConv2d:
    conv = nn.Conv2d(12, 20, **({"kernel_size": 3, "padding": 1} | options))  # type: ignore[arg-type]
    return sc.nn.SparseConv2d.from_dense(conv, pattern, sparsity=sparsity)


@patterns
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_from_dense_and_back(pattern: str, sparsity: float | None, geometry: dict[str, object]) -> None:
    conv = nn.Conv2d(12, 20, **geometry)  # type: ignore[arg-type]
    layer = sc.nn.SparseConv2d.from_dense(conv, pattern, sparsity=sparsity)
    dense, input = layer.to_dense(), torch.randn(2, 12, 13, 14)
    mask = sc.formats.matrices.from_matrix(layer.weight.mask(), conv.weight)
    assert torch.equal(dense.weight, conv.weight * mask)
    assert repr(dense) == repr(conv)
    assert torch.allclose(layer(input), dense(input), atol=1e-5)
    with torch.no_grad():
        for given in (input, input.contiguous(memory_format=torch.channels_last), input[0]):
            got = layer(given)
            assert got.shape == dense(given).shape
            assert torch.allclose(got, dense(given), atol=1e-5)
    again = sc.nn.SparseConv2d.from_dense(dense, pattern, mask)
    assert torch.equal(again.weight.to_dense(), layer.weight.to_dense())
    assert sc.check_pattern(dense.weight, pattern).ok


@pytest.mark.parametrize("activation", ["none", "relu6", "hard_swish"])
def test_activation_and_residual(activation: str) -> None:
    conv = nn.Conv2d(12, 20, 3, padding=1)
    layer = sc.nn.SparseConv2d.from_dense(conv, "4x1", sparsity=0.5, activation=activation)
    input, residual = torch.randn(2, 12, 9, 9), torch.randn(2, 20, 9, 9)
    exact = sc.reference.activate(layer.to_dense()(input) + residual, activation)
    with torch.no_grad():
        assert torch.allclose(layer(input, residual), exact, atol=1e-5)  # fused
        assert torch.allclose(layer(input[0], residual[0]), exact[0], atol=1e-5)
    assert torch.allclose(layer(input, residual), exact, atol=1e-5)  # with gradients
    if activation != "none":
        with pytest.raises(ValueError, match="fused activation"):
            sc.densify_(nn.Sequential(layer))


@patterns
def test_training_moves_kept_weights_only(pattern: str, sparsity: float | None) -> None:
    layer = _layer(pattern, sparsity)
    mask, dense = layer.weight.mask(), layer.to_dense()
    input, target = torch.randn(3, 12, 8, 8), torch.randn(3, 20, 8, 8)
    ours, theirs = (torch.optim.SGD(part.parameters(), lr=0.1) for part in (layer, dense))
    kernel = sc.formats.matrices.from_matrix(mask, dense.weight)
    for _ in range(4):
        for optimizer, part in ((ours, layer), (theirs, dense)):
            optimizer.zero_grad()
            (part(input) - target).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            dense.weight.mul_(kernel)
    assert torch.allclose(layer.weight.to_dense(), to_matrix(dense.weight), atol=1e-6)
    assert torch.equal(layer.weight.mask(), mask)
    assert not layer.weight_values[-1].any()


@patterns
def test_copies_and_files(tmp_path: Path, pattern: str, sparsity: float | None) -> None:
    layer, input = _layer(pattern, sparsity, stride=2).eval(), torch.randn(2, 12, 8, 8)
    with torch.no_grad():
        expected = layer(input)
        for clone in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert torch.equal(clone(input), expected)
            clone.weight_values.zero_()
            assert torch.equal(layer(input), expected)
        save_file(layer.state_dict(), tmp_path / "layer.safetensors")
        other = _layer("1x4", 0.9, padding="same")  # another pattern, another geometry
        other.load_state_dict(load_file(tmp_path / "layer.safetensors"))
        assert (other.pattern, other.stride, other.padding) == (layer.pattern, (2, 2), (1, 1))
        assert torch.equal(other(input), expected)
        sc.save(nn.Sequential(layer), tmp_path / "model.safetensors")
        fresh = nn.Sequential(nn.Conv2d(12, 20, 3, 2, 1))
        loaded = sc.load(fresh, tmp_path / "model.safetensors")
        assert isinstance(loaded[0], sc.nn.SparseConv2d)
        assert torch.equal(loaded(input), expected)
        for wrong in (nn.Conv2d(12, 20, 3, 1, 1), nn.Conv2d(12, 20, 5, 2, 1), nn.Linear(108, 20)):
            with pytest.raises(ValueError, match="the file holds a"):
                sc.load(nn.Sequential(wrong), tmp_path / "model.safetensors")


def test_damaged_state_is_refused_and_nothing_changes() -> None:
    layer, input = _layer(), torch.randn(1, 12, 5, 5)
    before, state = layer(input), layer.state_dict()
    for key in ("weight_values", "weight_index", "weight_order", "weight_starts", "_extra_state"):
        for damaged in (
            state[key][:-1].clone(),
            torch.full_like(state[key], 255 if key != "weight_values" else 1),
        ):
            with pytest.raises(RuntimeError, match="SparseConv2d"):
                layer.load_state_dict({**state, key: damaged})
            assert torch.equal(layer(input), before)
    for other in (sc.nn.SparseLinear(108, 20, pattern="4x1", sparsity=0.5), _layer(kernel_size=1)):
        with pytest.raises(RuntimeError, match="checkpoint holds"):
            layer.load_state_dict(other.state_dict())
    with pytest.raises(RuntimeError, match="holds a convolution"):
        sc.nn.SparseLinear(108, 20, pattern="4x1", sparsity=0.5).load_state_dict(state)


def test_what_has_to_stay_dense_says_why() -> None:
    reasons = {
        "depthwise": nn.Conv2d(8, 8, 3, groups=8),
        "2 groups": nn.Conv2d(8, 8, 3, groups=2),
        "pads with 'reflect'": nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
    }
    for reason, conv in reasons.items():
        assert reason in str(why_dense(conv))
        with pytest.raises(ValueError, match=reason):
            sc.nn.SparseConv2d.from_dense(conv, "4x1", sparsity=0.5)
    with pytest.raises(ValueError, match="depthwise"):
        sc.nn.SparseConv2d(8, 8, 3, groups=8, pattern="4x1", sparsity=0.5)
    with pytest.raises(TypeError, match=r"needs an nn\.Conv2d"):
        sc.nn.SparseConv2d.from_dense(nn.Linear(4, 4), "4x1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="channels"):
        sc.nn.SparseConv2d.from_dense(nn.Conv2d(8, 8, 3), "channels", sparsity=0.5)
    with pytest.raises(ValueError, match=r"input must be \(images, 12"):
        _layer()(torch.randn(1, 11, 5, 5))
    with pytest.raises(TypeError, match=r"SparseConv2d: .* floating-point type, got torch\.uint8"):
        _layer()(torch.zeros(1, 12, 5, 5, dtype=torch.uint8))
    with pytest.raises(ValueError, match="compute_dtype"):
        sc.nn.SparseConv2d(8, 8, 3, pattern="4x1", sparsity=0.5, compute_dtype=torch.int8)


def test_int8_storage_and_other_dtypes() -> None:
    conv, input = nn.Conv2d(12, 20, 3, padding=1), torch.randn(2, 12, 6, 6)
    layer = sc.nn.SparseConv2d.from_dense(conv, "4x1", sparsity=0.5, dtype=torch.int8)
    with torch.no_grad():
        exact = layer.to_dense()(input)
        assert torch.allclose(layer(input), exact, atol=1e-5)
        fast = sc.nn.SparseConv2d.from_dense(
            conv, "4x1", sparsity=0.5, dtype=torch.int8, compute_dtype=torch.int8
        )
        scale = input.abs().amax((1, 2, 3), keepdim=True) / 127
        assert torch.allclose(fast(input), fast.to_dense()((input / scale).round() * scale), atol=1e-4)
    x = input.clone().requires_grad_()
    layer(x).sum().backward()
    assert x.grad is not None
    double = _layer().double()
    assert torch.allclose(double(input.double()), double.to_dense()(input.double()))
    half = _layer().bfloat16().eval()
    with torch.no_grad():
        assert half(input.bfloat16()).dtype == torch.bfloat16


def _int8_layer(input_scale: float | None = None) -> sc.nn.SparseConv2d:
    conv = nn.Conv2d(12, 20, 3, padding=1)
    options = {"dtype": torch.int8, "compute_dtype": torch.int8, "input_scale": input_scale}
    return sc.nn.SparseConv2d.from_dense(conv, "4x1", sparsity=0.5, **options)  # type: ignore[arg-type]


@torch.no_grad()
def test_input_scale_is_kept_everywhere(tmp_path: Path) -> None:
    layer, input = _int8_layer(0.02).eval(), torch.randn(2, 12, 6, 6)
    rounded = (input / 0.02).round().clamp(-127, 127) * 0.02
    expected = layer(input)
    assert torch.allclose(expected, layer.to_dense()(rounded), atol=1e-4)
    assert "input_scale=0.02" in repr(layer)
    sc.save(nn.Sequential(layer), tmp_path / "model.safetensors")
    loaded = sc.load(nn.Sequential(nn.Conv2d(12, 20, 3, padding=1)), tmp_path / "model.safetensors")
    other, plain = _int8_layer(), _int8_layer()
    other.load_state_dict(layer.state_dict())
    for clone in (other, loaded[0], copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert clone.input_scale == 0.02
        assert torch.equal(clone(input), expected)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(input), expected)
    assert "input_scale" not in repr(plain)
    other.load_state_dict(_int8_layer(2).state_dict())  # an integer will do
    assert other.input_scale == 2.0
    other.load_state_dict(plain.state_dict())
    assert other.input_scale is None
    for wrong in (-1.0, float("nan"), "0.02", 1, None):
        described = plain._describe()
        described["conv"]["input_scale"] = wrong
        damaged = torch.tensor(list(json.dumps(described).encode()), dtype=torch.uint8)
        with pytest.raises(RuntimeError, match=r"input.scale"):
            other.load_state_dict(plain.state_dict() | {"_extra_state": damaged})
    for scale in (0.0, -1.0, float("inf")):
        with pytest.raises(ValueError, match="input_scale must be in"):
            _int8_layer(scale)
    with pytest.raises(ValueError, match="input_scale is for int8 products"):
        sc.nn.SparseConv2d.from_dense(nn.Conv2d(12, 20, 3), "4x1", sparsity=0.5, input_scale=0.02)


@torch.no_grad()
def test_calibration_keeps_the_largest_magnitude() -> None:
    layer, images = _int8_layer(), torch.randint(-100, 101, (2, 12, 6, 6)).float()
    layer.calibrate_input_scale_(torch.zeros(1, 12, 6, 6))
    layer.calibrate_input_scale_(torch.zeros(0, 12, 6, 6))
    assert layer.input_scale is None
    images[1, 3, 2, 2] = -127
    hook = layer.register_forward_pre_hook(lambda layer, inputs: layer.calibrate_input_scale_(inputs[0]))
    layer(images)
    assert layer.input_scale == 1
    layer(images / 2)
    assert layer.input_scale == 1
    hook.remove()
    layer(images * 2)
    assert layer.input_scale == 1
    with pytest.raises(ValueError, match="input_scale must be in"):
        layer.calibrate_input_scale_(images / 0)
    with pytest.raises(ValueError, match="input_scale is for int8 products"):
        _layer().calibrate_input_scale_(images)


@pytest.mark.parametrize("options", [{}, {"kernel_size": 1, "padding": 0}], ids=["3x3", "1x1"])
def test_compiles_without_a_break(options: dict[str, object]) -> None:
    model = nn.Sequential(_layer(**options), nn.ReLU())
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for layout in (torch.contiguous_format, torch.channels_last):
        input = torch.randn(2, 12, 7, 7).contiguous(memory_format=layout)
        assert torch.equal(compiled(input), model(input))
        compiled(input).square().sum().backward()
        got = model[0].weight_values.grad.clone()
        model.zero_grad()
        model(input).square().sum().backward()
        assert torch.allclose(got, model[0].weight_values.grad, atol=1e-5)
        model.zero_grad()


def test_exports() -> None:
    model, input = _layer().eval().requires_grad_(False), torch.randn(2, 12, 7, 7)
    exported = torch.export.export(model, (input,))
    assert torch.equal(exported.module()(input), model(input))


def _network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, 1, 1, groups=16),
        nn.Conv2d(16, 32, 1),
        nn.ReLU6(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def test_sparsify_a_network_and_back() -> None:
    model, input = _network().eval(), torch.randn(2, 3, 16, 16)
    sc.sparsify_(model, "4x1", sparsity=0.5)
    kinds = {name: type(part).__name__ for name, part in model.named_modules() if not list(part.children())}
    assert (kinds["0"], kinds["2"]) == ("Conv2d", "Conv2d")  # the stem and what is depthwise
    assert (kinds["3"], kinds["5"], kinds["8"]) == ("SparseConv2d", "SparseConv2d", "SparseLinear")
    report = sc.report(model)
    assert [layer.kind for layer in report.layers] == ["Conv2d"] * 4 + ["Linear"]
    assert report.layers[2].sparsity == 0.5
    with torch.no_grad():
        expected = model(input)
        assert torch.allclose(sc.densify_(model)(input), expected, atol=1e-5)
        sc.sparsify_(
            model, "4x1", lambda module, name: name in ("0", "2"), sparsity=0.5
        )  # the stem by choice
    assert isinstance(model[0], sc.nn.SparseConv2d)
    assert type(model[2]) is nn.Conv2d
    assert type(sc.sparsify_(_network(), "channels", sparsity=0.5)[3]) is nn.Conv2d
    assert isinstance(sc.sparsify_(nn.Conv2d(8, 8, 1), "4x1", sparsity=0.5), sc.nn.SparseConv2d)


def test_sparsifier_finalizes_convolutions() -> None:
    from sparsecore.sparsify import Recipe, Sparsifier, Uniform
    from sparsecore.sparsify.schedules import Constant

    for pattern in (sc.Group(4, 1), sc.Group(1, 4), sc.NM(2, 4)):
        model = _network()
        allocation = Uniform(None if isinstance(pattern, sc.NM) else 0.5)
        recipe = Recipe(pattern, allocation=allocation, schedule=Constant(every=1))
        sparsifier = Sparsifier(model, recipe, targets=("Conv2d", "Linear"), ignore=("0", "2"))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        sparsifier.attach(optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(2, 3, 16, 16)).square().mean().backward()
            optimizer.step()
        input = torch.randn(2, 3, 16, 16)
        expected = model(input)
        model = sparsifier.finalize()
        assert isinstance(model[3], sc.nn.SparseConv2d)
        assert isinstance(model[5], sc.nn.SparseConv2d)
        assert model[5].pattern == pattern
        assert abs(model[5].weight.sparsity - 0.5) < 0.01
        assert torch.allclose(model(input), expected, atol=1e-5)


def test_plan_explains_itself() -> None:
    model, input = sc.sparsify_(_network().eval(), "4x1", sparsity=0.9), torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match="Pass example=images"):
        sc.plan_(model)
    with torch.no_grad():
        expected = model(input)
    for example in (input, (input.contiguous(memory_format=torch.channels_last),)):
        plans = sc.plan_(model, example=example, seconds=0.002)
        assert [plan.name for plan in plans] == ["3", "5", "8"]
        assert [(plan.unit, plan.choices[0].tokens) for plan in plans] == [
            ("pixels", 256),
            ("pixels", 256),
            ("tokens", 1),
        ]
        for plan in plans:
            for choice in plan.choices:
                assert choice.seconds[choice.kept] <= choice.seconds["dense"]
                assert ("dense kept" in plan.explain()) == (choice.kept == "dense")
        assert "SparseConv2d(16, 32" in plans.explain()
        assert "3 layers" in plans.explain()
        with torch.no_grad():
            assert torch.allclose(model(input), expected, atol=1e-4)
        assert sc.report(model, timings=plans).layers[2].seconds is not None
