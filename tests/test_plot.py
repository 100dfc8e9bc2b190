"""Figures hold what they are asked to show."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import sparsecore as sc
from tests.test_advise import made_up

pytest.importorskip("matplotlib")


def test_figures(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(96, 64), nn.Linear(64, 8))
    sc.sparsify_(model, "2:4", lambda _, name: name == "0")
    axes = sc.plot.layers(model)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "1"]
    axes.figure.savefig(tmp_path / "layers.png")
    for weight in (model[0], model[0].weight, model[0].weight.to_dense()):
        axes = sc.plot.pattern(weight)
        assert "50.0% zeros" in axes.get_title()
        assert axes.images[0].get_array().shape == (64, 96)
    assert sc.plot.pattern(torch.eye(1000), max_size=100).images[0].get_array().shape == (100, 100)
    axes = sc.plot.trade_off({"a": (3.0, 0.9), "b": (2.0, 0.7)}, engines={"dense": 5.0}, quality="cosine")
    assert axes.get_ylabel() == "cosine"
    assert {"a", "b", "dense"} == {text.get_text() for text in axes.texts}
    assert sc.plot.pattern(torch.eye(4), axes) is axes
    assert len(sc.plot.curve(made_up(0), points=4).lines[0].get_xdata()) == 4


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="no linear layer"):
        sc.plot.layers(nn.ReLU())
    with pytest.raises(ValueError, match="needs a matrix"):
        sc.plot.pattern(torch.ones(3))
    with pytest.raises(ValueError, match="no point"):
        sc.plot.trade_off({})
