"""Advice: exact knapsacks, real measurements, honest tables, predictions that hold."""

from __future__ import annotations

import itertools
import json
import time

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.advise import Advice, LayerAdvice, Option

QUICK = (("unstructured", 0.9), ("2:4", None), ("1:4/16", None))


def made_up(seed: int, layers: int = 4) -> Advice:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for index in range(layers):
        dense = 1e-3 * (1 + torch.rand(1, generator=generator).item())
        options = [Option("dense", None, dense, 0.0, 0.0)]
        for ratio in (0.9, 0.6, 0.4, 0.2):
            noise = torch.rand(2, generator=generator).tolist()
            options.append(Option("2:4", None, dense * (ratio + 0.2 * noise[0]), 0.0, noise[1] * (1 - ratio)))
        found.append(LayerAdvice(str(index), (8, 8), 1, tuple(options)))
    return Advice(tuple(found), 1, "float32", "weights", rest_seconds=2e-3)


def brute(advice: Advice) -> list[tuple[float, float]]:
    return [
        (sum(option.seconds for option in chosen) + 2e-3, sum(option.cost for option in chosen) / len(chosen))
        for chosen in itertools.product(*(layer.options for layer in advice.layers))
    ]


@pytest.mark.parametrize("seed", range(5))
def test_knapsack_against_brute_force(seed: int) -> None:
    advice = made_up(seed)
    every = brute(advice)
    for share in (0.65, 0.75, 0.9, 1.0):
        budget = share * advice.dense_seconds
        found = advice.choose(latency=share)
        assert found.seconds <= budget * (1 + 1e-9)
        best = min(cost for seconds, cost in every if seconds <= budget)
        near = min(cost for seconds, cost in every if seconds <= budget - 0.002 * advice.dense_seconds)
        assert best - 1e-12 <= found.cost <= near + 1e-12
    for quality in (0.0, 0.05, 0.2, 0.5):
        found = advice.choose(quality=quality)
        assert found.cost <= quality * (1 + 1e-9) + 1e-12
        best = min(seconds for seconds, cost in every if cost <= quality + 1e-12)
        assert found.seconds <= best * 1.003
    curve = advice.curve(6)
    assert [cost for _, cost in curve] == sorted((cost for _, cost in curve), reverse=True)


def test_budgets_that_cannot_be_met() -> None:
    advice = made_up(0)
    with pytest.raises(ValueError, match="no assignment runs within"):
        advice.choose(latency=0.05)
    with pytest.raises(ValueError, match="one of them"):
        advice.choose()
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        advice.choose(latency=2.0)
    with pytest.raises(ValueError, match="not negative"):
        advice.choose(quality=-1.0)


def test_shapes_alone() -> None:
    advice = sc.advise(
        {"a": (64, 96), "b": (64, 96), "c": (33, 50)}, seconds=0.1, patterns=QUICK, progress=False
    )
    assert [layer.name for layer in advice.layers] == ["a", "b", "c"]
    assert advice.layers[0].options == advice.layers[1].options  # measured once
    assert advice.estimate == "none"
    assert "quality unknown" in str(advice)
    assert all(layer.choice == min(layer.options, key=lambda o: o.seconds) for layer in advice.layers)
    again = Advice.from_dict(json.loads(json.dumps(advice.to_dict())))
    assert again == advice
    assert "<table>" in advice._repr_html_()
    assert sc.advise([(16, 16)], seconds=0.01, patterns=["2:4"], progress=False).layers[0].name == "0"


class Model(nn.Module):
    def __init__(self, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(torch.nn.functional.layer_norm(x, x.shape[-1:]))
        return x


def test_advises_applies_and_predicts() -> None:
    torch.manual_seed(0)
    data = [torch.randn(128, 256)]
    for attempt in range(4):
        model = Model().eval()
        before = torch.get_num_threads()
        measured_once = sc.advise(model, data=data, threads=1, seconds=1.0, patterns=QUICK, progress=False)
        floor = measured_once.seconds / measured_once.dense_seconds
        advice = measured_once.choose(latency=min(1.0, floor + 0.15))
        assert torch.get_num_threads() == before
        assert advice.rest_seconds is not None
        assert advice.estimate == "calibration"
        assert {layer.tokens for layer in advice.layers} == {128}
        assert 0 < len(advice.assignment) <= 6
        advice.apply_(model, data, progress=False)
        sparse = {name for name, module in model.named_modules() if isinstance(module, sc.nn.SparseLinear)}
        assert sparse == set(advice.assignment)
        torch.set_num_threads(1)
        times = []
        with torch.inference_mode():
            for _ in range(40):
                start = time.perf_counter()
                model(data[0])
                times.append(time.perf_counter() - start)
        torch.set_num_threads(before)
        measured = sorted(times)[20]
        if abs(advice.seconds / measured - 1) < 0.25 or attempt == 3:  # a busy machine gets another chance
            break
    assert advice.seconds == pytest.approx(measured, rel=0.25)


def test_costs_order_patterns_as_pruning_does() -> None:
    torch.manual_seed(0)
    model = Model(64, 1).eval()
    data = [torch.randn(64, 64) @ torch.randn(64, 64)]
    patterns = (("unstructured", 0.5), ("unstructured", 0.9), ("2:4", None), ("2:4/16", None))
    for given in (data, None):
        advice = sc.advise(model, data=given, seconds=0.05, patterns=patterns, progress=False)
        for layer in advice.layers:
            half, most, nm, shared = (option.cost for option in layer.options[1:])
            assert 0 < half < nm < shared < most < 1.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch >= 1"),
        ({"patterns": ["unstructured"]}, "leaves the sparsity open"),
        ({"patterns": []}, "is empty"),
        ({"patterns": ["9:4"]}, "n < m"),
        ({"quality": 0.1, "latency": 0.5}, "not both"),
    ],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sc.advise([(8, 8)], progress=False, **options)


def test_more_mistakes() -> None:
    with pytest.raises(ValueError, match="no layer"):
        sc.advise({}, progress=False)
    with pytest.raises(ValueError, match="out_features, in_features"):
        sc.advise({"a": (0, 4)}, progress=False)
    with pytest.raises(ValueError, match="malformed"):
        Advice.from_dict({"layers": [{"name": "a"}]})
    bad = made_up(0).to_dict()
    bad["layers"][0]["chosen"] = 99
    with pytest.raises(ValueError, match="does not exist"):
        Advice.from_dict(bad)
