"""Ratios taken from scores, and what allocations cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparsecore import Unstructured
from sparsecore.sparsify import (
    ERK,
    OWL,
    Global,
    Random,
    Recipe,
    Uniform,
    allocation_report,
    apply_recipe,
    from_scores,
)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.Flatten(),
        nn.Linear(144, 100),
    )


def test_ratios_of_a_score_without_its_mask() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 24), nn.Linear(24, 4))
    scores = {name: torch.randn(model[int(name)].weight.shape) * 3.0 ** int(name) for name in "012"}
    ratios = from_scores(scores, 0.8)
    flat = torch.cat([score.flatten() for score in scores.values()])
    threshold = flat.topk(round(0.2 * len(flat))).values[-1]
    recipe = Recipe(Unstructured(), Random(), ratios)
    masks = apply_recipe(model, Recipe.from_dict(recipe.to_dict()), progress=False)
    for name, score in scores.items():
        assert int(masks[name].sum()) == int((score >= threshold).sum())
        assert not torch.equal(masks[name], score >= threshold)


def test_operations_of_convolutions() -> None:
    model = network()
    model[1].train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    inputs, targets = torch.randn(2, 3, 9, 9), ("Conv2d", "Linear")
    uniform = allocation_report(model, Uniform(0.5), inputs, targets=targets)
    assert [layer.positions for layer in uniform.layers] == [2 * 49, 2 * 9, 2]
    assert [layer.dense_flops for layer in uniform.layers] == [2 * 216 * 98, 2 * 1152 * 18, 2 * 14400 * 2]
    assert uniform.flops_share == pytest.approx(0.5, abs=0.01)
    erk = allocation_report(model, ERK(0.5), inputs, targets=targets)
    assert erk.density == pytest.approx(uniform.density, abs=1e-3)
    assert erk.flops_share > uniform.flops_share + 0.05  # small kernels early on keep more
    assert (
        str(erk).splitlines()[-1]
        == f"{erk.density:.2%} of the weights, {erk.flops_share:.2%} of the operations"
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training
    assert not model[0]._forward_hooks


def test_magnitudes_compare_layers_by_default() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 8))
    with torch.no_grad():
        model[1].weight *= 10.0
    first, second = allocation_report(model, Global(0.6)).layers
    assert second.density > first.density
    assert first.positions == 1


def test_mistakes() -> None:
    model = network()
    with pytest.raises(ValueError, match="compares activations"):
        allocation_report(model, OWL(0.5))
    with pytest.raises(ValueError, match="depend on its input"):
        allocation_report(model, ERK(0.5), targets=["Conv2d"])
    with pytest.raises(ValueError, match="finite"):
        from_scores({"0": torch.tensor([[float("nan")]])}, 0.5)
    with pytest.raises(ValueError, match="keeps nothing"):
        from_scores({"a": torch.ones(1, 2), "b": torch.ones(1, 2)}, 0.8)
    lonely = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    lonely.forward = lambda x: lonely["a"](x)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="never reach 'b'"):
        allocation_report(lonely, ERK(0.5), torch.randn(2, 4))
