"""Patterns by kind of operator, and the sparsifiers of networks for images."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import sparsecore as sc
from sparsecore.sparsify import (
    Absolute,
    ByWidth,
    Constant,
    Cubic,
    Fraction,
    Global,
    GradientGrow,
    Kernels,
    PerKind,
    Recipe,
    Sparsifier,
    Uniform,
    choose_group,
    fast_sparse_convnets,
    masks_from_scores,
    sparse_byte_nn,
)
from sparsecore.sparsify.networks import inner_layers

SCHEMA = PerKind("16x1", "16x1", Kernels(16), "4x1")


def network() -> nn.Sequential:
    """Every kind of operator, with outputs that 16 does not divide."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1),  # 0: first
        nn.Conv2d(20, 40, 1),  # 1: pointwise, a short last group
        nn.Conv2d(40, 40, 3, padding=1, groups=40),  # 2: depthwise
        nn.Conv2d(40, 33, 3, padding=1),  # 3: k x k
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(33, 48),  # 6
        nn.Linear(48, 5),  # 7: last
    )


def units(mask: Tensor, rows: int, whole_kernels: bool) -> Tensor:
    """``(runs, units, weights of a unit)`` of a mask, the last run left out if it is short."""
    flat = mask.flatten(2) if whole_kernels else mask.flatten(1).unsqueeze(2)
    runs = len(flat) // rows
    return flat[: runs * rows].reshape(runs, rows, *flat.shape[1:]).movedim(1, 2).flatten(2)


@pytest.mark.parametrize("budget", ["layer", "network", "balanced"])
@pytest.mark.parametrize("taps", ["each", "all"])
def test_every_group_is_kept_or_dropped(taps: str, budget: str) -> None:
    model = network()
    sparsifier = sparse_byte_nn(model, 0.3, taps=taps, depthwise=4, budget=budget)  # type: ignore[arg-type]
    assert set(sparsifier.masks) == {"1", "2", "3", "6"}
    for name, mask in sparsifier.masks.items():
        rows, whole = (4, False) if name == "2" else (16, taps == "all" and name == "3")
        found = units(mask, rows, whole)
        assert bool((found.all(-1) == found.any(-1)).all())
        if len(mask) % rows:  # the short last group is of one mind as well
            last = mask[len(mask) // rows * rows :]
            assert bool((last.all(0) == last.any(0)).all())
        if budget != "network":
            per_run = found.any(-1).flatten(1).sum(1)
            groups = found.any(-1)[0].numel() * -(-len(mask) // rows)
            kept = int(mask[::rows].flatten(2).any(2).sum() if whole else mask[::rows].sum())
            assert abs(kept - 0.7 * groups) <= -(-len(mask) // rows)
            if budget == "balanced":
                assert len(set(per_run.tolist())) == 1
        weight = model.get_submodule(name).weight
        assert torch.equal(weight != 0, mask)
    if budget == "network":
        shares = {round(value, 3) for value in sparsifier.sparsity().values()}
        assert len(shares) > 1


def test_scores_of_groups_are_l1_norms() -> None:
    layer = nn.Linear(4, 32, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:16, 0] = 1.0  # 16
        layer.weight[0, 1] = 15.0  # less by L1, more by squares
        layer.weight[16:, 2] = 2.0
    model = nn.Sequential(layer)
    by_norm = Sparsifier(model, Recipe(SCHEMA, Absolute(), Uniform(0.75, "layer")))
    assert by_norm.masks["0"].any(0).tolist() == [True, False, True, False]


def test_a_threshold_over_the_network_compares_weights_and_not_groups() -> None:
    model = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.Conv2d(16, 16, 3, groups=16, bias=False))
    torch.manual_seed(0)
    scores = {"0": torch.rand(16, 16, 1, 1) + 1.0, "1": torch.rand(16, 1, 3, 3) + 4.0}
    pattern = PerKind("16x1", "16x1", "16x1", "4x1")  # 16 groups of 16 weights, 36 of 4
    masks = masks_from_scores(model, scores, Global(1.0 - 44 / 52), pattern)
    assert bool(masks["1"].all())  # its groups are smaller and its weights larger
    assert int(masks["0"].sum()) == 8 * 16


def test_masks_of_all_kinds_train_and_resume() -> None:
    model = network()
    recipe = Recipe(SCHEMA, Absolute(), Uniform(0.5, "layer"), Cubic(0, 4, 1))
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    sparsifier = Sparsifier(model, recipe, targets=("Conv2d", "Linear"), ignore=("0", "7"))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    sparsifier.attach(optimizer)
    x, y = torch.randn(8, 3, 6, 6), torch.randint(0, 5, (8,))
    seen = []
    for _ in range(6):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        kernels = sparsifier.masks["3"].flatten(2).any(2)
        seen.append(int(kernels[::16].sum()))
    assert seen == sorted(seen, reverse=True) and seen[0] == 120 and seen[-1] == 60
    assert bool((model[3].weight.flatten(2).ne(0).all(2) == model[3].weight.flatten(2).ne(0).any(2)).all())
    again = Sparsifier(network(), recipe, targets=("Conv2d", "Linear"), ignore=("0", "7"))
    again.load_state_dict(sparsifier.state_dict())
    assert all(torch.equal(again.masks[name], mask) for name, mask in sparsifier.masks.items())


def test_groups_of_kernels_grow_too() -> None:
    model = network()
    recipe = Recipe(
        Kernels(16),
        Absolute(),
        Uniform(0.5, "layer"),
        Constant(1, None),
        grow=GradientGrow(Fraction(0.3, 50)),
    )
    sparsifier = Sparsifier(model, recipe, targets=("3",))
    first = sparsifier.masks["3"].clone()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    sparsifier.attach(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 6, 6)).square().sum().backward()
        optimizer.step()
    mask = sparsifier.masks["3"]
    assert not torch.equal(mask, first) and int(mask[::16].sum()) == int(first[::16].sum())
    taps = mask.flatten(2)
    assert bool((taps.all(2) == taps.any(2)).all())


def test_fast_sparse_convnets() -> None:
    model = network()
    sparsifier = fast_sparse_convnets(model, 0.9, start=1, stop=5, every=1, block=4, wide=40)
    assert list(sparsifier.masks) == ["1"] and not (model[1].weight == 0).any()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    sparsifier.attach(optimizer)
    seen = []
    for _ in range(7):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 6, 6)).square().sum().backward()
        optimizer.step()
        seen.append(sparsifier.sparsity()["1"])
    ramp = [0.0, 0.0, *(0.9 * (1 - (1 - i / 4) ** 3) for i in (1, 2, 3, 4)), 0.9]
    assert seen == pytest.approx(ramp, abs=0.01)
    assert choose_group(model[1].weight) == sc.Group(4, 1)
    for name in ("0", "2", "3", "6", "7"):
        assert not (model.get_submodule(name).weight == 0).any()
    single = fast_sparse_convnets(network(), 0.9, start=0, stop=1, block=4, wide=41)
    assert single.recipe.pattern == ByWidth(sc.Unstructured(), sc.Group(4, 1), 41)


def test_a_rearranged_network_keeps_more() -> None:
    model = network()
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                scale = torch.randn(len(layer.weight)).mul(0.7).exp()
                layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
    x = torch.randn(2, 3, 6, 6)
    expected = model(x)
    plain, moved = copy.deepcopy(model), copy.deepcopy(model)
    before = {name: float(layer.weight.detach().abs().sum()) for name, layer in inner_layers(model).items()}
    sparse_byte_nn(plain, 0.5, n=8)
    sparse_byte_nn(moved, 0.5, n=8, example=x)
    kept = [
        {
            name: float(net.get_submodule(name).weight.detach().abs().sum()) / before[name]
            for name in ("1", "3", "6")
        }
        for net in (plain, moved)
    ]
    assert all(kept[1][name] > kept[0][name] + 0.03 for name in ("1", "3"))
    assert torch.isfinite(moved(x)).all() and not torch.equal(moved(x), expected)


def test_choose_group() -> None:
    torch.manual_seed(0)
    blocks = (torch.rand(16, 64) < 0.2).repeat_interleave(4, 0)
    assert choose_group(blocks) == sc.Group(4, 1)
    holes = blocks & (torch.rand(64, 64) > 0.15)
    assert choose_group(holes) in (sc.Group(2, 1), sc.Unstructured())
    assert choose_group((torch.rand(32, 64) < 0.2).repeat_interleave(2, 0)) == sc.Group(2, 1)
    assert choose_group(torch.rand(64, 64) < 0.2) == sc.Unstructured()
    assert choose_group(torch.zeros(8, 8, dtype=torch.bool)) == sc.Unstructured()
    assert choose_group(torch.ones(3, 5)) == sc.Group(2, 1)  # no whole group of four
    exact = torch.zeros(4, 10, dtype=torch.bool)
    exact[:, :] = True
    exact[0, :4] = False
    assert choose_group(exact) == sc.Group(4, 1)  # 36 of 40
    exact[1, 0] = False
    assert choose_group(exact) != sc.Group(4, 1)
    with pytest.raises(ValueError, match="choose_group"):
        choose_group(torch.ones(4))


def test_parts_that_fit_nowhere() -> None:
    with pytest.raises(ValueError, match="PerKind: conv"):
        PerKind("16x1", "16x1", "2:4", "4x1")
    with pytest.raises(ValueError, match="rows"):
        Kernels(3)
    with pytest.raises(ValueError, match="leaves the sparsity open"):
        Recipe(SCHEMA)


def test_linear_layers_are_packed_in_their_own_pattern() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
    sparsifier = Sparsifier(model, Recipe(SCHEMA, Absolute(), Uniform(0.5, "layer")))
    x = torch.randn(3, 32)
    expected = model(x)
    packed = sparsifier.finalize()
    assert isinstance(packed[0], sc.nn.SparseLinear)
    assert torch.allclose(packed(x), expected, atol=1e-5)
