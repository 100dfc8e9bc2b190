"""Reports count every layer, every zero and every byte, in each of their forms."""

from __future__ import annotations

import html.parser
import json

import pytest
import torch
from torch import nn

import sparsecore as sc
from sparsecore.report import LayerReport, SparsityReport


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, 64), nn.Linear(64, 16)
    ).eval()


def test_convolutions_and_totals() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[:4] = 0.0
    sc.sparsify_(model, "2:4", lambda _, name: name == "3")
    found = sc.report(model)
    assert [layer.name for layer in found.layers] == ["0", "3", "4"]
    assert [layer.kind for layer in found.layers] == ["Conv2d", "Linear", "Linear"]
    assert [layer.shape for layer in found.layers] == [(8, 27), (64, 32), (16, 64)]
    assert [layer.sparsity for layer in found.layers] == [0.5, 0.5, 0.0]
    sizes = [8 * 27, 64 * 32, 16 * 64]
    zeros = 4 * 27 + 64 * 16
    assert found.sparsity == pytest.approx(zeros / sum(sizes))
    assert found.weights == sum(sizes) + 8 + 64 + 16  # with biases
    assert found.zeros == zeros
    assert found.model_sparsity == pytest.approx(zeros / found.weights)
    assert found.dense_bytes == 4 * sum(sizes)
    assert found.nbytes == model[3].weight.nbytes + 4 * (sizes[0] + sizes[2])
    lines = str(found).splitlines()
    assert lines[1].split()[:3] == ["0", "dense", "Conv2d"]
    assert lines[4].startswith("total")
    assert f"{found.weights} parameters, {found.model_sparsity:.1%} zeros" in lines[-1]


@pytest.mark.parametrize("pattern", ["2:4/16", "16x1", "1:4", "channels"])
def test_zeros_of_a_packed_model_are_those_of_the_dense_one(pattern: str) -> None:
    model = nn.Sequential(nn.Embedding(10, 33), nn.Linear(33, 50))  # sizes no pattern divides
    with torch.no_grad():
        model[0].weight[0] = 0.0
    sc.sparsify_(model, pattern, sparsity=None if ":" in pattern else 0.5)
    packed = sc.report(model)
    dense = sc.report(sc.densify_(model))
    assert (packed.weights, packed.zeros) == (dense.weights, dense.zeros)
    assert packed.sparsity == pytest.approx(dense.sparsity)
    assert packed.zeros >= 33 + 0.3 * 33 * 50


def test_int8_and_shared_layers_count_once() -> None:
    layer = nn.Linear(64, 64, bias=False)
    model = nn.ModuleList([layer, layer])
    assert sc.report(model).weights == 64 * 64
    sc.sparsify_(model, "2:4/16", dtype=torch.int8)
    found = sc.report(model)
    assert len(found.layers) == 1
    assert found.weights == 64 * 64
    assert 0.5 <= found.model_sparsity < 0.6  # small weights may round to zero


def test_timings_of_a_plan_and_of_advice() -> None:
    model = network()
    advice = sc.advise(model, seconds=0.05, patterns=["2:4"], progress=False)
    dense = sc.report(model, timings=advice)
    assert dense.layers[0].seconds is None
    assert dense.layers[1].seconds == dense.layers[1].dense_seconds == advice.layers[0].options[0].seconds
    sc.sparsify_(model, "2:4", lambda _, name: name == "3")
    plans = sc.plan_(model, (1, 8), seconds=0.001)
    timed = sc.report(model, timings=plans)
    last = plans[0].choices[-1]
    assert timed.layers[1].seconds == last.seconds[last.kept]
    assert timed.layers[1].dense_seconds == last.seconds["dense"]
    assert "x dense" in str(timed).splitlines()[0]
    assert "x dense" not in str(sc.report(model))
    layer = sc.sparsify_(nn.Linear(32, 32), "2:4")
    assert sc.report(layer, timings=sc.plan_(layer, (4,), seconds=0.001)).layers[0].seconds is not None
    with pytest.raises(ValueError, match="name no layer"):
        sc.report(nn.Linear(4, 4), timings=plans)


class Page(html.parser.HTMLParser):
    """Checks that every tag is closed and gathers cells."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells.append(data)


def test_pages_and_tables() -> None:
    odd = nn.ModuleDict({"a|b<c>": nn.Linear(8, 4)})
    found = sc.report(odd)
    page = Page()
    page.feed(found.to_html("Zeros & bytes"))
    assert page.open == []
    assert "a|b<c>" in page.cells
    assert found.to_html("Zeros & bytes").startswith("<!DOCTYPE html>")
    assert "<title>Zeros &amp; bytes</title>" in found.to_html("Zeros & bytes")
    assert "http" not in found.to_html()
    lines = found.to_markdown().splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines[:4]}) == 1
    assert "a\\|b<c>" in lines[2]
    state = json.loads(json.dumps(found.to_dict()))
    assert state["layers"][0]["name"] == "a|b<c>"
    assert state["model_sparsity"] == found.model_sparsity


def test_empty_lazy_and_meta_models() -> None:
    assert sc.report(nn.ReLU()).layers == ()
    assert "total" in str(sc.report(nn.ReLU()))
    with pytest.raises(ValueError, match="Run the model once"):
        sc.report(nn.LazyLinear(4))
    with torch.device("meta"):
        assert sc.report(nn.Linear(8, 8)).zeros == 0


def test_older_callers_still_build_reports() -> None:
    layer = LayerReport("a", "dense", "dense", (2, 2), 0.0, 16, 16)
    assert SparsityReport((layer,)).nbytes == 16
