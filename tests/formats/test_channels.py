"""Whole channels: a smaller dense product that a layer, a file and a recipe treat like any other pattern."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import sparsecore as sc
from sparsecore.formats import Channels
from sparsecore.sparsify import (
    Constant,
    Fraction,
    GradientGrow,
    Random,
    Recipe,
    Sparsifier,
    Start,
    Uniform,
    sparsegpt,
)

sides = pytest.mark.parametrize("side", ["out", "in"])


def packed(side: str, n: int = 37, k: int = 70, **options: object) -> Channels:
    found = sc.pack(torch.randn(n, k), sc.Channel(side), sparsity=0.4, **options)
    assert isinstance(found, Channels)
    return found


@sides
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_keeps_the_strongest_channels(side: str, dtype: torch.dtype) -> None:
    weight = torch.randn(37, 70, dtype=dtype)
    found = sc.pack(weight, sc.Channel(side), sparsity=0.4).validate()
    norms = weight.double().abs().sum(1 if side == "out" else 0)
    keep = round(0.6 * len(norms))
    mask = torch.zeros_like(norms).index_fill(0, norms.topk(keep).indices, 1.0).bool()
    assert torch.equal(found.mask(), (mask.unsqueeze(1) if side == "out" else mask).expand(37, 70))
    assert torch.equal(found.to_dense(), weight * found.mask())
    assert found.nbytes == keep * (70 if side == "out" else 37) * weight.element_size() + 8 * (
        keep + (70 if side == "out" else 37)
    )
    assert sc.pattern(sc.patterns.pattern_name(found.pattern)) == found.pattern


@sides
@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "silu"])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(side: str, activation: str, bias: bool) -> None:
    weight = packed(side)
    added = torch.randn(37) if bias else None
    for input in (torch.randn(2, 5, 70), torch.randn(70), torch.randn(0, 70), torch.randn(70, 6).T):
        exact = sc.reference.linear(
            input.double(),
            weight.to_dense().double(),
            None,
            None if added is None else added.double(),
            activation,
        )
        torch.testing.assert_close(
            weight.linear(input, added, activation=activation).double(), exact, rtol=1e-5, atol=1e-5
        )


def test_int8() -> None:
    weight = packed("out", dtype=torch.int8).validate()
    input = torch.randn(5, 70)
    torch.testing.assert_close(weight.linear(input), input @ weight.to_dense().T)


@sides
def test_layer_trains_saves_and_compiles(side: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8))
    sc.sparsify_(model, sc.Channel(side), sparsity=0.5)
    layer = model[0]
    assert layer.layout == "channels"
    x = torch.randn(5, 16)
    dense = copy.deepcopy(layer).to_dense()
    direction = torch.randn(5, 24)
    (layer(x) * direction).sum().backward()
    (dense(x) * direction).sum().backward()
    weight = layer.weight
    expected = dense.weight.grad[weight.rows][:, weight.columns]
    torch.testing.assert_close(layer.weight_values.grad, expected)
    torch.testing.assert_close(layer.bias.grad, dense.bias.grad)
    sc.save(model, tmp_path / "model.safetensors")
    fresh = sc.load(
        nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8)), tmp_path / "model.safetensors"
    )
    assert torch.equal(fresh(x), model(x))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    assert "channels" in str(sc.report(model))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("rows", torch.tensor([0, 2, 1])),
        ("rows", torch.tensor([0, 1, 99])),
        ("rows", torch.tensor([-1, 1, 2])),
        ("rows", torch.tensor([0, 1])),
        ("rows", torch.tensor([0, 1, 2], dtype=torch.int32)),
        ("columns", torch.tensor([[0, 1]])),
        ("columns", torch.tensor([0, 0, 1, 2])),
        ("values", torch.randn(3, 3)),
        ("values", torch.randn(12)),
    ],
)
def test_malformed_weights_are_refused(part: str, value: torch.Tensor) -> None:
    weight = sc.pack(torch.randn(6, 4), sc.Channel("out"), sparsity=0.5)
    assert weight.tensors()["rows"].shape == (3,)
    with pytest.raises(ValueError, match="channels"):
        dataclasses.replace(weight, **{part: value}).validate()


def test_masks_have_to_follow() -> None:
    mask = torch.ones(6, 4, dtype=torch.bool)
    mask[2, 1] = False
    with pytest.raises(
        ValueError, match="breaks whole output channels in 1 groups, first at row 2, column 0"
    ):
        sc.pack(torch.randn(6, 4), sc.Channel("out"), mask)
    with pytest.raises(ValueError, match="first at row 0, column 1"):
        sc.pack(torch.randn(6, 4), sc.Channel("in"), mask)
    with pytest.raises(ValueError, match="'out' or 'in'"):
        sc.Channel("sideways")  # type: ignore[arg-type]


@sides
def test_pruning_and_growing(side: str) -> None:
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8))
    masks = sparsegpt(
        model, sc.Channel(side), [torch.randn(64, 16)], sparsity=0.5, within="row", progress=False
    )
    assert all(sc.check_pattern(mask.float(), sc.Channel(side)).ok for mask in masks.values())
    assert all(mask.float().mean().item() == 0.5 for mask in masks.values())
    recipe = Recipe(
        sc.Channel(side),
        allocation=Uniform(0.5, "layer"),
        schedule=Constant(2),
        grow=GradientGrow(Fraction(0.5)),
        start=Start(Random()),
    )
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    sparsifier = Sparsifier(model, recipe).attach(optimizer)
    first = copy.deepcopy(sparsifier.masks)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(8, 16)).square().mean().backward()
        optimizer.step()
    assert all(mask.float().mean().item() == 0.5 for mask in sparsifier.masks.values())
    assert any(not torch.equal(mask, first[name]) for name, mask in sparsifier.masks.items())
    x = torch.randn(3, 16)
    expected = model(x)
    torch.testing.assert_close(sparsifier.finalize()(x), expected)


@pytest.mark.parametrize("bias", [True, False])
def test_autocast_is_that_of_the_dense_layer(bias: bool) -> None:
    layer = sc.nn.SparseLinear.from_dense(nn.Linear(16, 8, bias), "channels", sparsity=0.5)
    input, dense = torch.randn(3, 16), layer.to_dense()
    with torch.autocast("cpu", torch.bfloat16):
        for training in (False, True):
            with torch.set_grad_enabled(training):
                assert layer(input).dtype == dense(input).dtype == torch.bfloat16
                assert torch.allclose(layer(input), dense(input), atol=0.02)
