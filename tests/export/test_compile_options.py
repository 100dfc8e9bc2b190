"""Layouts, several inputs and outputs, shared and masked layers, models that stay with torch in part, and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import sparsecore as sc
from sparsecore.export import SplitNetwork, compile, export_network
from sparsecore.reference.network import ReferenceNetwork
from tests.export.test_compile import Function, _integers, _run, _same


def test_pixels_last(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 5, 1)).eval()
    x = torch.randn(2, 3, 9, 7)
    network = _run(tmp_path, model, x, layout="hwc")
    assert network.described["inputs"][0]["layout"] == "hwc"
    _same(network(x.permute(0, 2, 3, 1)), model(x))


def test_two_inputs_and_two_outputs(tmp_path: Path) -> None:
    def forward(m: Any, image: Tensor, features: Tensor) -> dict[str, Tensor]:
        pooled = m.conv(image).mean((2, 3))
        return {"both": m.head(torch.cat([pooled, features], 1)), "pooled": pooled}

    model = Function(forward, conv=nn.Conv2d(3, 4, 3), head=nn.Linear(9, 2)).eval()
    example = torch.randn(2, 3, 6, 6), torch.randn(2, 5)
    network = _run(tmp_path, model, *example)
    assert [each["layout"] for each in network.described["inputs"]] == ["chw", "vector"]
    _same(network(*example), tuple(model(*example).values()))


def test_shared_layers_are_stored_once(tmp_path: Path) -> None:
    model = _integers(Function(lambda m, x: m.conv(m.conv(m.conv(x))), conv=nn.Conv2d(6, 6, 1)))
    x = torch.randint(-2, 3, (1, 6, 4, 4)).float()
    network = _run(tmp_path, model, x)
    assert [step["weight"] for step in network.described["steps"]] == ["conv"] * 3
    assert sorted(network.tensors) == ["conv.bias", "conv.index", "conv.order", "conv.starts", "conv.values"]
    _same(network(x), model(x))


def test_shared_layer_with_two_batch_norms(tmp_path: Path) -> None:
    layers = {"conv": nn.Conv2d(6, 6, 1), "a": nn.BatchNorm2d(6), "b": nn.BatchNorm2d(6)}
    model = Function(lambda m, x: m.b(m.conv(m.a(m.conv(x)))), **layers).eval()
    nn.init.normal_(model.a.weight)
    x = torch.randn(1, 6, 4, 4)
    network = _run(tmp_path, model, x)
    assert [step["weight"] for step in network.described["steps"]] == ["conv", "conv_2"]
    _same(network(x), model(x))


def test_masks_of_torch_are_folded(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(8, 32, 1), nn.ReLU(), nn.Conv2d(32, 8, 3)).eval()
    for layer in (model[0], model[2]):
        torch_prune.l1_unstructured(layer, "weight", amount=0.9)
    x = torch.randn(1, 8, 6, 6)
    network = _run(tmp_path, model, x)
    records = [len(network.tensors[f"{step['weight']}.index"]) - 1 for step in network.described["steps"]]
    assert records == [round(0.1 * 8 * 32), round(0.1 * 8 * 32 * 9)]
    _same(network(x), model(x))


def test_packed_linears_keep_their_pattern(tmp_path: Path) -> None:
    dense = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 32), nn.Linear(32, 16)).eval()
    model = nn.Sequential(
        sc.nn.SparseLinear.from_dense(dense[0], "8x1", sparsity=0.75, activation="relu"),
        sc.nn.SparseLinear.from_dense(dense[1], "unstructured", sparsity=0.9),
        sc.nn.SparseLinear.from_dense(dense[2], "2:4"),
    ).eval()
    x = torch.randn(3, 64)
    network = _run(tmp_path, model, x)
    steps = network.described["steps"]
    assert [(step["op"], step["rows"], step["activation"]) for step in steps[:2]] == [
        ("linear", 8, "relu"),
        ("linear", 1, "none"),
    ]
    assert isinstance(model[0], sc.nn.SparseLinear)
    with torch.no_grad():
        _same(network(x), model(x))


def test_packed_convolutions_keep_their_pattern(tmp_path: Path) -> None:
    dense = nn.Sequential(nn.Conv2d(8, 32, 1), nn.BatchNorm2d(32), nn.Conv2d(32, 16, 3, padding=1)).eval()
    nn.init.normal_(dense[1].weight)
    model = nn.Sequential(
        sc.nn.SparseConv2d.from_dense(dense[0], "4x1", sparsity=0.75),
        dense[1],
        sc.nn.SparseConv2d.from_dense(dense[2], "4x4", sparsity=0.9, activation="relu6"),
        nn.MaxPool2d(2),
    ).eval()
    x = torch.randn(3, 8, 7, 6)
    network = _run(tmp_path, model, x)
    convs = network.described["steps"][:2]
    assert [(step["rows"], step["cols"], step["activation"]) for step in convs] == [
        (4, 1, "none"),
        (4, 4, "relu6"),
    ]
    with torch.no_grad():
        _same(network(x), model(x))


def test_values_of_the_batch_do_not_mix(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 9, 4)).eval()
    network = _run(tmp_path, model, torch.randn(1, 3, 5, 5))
    x = torch.randn(5, 3, 5, 5)
    with torch.no_grad():
        _same(network(x), model(x))


class _Attention(nn.Module):
    """A convolutional trunk, attention that no network step computes, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        planes = self.trunk(x)
        tokens = self.norm(planes.flatten(2).transpose(1, 2))
        mixed = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return self.head(mixed.mean(1) + planes.mean((2, 3)))


def test_unknown_operators_are_named() -> None:
    model, x = _Attention().eval(), torch.randn(2, 3, 9, 9)
    with pytest.raises(
        ValueError,
        match=r"compile: cannot translate aten\.(view|reshape|flatten).*test_compile_options\.py:\d+",
    ) as caught:
        compile(model, x)
    assert "planes.flatten(2)" in str(caught.value)
    assert "fallback=True" in str(caught.value)
    model.forward = lambda x: model.norm(model.trunk(x).mean((2, 3)))  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"layer_norm.*in module norm"):
        compile(model, x)


def test_unknown_operators_stay_with_torch() -> None:
    model, x = _Attention().eval(), torch.randn(2, 3, 9, 9)
    network = compile(model, x, fallback=True)
    assert isinstance(network, SplitNetwork)
    assert [segment.kind for segment in network.segments] == ["network", "torch", "network"]
    with torch.no_grad():
        _same(network(x), model(x))
    assert network.explain().count("\n") == 2
    with pytest.raises(ValueError, match="compiled for batches of 2"):
        network(x[:1])
    with pytest.raises(ValueError, match="needs 1 inputs, got 2"):
        network(x, x)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: m.conv(nn.functional.pad(x, (1, 1, 1, 1))) + nn.functional.pad(x, (1, 1, 1, 1)),
        lambda m, x: torch.cat(m.conv(x).chunk(2, 1), 1).relu(),
        lambda m, x: (m.conv(x).sin() * m.conv(x).mean((2, 3), keepdim=True).expand_as(x), m.conv.weight),
        lambda m, x: m.conv(x).amax(1, keepdim=True).expand(-1, 6, -1, -1).relu(),
        lambda m, x: (x, x.argmax(1), m.conv(x)),
        lambda m, x: x.sin(),
    ],
)
def test_fallback_hands_over_anything(function: Any) -> None:
    model, x = Function(function, conv=nn.Conv2d(6, 6, 1)).eval(), torch.randn(2, 6, 4, 4)
    network = compile(model, x, fallback=True)
    with torch.no_grad():
        _same(network(x), model(x))


def test_fallback_that_is_not_needed() -> None:
    assert not isinstance(
        compile(nn.Conv2d(3, 4, 1).eval(), torch.randn(1, 3, 2, 2), fallback=True), SplitNetwork
    )


def test_the_model_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    compile(model, torch.randn(1, 3, 5, 5))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


class _Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.relu()


class _Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu() if x.sum() > 0 else x


IMAGE = torch.zeros(1, 3, 4, 4)
REFUSED: list[tuple[Any, Any, dict[str, Any], type[Exception], str]] = [
    (nn.Conv2d(3, 4, 1), IMAGE, {}, ValueError, "training mode"),
    (nn.ReLU().eval(), [IMAGE, 3], {}, TypeError, "example must be"),
    (nn.ReLU().eval(), (), {}, TypeError, "example must be"),
    ("model", IMAGE, {}, TypeError, "needs a torch module, got str"),
    (nn.ReLU().eval(), torch.zeros(0, 3, 4, 4), {}, ValueError, "batch"),
    (nn.ReLU().eval(), torch.zeros(()), {}, ValueError, "batch"),
    (nn.ReLU().eval(), IMAGE.double(), {}, ValueError, "float64"),
    (nn.ReLU().eval(), IMAGE[0], {}, ValueError, r"\(batch, channels, height, width\)"),
    (nn.ReLU().eval(), IMAGE, {"layout": "nchw"}, ValueError, "layout must be"),
    (nn.ReLU().eval(), IMAGE, {"dtype": "int4"}, ValueError, "dtype must be"),
    (nn.ReLU().eval(), IMAGE, {"dtype": torch.float64}, ValueError, "dtype must be"),
    (_Counts().eval(), IMAGE, {}, ValueError, "changes .*calls"),
    (_Branches().eval(), IMAGE, {}, ValueError, "torch.export cannot trace"),
    (nn.Hardtanh(-1, 1).eval(), IMAGE, {}, ValueError, "clamps to"),
    (nn.AdaptiveAvgPool2d(3).eval(), IMAGE, {}, ValueError, "windows differ in size"),
    (nn.AvgPool2d(3, ceil_mode=True).eval(), IMAGE, {}, ValueError, "ceil_mode"),
    (nn.MaxPool2d(2, dilation=2).eval(), IMAGE, {}, ValueError, "dilation"),
    (nn.Conv2d(3, 4, 1, padding=1).eval(), IMAGE, {}, ValueError, "in the padding"),
    (nn.Softmax(1).eval(), IMAGE, {}, ValueError, "needs a vector"),
    (nn.ReflectionPad2d(1).eval(), IMAGE, {}, ValueError, "something else than zeros|no step"),
    (nn.InstanceNorm2d(3).eval(), IMAGE, {}, ValueError, "cannot translate"),
    (nn.ConvTranspose2d(3, 3, 2).eval(), IMAGE, {}, ValueError, "conv_transpose2d"),
    (nn.Linear(4, 2).eval(), IMAGE, {}, ValueError, r"not \(batch, features\)"),
    (Function(lambda m, x: x.sum(0)).eval(), IMAGE, {}, ValueError, "no step of a network file"),
    (Function(lambda m, x: x.reshape(-1)).eval(), IMAGE, {}, ValueError, "begin with the batch"),
    (Function(lambda m, x: x * x).eval(), IMAGE, {}, ValueError, "multiplies"),
    (Function(lambda m, x: x + x[:, :1]).eval(), IMAGE, {}, ValueError, "slice"),
    (Function(lambda m, x: x + torch.ones(4, 4)).eval(), IMAGE, {}, ValueError, "not one number per channel"),
    (Function(lambda m, x: nn.functional.conv2d(x, x[:, :, :1, :1])).eval(), IMAGE, {}, ValueError, "slice"),
    (Function(lambda m, x: torch.cat([x, x], 2)).eval(), IMAGE, {}, ValueError, "concatenates dimension"),
    (Function(lambda m, x: nn.functional.pad(x, (1, 0)).relu()).eval(), IMAGE, {}, ValueError, "padded"),
]  # fmt: skip


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case[4][:20])
def test_errors(case: Any, tmp_path: Path) -> None:
    model, example, options, error, text = case
    with pytest.raises(error, match=text):
        compile(model, example, **options)
    with pytest.raises(error, match=text):
        export_network(model, example, tmp_path / "net", **options)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    export_network(nn.Conv2d(3, 4, 1).eval(), IMAGE, path)
    return path


def test_written_whole_or_not_at_all(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()
    assert saved.stat().st_mode & 0o600 == 0o600

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        export_network(nn.Conv2d(3, 5, 1).eval(), IMAGE, saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_same_model_same_bytes(saved: Path) -> None:
    model = nn.Conv2d(3, 4, 1).eval()
    files = [saved.with_name(name) for name in ("a", "b")]
    for path in files:
        export_network(model, IMAGE, path)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_damaged_files_are_refused(saved: Path) -> None:
    data = saved.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for size in (0, 7, 8, 8 + length // 2, 8 + length, len(data) - 1):
        with pytest.raises(ValueError, match=r"truncated|damaged"):
            ReferenceNetwork.load(data[:size])
    newer = data.replace(b'"version":"1"', b'"version":"2"')
    with pytest.raises(ValueError, match="version 2, this library reads 1"):
        ReferenceNetwork.load(newer)
    other = data.replace(b"sparsecore.network", b"sparsecore.netwerk")
    with pytest.raises(ValueError, match="no network file"):
        ReferenceNetwork.load(other)
    header = json.loads(data[8 : 8 + length])
    assert header["__metadata__"]["version"] == "1"
