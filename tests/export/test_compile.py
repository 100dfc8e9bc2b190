"""Models through the exporter, against torch: every operator, every fusion, whole networks, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import sparsecore as sc
from models import MODELS, calibrate_, prune_
from sparsecore.export import export_network


class Function(nn.Module):
    """A forward function with some layers."""

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def _integers(model: nn.Module) -> nn.Module:
    """Small whole weights, so that sums are exact in any order."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape))
    return model.eval()


class Exported:
    """A written file, run by the compiled network and by the specification, which must agree."""

    def __init__(self, path: Any) -> None:
        self.reference, self.network = sc.reference.ReferenceNetwork.load(path), sc.Network.load(path)
        self.described, self.tensors = self.reference.described, self.reference.tensors

    def __call__(self, *inputs: Tensor) -> Any:
        got = self.network(*inputs)
        _same(got, self.reference(*inputs), 1e-4)
        return got


def _run(tmp_path: Any, model: nn.Module, *example: Tensor, **options: Any) -> Exported:
    export_network(model, example, tmp_path / "net.safetensors", **options)
    return Exported(tmp_path / "net.safetensors")


def _ops(network: Exported) -> list[str]:
    return [step["op"] for step in network.described["steps"]]


def _same(got: Any, wanted: Any, relative: float = 1e-5) -> None:
    got = got if isinstance(got, tuple) else (got,)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    assert len(got) == len(wanted)
    for each, exact in zip(got, wanted, strict=True):
        exact = exact.detach()
        assert float((each.reshape(exact.shape) - exact).abs().max()) <= relative * float(exact.abs().max())


# name: model, operators of the network
SINGLE: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "conv 1x1": (lambda: nn.Conv2d(6, 9, 1), ["conv"]),
    "conv 3x3": (lambda: nn.Conv2d(6, 5, 3, padding=1, bias=False), ["conv"]),
    "conv strided": (lambda: nn.Conv2d(6, 5, (3, 2), stride=(2, 3), padding=(2, 0)), ["conv"]),
    "conv 1x1 strided": (lambda: nn.Conv2d(6, 8, 1, stride=2), ["conv"]),
    "conv dilated": (lambda: nn.Conv2d(6, 5, 3, padding=2, dilation=2), ["conv"]),
    "conv same": (lambda: nn.Conv2d(6, 5, (4, 3), padding="same", dilation=(1, 2)), ["conv"]),
    "conv valid": (lambda: nn.Conv2d(6, 5, 3, padding="valid"), ["conv"]),
    "conv grouped": (lambda: nn.Conv2d(6, 9, 3, groups=3), ["conv"]),
    "depthwise": (lambda: nn.Conv2d(6, 6, 5, padding=2, stride=2, groups=6), ["depthwise"]),
    "depthwise x2": (lambda: nn.Conv2d(6, 12, 3, groups=6), ["conv"]),
    "padded conv": (lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 2, 1)), nn.Conv2d(6, 4, 3, 2)), ["conv"]),
    "max pool": (lambda: nn.MaxPool2d(3, 2, 1), ["max_pool"]),
    "max pool, last window cut": (lambda: nn.MaxPool2d(2, ceil_mode=True), ["max_pool"]),
    "average pool": (lambda: nn.AvgPool2d((2, 3)), ["average_pool"]),
    "average pool, padding counted": (lambda: nn.AvgPool2d(3, 2, 1), ["average_pool"]),
    "average pool, padding not": (lambda: nn.AvgPool2d(3, 1, 1, count_include_pad=False), ["average_pool"]),
    "global pool": (lambda: nn.AdaptiveAvgPool2d(1), ["global_average_pool"]),
    "mean": (lambda: Function(lambda m, x: x.mean((-1, -2))), ["global_average_pool"]),
    "flatten": (lambda: nn.Flatten(), ["flatten"]),
    "reshape": (lambda: Function(lambda m, x: x.reshape(x.shape[0], -1)), ["flatten"]),
    "add": (lambda: Function(lambda m, x: x + x), ["add"]),
    "concat": (lambda: Function(lambda m, x: torch.cat([x, x.relu(), x], 1)), ["activation", "concat"]),
    "batch norm": (lambda: nn.BatchNorm2d(6), ["depthwise"]),
    "numbers": (lambda: Function(lambda m, x: (2 * x - 3) / 4 + 1), ["depthwise"]),
    "identity": (lambda: nn.Identity(), ["activation"]),
    "dropout": (lambda: nn.Sequential(nn.Dropout(), nn.Conv2d(6, 2, 1)), ["conv"]),
    "softmax": (lambda: nn.Sequential(nn.Flatten(), nn.Softmax(1)), ["flatten", "softmax"]),
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6 * 11 * 9, 7)), ["flatten", "dense"]),
    "pixel": (
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 4, 1)),
        ["global_average_pool", "dense"],
    ),
    "pooled to 3x3": (
        lambda: nn.Sequential(nn.MaxPool2d(1, (1, 1)), nn.AdaptiveAvgPool2d((11, 3))),
        ["max_pool", "average_pool"],
    ),
}


@pytest.mark.parametrize("name", SINGLE)
def test_operators(tmp_path: Any, name: str) -> None:
    make, ops = SINGLE[name]
    model = _integers(make())
    x = torch.randint(-4, 5, (3, 6, 11, 9)).float()
    network = _run(tmp_path, model, x)
    assert _ops(network) == ops
    _same(network(x), model(x))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu6": functional.relu6,
    "hard_swish": functional.hardswish,
    "hard_sigmoid": functional.hardsigmoid,
    "silu": functional.silu,
    "sigmoid": torch.sigmoid,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}
SPELLINGS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "hardtanh": ("relu6", lambda x: functional.hardtanh(x, 0, 6)),
    "clamp": ("relu6", lambda x: x.clamp(0, 6)),
    "clamp_min": ("relu", lambda x: x.clamp(min=0)),
    "in place": ("relu", lambda x: x.relu_()),
    "product": ("silu", lambda x: x * x.sigmoid()),
    "hard product": ("hard_swish", lambda x: x * functional.hardsigmoid(x)),
    "by hand": ("hard_swish", lambda x: x * (functional.relu6(x + 3) / 6)),
    "by hand, divided last": ("hard_swish", lambda x: x * functional.relu6(x + 3) / 6),
}
EVERY_ACTIVATION = {name: (name, function) for name, function in ACTIVATIONS.items()} | SPELLINGS
# name: (layer, operator of its step); the layer ends in what an activation is fused into
ENDS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "conv": (lambda: nn.Conv2d(6, 8, 1), "conv"),
    "stem": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3)), "stem"),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6), "depthwise"),
    "dense": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)), "dense"),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", EVERY_ACTIVATION)
def test_activations_are_fused(tmp_path: Any, name: str, end: str) -> None:
    activation, function = EVERY_ACTIVATION[name]
    make, op = ENDS[end]
    model = Function(lambda m, x: function(m.layer(x)), layer=make()).eval()
    x = torch.randn(2, 3 if end == "stem" else 6, 7, 5)
    network = _run(tmp_path, model, x)
    step = network.described["steps"][-1]
    assert (step["op"], step["activation"]) == (op, activation)
    _same(network(x), model(x))


@pytest.mark.parametrize("name", EVERY_ACTIVATION)
def test_activations_alone(tmp_path: Any, name: str) -> None:
    activation, function = EVERY_ACTIVATION[name]
    x = 3 * torch.randn(2, 4, 3, 3)
    network = _run(tmp_path, Function(lambda m, x: function(x.clone())).eval(), x)
    assert network.described["steps"][-1]["activation"] == activation
    _same(network(x), function(x.clone()))


def test_batch_norm_is_folded(tmp_path: Any) -> None:
    layers = [
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6, affine=False),
        nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.ReLU6(),
        nn.Flatten(), nn.Linear(8 * 25, 7), nn.BatchNorm1d(7),
    ]  # fmt: skip
    model = calibrate_(nn.Sequential(*layers), size=9)
    for layer in layers:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine:
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 9, 9)
    network = _run(tmp_path, model, x)
    assert _ops(network) == ["stem", "depthwise", "conv", "flatten", "dense"]
    _same(network(x), model(x))


def test_batch_norm_of_a_sum_stays(tmp_path: Any) -> None:
    model = Function(
        lambda m, x: m.norm(m.conv(x) + x), conv=nn.Conv2d(6, 6, 1), norm=nn.BatchNorm2d(6)
    ).eval()
    model.norm.running_mean.normal_()
    x = torch.randn(2, 6, 4, 4)
    network = _run(tmp_path, model, x)
    assert _ops(network) == ["conv", "depthwise"]
    assert "residual" in network.described["steps"][0]
    _same(network(x), model(x))


RESIDUALS: dict[str, tuple[Callable[[Any, Tensor], Any], list[str]]] = {
    "right": (lambda m, x: x + m.a(x), ["conv"]),
    "left, activated": (lambda m, x: functional.relu(m.a(x) + x), ["conv"]),
    "two convolutions": (lambda m, x: m.a(x) + m.b(x), ["conv", "conv"]),
    "other operand comes later": (
        lambda m, x: (lambda y: y + m.b(x.relu()).relu())(m.a(x)),
        ["activation", "conv", "conv"],
    ),
    "chain": (lambda m, x: m.b(m.a(x) + x) + x, ["conv", "conv"]),
    "activated before the sum": (lambda m, x: x + m.a(x).relu(), ["conv", "add"]),
    "read twice": (lambda m, x: (lambda y: torch.cat([y + x, y], 1))(m.a(x)), ["conv", "add", "concat"]),
    "doubled": (lambda m, x: (lambda y: y + y)(m.a(x)), ["conv", "add"]),
    "leaves": (lambda m, x: (lambda y: (y + x, y))(m.a(x)), ["conv", "add"]),
}  # fmt: skip


@pytest.mark.parametrize("name", RESIDUALS)
def test_residuals_are_fused(tmp_path: Any, name: str) -> None:
    function, ops = RESIDUALS[name]
    model = _integers(Function(function, a=nn.Conv2d(6, 6, 1), b=nn.Conv2d(6, 6, 3, padding=1)))
    x = torch.randint(-4, 5, (2, 6, 5, 7)).float()
    network = _run(tmp_path, model, x)
    assert _ops(network) == ops
    _same(network(x), model(x))


def _gates(kind: str) -> nn.Module:
    def with_convolutions(m: Any, x: Tensor) -> Tensor:
        return x * functional.hardsigmoid(m.b(functional.relu(m.a(functional.adaptive_avg_pool2d(x, 1)))))

    def with_linears(m: Any, x: Tensor) -> Tensor:
        gate = torch.sigmoid(m.d(functional.silu(m.c(x.mean((2, 3))))))
        return x * gate.view(x.shape[0], -1, 1, 1).expand_as(x)

    layers = {
        "a": nn.Conv2d(8, 2, 1),
        "b": nn.Conv2d(2, 8, 1, bias=False),
        "c": nn.Linear(8, 2),
        "d": nn.Linear(2, 8),
    }
    return Function(with_linears if kind == "linears" else with_convolutions, **layers).eval()


@pytest.mark.parametrize("kind", ["convolutions", "linears"])
def test_squeeze_and_excite(tmp_path: Any, kind: str) -> None:
    model = _gates(kind)
    x = torch.randn(2, 8, 5, 3)
    network = _run(tmp_path, model, x)
    assert _ops(network) == ["squeeze_excite"]
    _same(network(x), model(x))


def test_gates_that_are_read_elsewhere_stay_apart(tmp_path: Any) -> None:
    def forward(m: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(m.conv(functional.adaptive_avg_pool2d(x, 1)))
        return functional.relu(gate * x), gate

    model = Function(forward, conv=nn.Conv2d(8, 8, 1)).eval()
    x = torch.randn(2, 8, 5, 3)
    network = _run(tmp_path, model, x)
    assert _ops(network) == ["global_average_pool", "dense", "scale"]
    assert network.described["steps"][-1]["activation"] == "relu"
    _same(network(x), model(x))


def test_a_gate_of_one_pixel_planes(tmp_path: Any) -> None:
    model = Function(lambda m, x: x * m.conv(x).sigmoid(), conv=nn.Conv2d(6, 6, (5, 3))).eval()
    x = torch.randn(2, 6, 5, 3)
    network = _run(tmp_path, model, x)
    assert _ops(network) == ["conv", "flatten", "scale"]
    _same(network(x), model(x))


ZEROS = ((0.0, 1), (0.9, 1), (0.8, 4))
WHOLE = [(name, *zeros) for name in MODELS for zeros in ZEROS if name != "resnet50" or zeros[1] == 1]


@pytest.mark.parametrize(("name", "sparsity", "rows"), WHOLE)
def test_whole_networks(tmp_path: Any, name: str, sparsity: float, rows: int) -> None:
    model = calibrate_(prune_(MODELS[name](num_classes=17), sparsity, rows), size=64, images=2)
    x = torch.randn(2, 3, 41, 35)
    network = _run(tmp_path, model, x)
    with torch.no_grad():
        _same(network(x), model(x), 1e-4)
    ops = set(_ops(network))
    assert not ops & {"add", "activation", "scale"}  # everything is fused
    assert ("linear" in ops) == (sparsity > 0)  # the classifier is dense where nothing is pruned
    if sparsity:
        rows_of = [step["rows"] for step in network.described["steps"] if step["op"] == "conv"]
        assert set(rows_of) == {rows}


@pytest.mark.parametrize(("dtype", "relative"), [("float16", 2e-3), ("bfloat16", 2e-2), ("int8", 3e-2)])
def test_narrow_weights(tmp_path: Any, dtype: str, relative: float) -> None:
    model = calibrate_(
        nn.Sequential(nn.Conv2d(6, 32, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 8, 3)), 9
    )
    return_type = {"float16": torch.float16, "bfloat16": torch.bfloat16, "int8": torch.int8}[dtype]
    x = torch.randn(2, 6, 9, 9)
    network = _run(tmp_path, model, x, dtype=dtype)
    assert network.tensors["0.values"].dtype == return_type
    assert ("0.scale" in network.tensors) == (dtype == "int8")
    _same(network(x), model(x), relative)
