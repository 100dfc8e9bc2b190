"""Budgets: published numbers, exact totals, invariances."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsecore.patterns import Group, Unstructured
from sparsecore.sparsify import Magnitude, Wanda, alps, magnitude, prune_once, sparsegpt
from sparsecore.sparsify.allocation import (
    ER,
    ERK,
    LAMP,
    OWL,
    Allocation,
    ERKPlus,
    Global,
    Layer,
    PerLayer,
    Uniform,
    UniformPlus,
    lamp_scores,
)

SHAPES = [(32, 3, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3), (10, 64)]
LAYERS = {str(i): Layer(shape, torch.Size(shape).numel()) for i, shape in enumerate(SHAPES)}


def scores(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(layer.units, generator=generator).square() * 10.0 ** (int(name) - 1)
        for name, layer in LAYERS.items()
    }


@pytest.mark.parametrize(
    ("sparsity", "densities"),
    [(0.9, (0.86342, 0.10069, 0.06614, 1.0)), (0.5, (1.0, 0.63067, 0.41426, 1.0))],
)
def test_erk_gives_the_published_densities(sparsity: float, densities: tuple[float, ...]) -> None:
    kept = ERK(sparsity).kept(LAYERS)
    for name, density in zip(LAYERS, densities, strict=True):
        assert kept[name] / LAYERS[name].units == pytest.approx(density, abs=1.0 / LAYERS[name].units)


@pytest.mark.parametrize("kind", [Uniform, UniformPlus, ER, ERK, ERKPlus, Global, LAMP, OWL])
@settings(max_examples=25, deadline=None)
@given(sparsity=st.floats(0.0, 0.97), seed=st.integers(0, 9))
def test_totals_are_exact(kind: type[Allocation], sparsity: float, seed: int) -> None:
    units = sum(layer.units for layer in LAYERS.values())
    kept = kind(sparsity).kept(LAYERS, scores(seed))  # type: ignore[call-arg]
    assert set(kept) == set(LAYERS)
    assert all(1 <= kept[name] <= layer.units for name, layer in LAYERS.items())
    if kind is Uniform:
        assert all(kept[name] == round((1 - sparsity) * layer.units) for name, layer in LAYERS.items())
    else:
        assert sum(kept.values()) == round((1.0 - sparsity) * units)


def test_power_zero_is_uniform_and_er_ignores_kernels() -> None:
    kept = ERK(0.75, power=0.0).kept(LAYERS)
    assert all(kept[name] == pytest.approx(0.25 * layer.units, abs=1) for name, layer in LAYERS.items())
    flat = {"a": Layer((30, 20), 600), "b": Layer((50, 60), 3000)}
    assert ER(0.6).kept(flat) == ERK(0.6).kept(flat)


def test_plus_rules() -> None:
    kept = UniformPlus(0.9).kept(LAYERS)
    assert kept["0"] == LAYERS["0"].units
    assert kept["3"] == 0.2 * LAYERS["3"].units
    assert ERKPlus(0.9).kept(LAYERS)["3"] == LAYERS["3"].units
    big_first = {"0": Layer((100, 100), 10000), "1": Layer((10, 10), 100)}
    with pytest.raises(ValueError, match="dense first layer"):
        UniformPlus(0.9).kept(big_first)
    with pytest.raises(ValueError, match="last layer alone"):
        ERKPlus(0.99).kept({"0": Layer((10, 10), 100), "1": Layer((100, 100), 10000)})


def test_global_is_one_threshold() -> None:
    values = scores()
    kept = Global(0.7).kept(LAYERS, values)
    flat = torch.cat([values[name] for name in LAYERS])
    threshold = flat.topk(round(0.3 * len(flat))).values[-1]
    expected = {name: max(1, int((value >= threshold).sum())) for name, value in values.items()}
    expected["2"] -= 1  # the richest gives one to the layer that was left with none
    assert kept == expected


def test_lamp_does_not_see_the_scale_of_a_layer_and_empties_none() -> None:
    values = scores()
    kept = LAMP(0.9).kept(LAYERS, values)
    scaled = {name: value * 10.0 ** (3 * int(name)) for name, value in values.items()}
    assert LAMP(0.9).kept(LAYERS, scaled) == kept
    assert all(count >= 1 for count in LAMP(0.999).kept(LAYERS, values).values())
    by_hand = torch.tensor([1.0, 4.0, 2.0, 2.0])
    assert torch.allclose(lamp_scores(by_hand), torch.tensor([1 / 9, 1.0, 2 / 6, 2 / 8], dtype=torch.float64))
    order = values["1"].argsort(stable=True)
    rising = values["1"][order].diff() > 0  # of equal weights the first counts as the larger
    assert (lamp_scores(values["1"])[order].diff()[rising] > 0).all()


def test_owl_gives_layers_with_outliers_more() -> None:
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.rand(layer.units, generator=generator) for name, layer in LAYERS.items()}
    values["2"][:300] = 1e4
    kept = OWL(0.6, factor=5.0, spread=0.08).kept(LAYERS, values)
    densities = {name: kept[name] / layer.units for name, layer in LAYERS.items()}
    assert densities["2"] == max(densities.values())
    assert max(densities.values()) - min(densities.values()) == pytest.approx(0.16, abs=0.01)
    assert all(abs(density - 0.4) <= 0.16 for density in densities.values())


def test_per_layer_rules() -> None:
    kept = PerLayer({"0": 0.0, "re:[12]": 0.75}, default=0.5).kept(LAYERS)
    assert [round(kept[name] / layer.units, 2) for name, layer in LAYERS.items()] == [1.0, 0.25, 0.25, 0.5]
    with pytest.raises(ValueError, match="'9' names no layer"):
        PerLayer({"9": 0.5}).kept(LAYERS)
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        PerLayer({"0": 1.5})


@pytest.mark.parametrize(
    "allocation", [Global(0.6), LAMP(0.6), OWL(0.6), ERK(0.6), PerLayer({"0": 0.9}, 0.5)]
)
@pytest.mark.parametrize("pattern", [Unstructured(), Group(8, 1)], ids=str)
def test_pruning_with_allocations(allocation: Allocation, pattern: Unstructured | Group) -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 8))
    data = [torch.randn(64, 16)]
    score = Wanda() if isinstance(allocation, OWL) else Magnitude()
    masks = prune_once(model, pattern, score=score, sparsity=allocation, data=data, progress=False)
    total = sum(mask.numel() for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    if isinstance(allocation, PerLayer):
        assert masks["0"].float().mean().item() == pytest.approx(0.1, abs=0.03)  # rows of 16
    else:
        assert kept == pytest.approx(0.4 * total, abs=8)


def test_presets_take_allocations() -> None:
    data = [torch.randn(64, 16)]
    for preset in (magnitude, sparsegpt, alps):
        model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 48))
        given = {} if preset is magnitude else {"data": data}
        masks = preset(model, Unstructured(), sparsity=ERK(0.6), progress=False, **given)  # type: ignore[operator]
        assert sum(int(mask.sum()) for mask in masks.values()) == round(0.4 * (16 * 32 + 32 * 48))
        assert masks["0"].float().mean() > masks["2"].float().mean() + 0.1


def test_mistakes() -> None:
    for kind in (UniformPlus, ER, ERK, ERKPlus, Global, LAMP, OWL):
        with pytest.raises(ValueError, match="fraction of zeros"):
            kind(1.0)
    for kind in (Global, LAMP, OWL):
        with pytest.raises(ValueError, match="needs the scores"):
            kind(0.5).kept(LAYERS)
