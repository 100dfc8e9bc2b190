"""2:4 along inputs and along outputs: the pattern, and sparsifiers that train under it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore import sparsify
from sparsecore.reference import two_way_mask
from sparsecore.sparsify import SRSTE, STE, Constant, Cubic, EveryForward, Hard, Recipe, Sparsifier

TWO_WAY = sc.NM(2, 4, two_way=True)


def fits(mask: Tensor) -> bool:
    """At most two of four neighbours, in both directions: counted plainly."""
    rows, columns = mask.shape
    return all(
        int(line[start : start + 4].sum()) <= 2
        for lines, width in ((mask, columns), (mask.T, rows))
        for line in lines
        for start in range(0, width, 4)
    )


def test_the_pattern_and_its_name() -> None:
    assert sc.pattern("2:4-two-way") == TWO_WAY != sc.NM(2, 4)
    assert sc.patterns.pattern_name(TWO_WAY) == "2:4-two-way"
    assert eval(repr(TWO_WAY), {"NM": sc.NM}) == TWO_WAY
    assert "along inputs and along outputs" in str(TWO_WAY)
    for n, m, vector in ((1, 4, 1), (2, 8, 1), (2, 4, 4)):
        with pytest.raises(ValueError, match=r"two_way is for NM\(2, 4\)"):
            sc.NM(n, m, vector, two_way=True)
    with pytest.raises(TypeError, match="two_way must be a bool"):
        sc.NM(2, 4, 1, "yes")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(16, 32), (13, 22), (4, 3), (1, 9), (0, 8)], ids=str)
@pytest.mark.parametrize("layout", ["row_lists", "group_lists", "semi_structured"])
def test_packing_chooses_and_checks_both_directions(shape: tuple[int, int], layout: str) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape)
    packed = sc.pack(weight, "2:4-two-way", layout=layout).validate()
    dense = packed.to_dense()
    assert torch.equal(dense, weight * two_way_mask(weight.abs()))
    assert fits(dense != 0)
    assert sc.check_pattern(dense, TWO_WAY).ok
    if min(shape) > 4:
        by_row = sc.formats.select.select_mask(weight.abs(), sc.NM(2, 4))
        report = sc.check_pattern(weight * by_row, TWO_WAY)
        assert not report.ok and not fits(by_row)
        row, column = report.first
        assert not fits(by_row[row : row + 4, column : column + 4])
        with pytest.raises(ValueError, match=f"breaks 2:4 .* first at row {row}, column {column}"):
            sc.pack(weight, TWO_WAY, by_row, layout=layout)
    sideways = torch.zeros(8, 8, dtype=torch.bool)
    sideways[:, 5] = True  # keeps one of four inputs, and all outputs
    assert not sc.check_pattern(sideways.float(), TWO_WAY).ok


@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "alps"])
def test_one_shot_methods_follow_it(method: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(18, 24), nn.ReLU(), nn.Linear(24, 10))
    data = [] if method == "magnitude" else [[torch.randn(64, 18)]]
    masks = getattr(sparsify, method)(model, TWO_WAY, *data, progress=False)
    assert all(
        fits(mask) and fits(layer.weight != 0) for mask, layer in zip(masks.values(), model[::2], strict=True)
    )
    assert all(0.4 < float(mask.float().mean()) <= 0.6 for mask in masks.values())


RECIPES = {
    "sr_ste": sparsify.sr_ste("2:4-two-way", decay=0.01),
    "every third step": Recipe(TWO_WAY, schedule=Constant(3), gradient=STE()),
    "until step 6": Recipe(TWO_WAY, schedule=Constant(2, 6), gradient=SRSTE(0.01)),
    "dense at first": Recipe(TWO_WAY, schedule=Cubic(3, 7, 2), gradient=STE()),
    "hard": Recipe(TWO_WAY, schedule=Cubic(3, 7, 2), gradient=Hard()),
}


@pytest.mark.parametrize("name", RECIPES)
def test_masks_are_right_at_every_refresh(name: str) -> None:
    torch.manual_seed(0)
    recipe = RECIPES[name]
    model = nn.Sequential(nn.Linear(18, 24), nn.ReLU(), nn.Linear(24, 10))
    sparsifier = Sparsifier(model, recipe)
    optimizer = torch.optim.SGD(model.parameters(), 0.3, momentum=0.9)
    sparsifier.attach(optimizer)
    x, moved, refreshed = torch.randn(32, 18), 0, 0
    for step in range(10):
        before = copy.deepcopy(sparsifier.masks)
        optimizer.zero_grad()
        model(x).square().sum(1).mean().backward()
        optimizer.step()
        for key, mask in sparsifier.masks.items():
            layer = model.get_submodule(key)
            stored = sparsifier._parameters[key].detach()
            assert torch.equal(layer.weight, stored * mask)
            if recipe.schedule.is_update(step):
                refreshed += 1
                assert fits(mask)
                assert recipe.gradient == Hard() or torch.equal(mask, two_way_mask(stored.square()))
            else:
                assert torch.equal(mask, before[key])
        moved += sum(int((mask ^ before[key]).sum()) for key, mask in sparsifier.masks.items())
    assert moved > 0 and refreshed >= 4
    packed = sparsifier.finalize()
    assert packed[0].pattern == TWO_WAY
    assert torch.equal(packed[0].weight.mask(), sparsifier.masks["0"])


@pytest.mark.parametrize("rule", [STE(), SRSTE(0.1)], ids=str)
def test_gradients(rule: STE | SRSTE) -> None:
    """Differences in x and in the kept weights; weights that are out learn straight through, and fade."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 7)).double()
    sparsifier = Sparsifier(model, replace(RECIPES["sr_ste"], gradient=rule))
    layer, mask = model[0], sparsifier.masks["0"]
    stored = layer.parametrizations.weight.original
    x = torch.randn(3, 5, 10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (x,))
    direction = torch.randn(3, 5, 7, dtype=torch.float64)
    (model(x) * direction).sum().backward()
    through = direction.flatten(0, 1).T @ x.detach().flatten(0, 1)
    torch.testing.assert_close(stored.grad, through + rule.decay * stored.detach() * ~mask)
    kept = stored.detach()[mask].requires_grad_()

    def of_kept(values: Tensor) -> Tensor:
        weight = torch.zeros(7, 10, dtype=torch.float64).masked_scatter(mask, values)
        return nn.functional.linear(x.detach(), weight, layer.bias.detach())

    assert torch.autograd.gradcheck(of_kept, (kept,))
    (by_kept,) = torch.autograd.grad((of_kept(kept) * direction).sum(), kept)
    torch.testing.assert_close(stored.grad[mask], by_kept)


def test_a_packed_model_is_saved_and_trains_on(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(18, 24), nn.ReLU(), nn.Linear(24, 10))
    model = Sparsifier(model, RECIPES["sr_ste"]).finalize()
    sc.save(model, tmp_path / "model.safetensors")
    loaded = sc.load(
        nn.Sequential(nn.Linear(18, 24), nn.ReLU(), nn.Linear(24, 10)), tmp_path / "model.safetensors"
    )
    x = torch.randn(5, 18)
    assert loaded[0].pattern == TWO_WAY
    assert torch.equal(loaded(x), model(x))
    loaded(x).sum().backward()
    assert loaded[0].weight_values.grad is not None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="exchanges single weights"):
        Recipe(TWO_WAY, schedule=Constant(5), grow=sparsify.RandomGrow())
    with pytest.raises(ValueError, match="EveryForward with Hard"):
        Recipe(TWO_WAY, schedule=EveryForward())
    with pytest.raises(ValueError, match="fixes the sparsity"):
        sc.pack(torch.randn(8, 8), TWO_WAY, sparsity=0.75)
