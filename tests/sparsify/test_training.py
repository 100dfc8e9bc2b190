"""Published training recipes: what they compose, and that each does what it is known for on a small problem."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import sparsecore as sc
from sparsecore.sparsify import (
    Recipe,
    Sparsifier,
    evolutionary,
    gmp,
    granet,
    imp,
    masks_from_scores,
    rigl,
    sr_ste,
    static_random,
)

RECIPES = {
    "gmp": gmp(0.8, start=10, stop=100, every=10),
    "random": static_random(0.8),
    "set": evolutionary(0.8, steps=200, every=10),
    "rigl": rigl(0.8, steps=200, every=10),
    "granet": granet(0.8, steps=200, stop=100, every=10),
    "sr-ste": sr_ste("2:4"),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 4))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(64, 16, generator=generator)
    return x, (x[:, :4] * x[:, 4:8]).sign().clamp_min(0.0)


def run(model: nn.Module, sparsifier: Sparsifier, steps: int = 200) -> float:
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    sparsifier.attach(optimizer)
    for step in range(steps):
        x, y = batch(step)
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(model(x), y)
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("name", RECIPES)
def test_trains_to_its_budget_and_runs_on_the_kernels(name: str) -> None:
    recipe = RECIPES[name]
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    model = network()
    sparsifier = Sparsifier(model, recipe)
    loss = run(model, sparsifier)
    assert loss < 0.69  # better than a coin
    total = sum(mask.numel() for mask in sparsifier.masks.values())
    kept = sum(int(mask.sum()) for mask in sparsifier.masks.values())
    assert kept == pytest.approx(total * (1 - recipe.final), abs=3)
    x, _ = batch(0)
    expected = model(x)
    sparsifier.finalize()
    assert all(isinstance(model[i], sc.nn.SparseLinear) for i in (0, 2, 4))
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)


def test_granet_prunes_to_the_ramp_and_then_exchanges() -> None:
    model = network()
    recipe = RECIPES["granet"]
    sparsifier = Sparsifier(model, recipe)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    sparsifier.attach(optimizer)
    total = sum(mask.numel() for mask in sparsifier.masks.values())
    for step in range(150):
        x, y = batch(step)
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x), y).backward()
        before = copy.deepcopy(sparsifier.masks)
        optimizer.step()
        kept = sum(int(mask.sum()) for mask in sparsifier.masks.values())
        if recipe.schedule.is_update(step):
            assert kept == round(total * (1 - recipe.schedule.sparsity(0.8, step)))
            grown = sum(int((mask & ~before[name]).sum()) for name, mask in sparsifier.masks.items())
            assert grown > 0 or step > 140
        else:
            assert all(torch.equal(mask, before[name]) for name, mask in sparsifier.masks.items())


@pytest.mark.parametrize("rewind", [0, 5, None])
def test_lottery_tickets(rewind: int | None) -> None:
    model = network()
    start = copy.deepcopy(model.state_dict())
    begun: list[dict[str, torch.Tensor]] = []
    densities: list[float] = []
    early: list[dict[str, torch.Tensor]] = []

    def train(model: nn.Module, sparsifier: Sparsifier, turn: int) -> None:
        begun.append(copy.deepcopy(model.state_dict()))
        total = sum(mask.numel() for mask in sparsifier.masks.values())
        densities.append(sum(int(mask.sum()) for mask in sparsifier.masks.values()) / total)
        if turn == 0:
            run(model, sparsifier, 5)
            early.append(copy.deepcopy(model.state_dict()))
            sparsifier.detach()
            run(model, sparsifier, 15)
        else:
            run(model, sparsifier, 20)

    masks = imp(model, train, 0.75, rounds=2, rewind=rewind)
    assert densities == pytest.approx([1.0, 0.5, 0.25], abs=1e-3)
    for name, mask in masks.items():
        anchor = start if rewind == 0 else early[0]
        weight = f"{name}.weight"
        if rewind is not None:
            assert torch.equal(begun[2][weight], anchor[weight] * mask)
            assert torch.equal(begun[2][f"{name}.bias"], anchor[f"{name}.bias"])
        assert not model.get_submodule(name).weight[~mask].any()


def test_lottery_mistakes() -> None:
    with pytest.raises(ValueError, match="0 < sparsity < 1"):
        imp(network(), lambda *_: None, 1.0)
    with pytest.raises(ValueError, match="no step with an attached optimizer"):
        imp(network(), lambda *_: None, 0.5)
    with pytest.raises(ValueError, match="no step 50 to rewind to"):
        imp(network(), lambda model, sparsifier, _: run(model, sparsifier, 3), 0.5, rewind=50)


def test_random_masks_differ_by_layer_and_seed_but_not_by_run() -> None:
    def masks(seed: int) -> dict[str, torch.Tensor]:
        return Sparsifier(network(), static_random(0.8, seed=seed)).masks

    one, again, other = masks(1), masks(1), masks(2)
    assert all(torch.equal(mask, again[name]) for name, mask in one.items())
    assert any(not torch.equal(mask, other[name]) for name, mask in one.items())


def test_masks_from_scores_prunes_globally() -> None:
    model = network()
    scores = {str(i): torch.rand(model[i].weight.shape) - 0.5 for i in (0, 2)}
    masks = masks_from_scores(model, scores, 0.75)
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.25 * (16 * 48 + 48 * 48))
    least = min(float(scores[name][mask].min()) for name, mask in masks.items())
    assert least >= max(float(scores[name][~mask].max()) for name, mask in masks.items())
    assert all(torch.equal(model.get_submodule(name).weight != 0, mask) for name, mask in masks.items())
    with pytest.raises(ValueError, match="not that of the weight"):
        masks_from_scores(model, {"0": torch.rand(2, 2)}, 0.5)
    with pytest.raises(ValueError, match="not finite"):
        masks_from_scores(model, {"0": torch.full((48, 16), float("nan"))}, 0.5)
