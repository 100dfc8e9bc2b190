"""Training with masks: exact counts, zeros that stay, exchanges that keep the pattern, resuming bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.patterns import NM, VNM, Group, Unstructured
from sparsecore.sparsify import (
    SRSTE,
    STE,
    Constant,
    Cubic,
    EveryForward,
    Fraction,
    GradientGrow,
    Hard,
    Magnitude,
    MomentumGrow,
    OneShot,
    Random,
    RandomGrow,
    Recipe,
    Saliency,
    Sparsifier,
    Start,
    UnfiredGrow,
    Uniform,
)
from sparsecore.sparsify.exchange import competitors, exchange


def network(width: int = 24) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8)
    )


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    first: int = 0,
    each: Callable[[], None] = lambda: None,
) -> None:
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(32, 16, generator=generator)
        y = torch.tanh(x[:, :8] * 2)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        each()


def counts(sparsifier: Sparsifier) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in sparsifier.masks.items()}


RIGL = Recipe(
    Unstructured(),
    allocation=Uniform(0.8, "layer"),
    schedule=Constant(every=5, stop=200),
    grow=GradientGrow(Fraction(0.3, 200)),
    start=Start(Random(0)),
)


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-2),
        lambda parameters: torch.optim.Adam(parameters, 1e-2),
        lambda parameters: torch.optim.AdamW(parameters, 1e-2, weight_decay=0.1, amsgrad=True),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_zeros_stay_zero_with_momentum_and_decay(make: Callable[..., torch.optim.Optimizer]) -> None:
    model = network()
    optimizer = make(model.parameters())
    recipe = Recipe(Unstructured(), allocation=Uniform(0.7, "layer"))
    sparsifier = Sparsifier(model, recipe).attach(optimizer)
    before = copy.deepcopy(sparsifier.masks)
    train(model, optimizer, 50)
    for name, mask in sparsifier.masks.items():
        weight = model.get_submodule(name).weight
        assert torch.equal(mask, before[name])
        assert int(mask.sum()) == round(0.3 * mask.numel())
        assert torch.equal(weight != 0, mask)
        for value in optimizer.state[weight].values():
            if value.shape == weight.shape:
                assert not value[~mask].any()


def test_cubic_ramp_is_monotone_and_exact() -> None:
    schedule = Cubic(start=10, stop=107, every=20, initial=0.1)
    levels = [schedule.sparsity(0.9, step) for step in range(120)]
    assert levels == sorted(levels)
    assert levels[10] == 0.1
    assert levels[107] == levels[-1] == 0.9
    assert [step for step in range(120) if schedule.is_update(step)] == [10, 30, 50, 70, 90, 107]

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    recipe = Recipe(Unstructured(), allocation=Uniform(0.9, "layer"), schedule=Cubic(0, 40, 10))
    sparsifier = Sparsifier(model, recipe).attach(optimizer)
    seen: list[dict[str, Tensor]] = []
    train(model, optimizer, 45, each=lambda: seen.append(copy.deepcopy(sparsifier.masks)))
    for earlier, later in pairwise(seen):
        assert all(not (later[name] & ~earlier[name]).any() for name in later)  # gone is gone
    assert all(int(mask.sum()) == round(0.1 * mask.numel()) for mask in seen[-1].values())


@pytest.mark.parametrize(
    "grow",
    [
        RandomGrow(Fraction(0.3)),
        UnfiredGrow(Fraction(0.3)),
        GradientGrow(Fraction(0.3)),
        MomentumGrow(Fraction(0.3)),
    ],
    ids=lambda grow: type(grow).__name__,
)
@pytest.mark.parametrize("within", ["layer", "row"])
def test_exchanges_keep_every_count(grow: object, within: str) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    recipe = replace(RIGL, grow=grow, allocation=Uniform(0.8, within))
    sparsifier = Sparsifier(model, recipe).attach(optimizer)
    first, rows = counts(sparsifier), {name: mask.sum(1) for name, mask in sparsifier.masks.items()}
    start = copy.deepcopy(sparsifier.masks)

    def check() -> None:
        assert counts(sparsifier) == first
        if within == "row":
            assert all(torch.equal(mask.sum(1), rows[name]) for name, mask in sparsifier.masks.items())

    train(model, optimizer, 60, each=check)
    assert any(not torch.equal(mask, start[name]) for name, mask in sparsifier.masks.items())
    assert sparsifier.explored() > 0.2


@pytest.mark.parametrize(
    "pattern", [NM(2, 4), NM(2, 8, vector=8), VNM(16, 2, 8), Group(8, 1), Group(4, 4)], ids=str
)
def test_exchanges_keep_the_pattern(pattern: sc.Pattern) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    allocation = Uniform(None) if isinstance(pattern, (NM, VNM)) else Uniform(0.5, "layer")
    recipe = Recipe(
        pattern,
        allocation=allocation,
        schedule=Constant(5),
        grow=GradientGrow(Fraction(0.3)),
        start=Start(Random()),
    )
    sparsifier = Sparsifier(model, recipe).attach(optimizer)
    start = copy.deepcopy(sparsifier.masks)
    train(model, optimizer, 30)
    for name, mask in sparsifier.masks.items():
        assert int(mask.sum()) == int(start[name].sum())
        assert sc.check_pattern(mask.float(), pattern).ok
    assert any(not torch.equal(mask, start[name]) for name, mask in sparsifier.masks.items())


def test_update_step_of_rigl_spends_the_gradient_on_the_mask() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    sparsifier = Sparsifier(model, RIGL).attach(optimizer)
    train(model, optimizer, 5)  # steps 0 to 4
    old, weights = copy.deepcopy(sparsifier.masks), copy.deepcopy(model.state_dict())
    assert sparsifier.needs_dense_grad()
    train(model, optimizer, 1, first=5)  # the update
    for name, mask in sparsifier.masks.items():
        layer = model.get_submodule(name)
        stayed, grown = mask & old[name], mask & ~old[name]
        assert grown.any()
        assert torch.equal(layer.weight[stayed], weights[f"{name}.weight"][stayed])
        assert not layer.weight[grown].any()
        assert not optimizer.state[layer.weight]["momentum_buffer"][grown].any()
        assert torch.equal(layer.bias, weights[f"{name}.bias"])
        assert layer.weight.grad is not None
        # what grew has the largest gradients among what was free after the drop
        free = ~stayed
        assert layer.weight.grad[grown].abs().min() >= layer.weight.grad[free & ~mask].abs().max()


def test_fraction_ends_and_the_mask_freezes() -> None:
    fraction = Fraction(0.3, stop=200)
    assert fraction.at(0) == pytest.approx(0.3)
    assert fraction.at(100) == pytest.approx(0.15)
    assert fraction.at(200) == pytest.approx(0.0)
    assert not any(RIGL.schedule.is_update(step) for step in range(200, 400))


def test_rigl_finds_the_support_of_a_sparse_teacher() -> None:
    """Random static masks cannot: the loss of RigL ends at least ten times lower."""
    torch.manual_seed(3)
    truth = torch.randn(64, 64) * (torch.rand(64, 64) < 0.05)
    losses: dict[str, float] = {}
    for name in ("rigl", "static"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64, bias=False))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        recipe = replace(
            RIGL,
            allocation=Uniform(0.9, "layer"),
            schedule=Constant(20, 900),
            grow=GradientGrow(Fraction(0.3, 900)),
        )
        if name == "static":
            recipe = replace(recipe, schedule=OneShot(), grow=None)
        sparsifier = Sparsifier(model, recipe).attach(optimizer)
        generator = torch.Generator().manual_seed(1)
        for _ in range(1200):
            x = torch.randn(64, 64, generator=generator)
            optimizer.zero_grad()
            loss = (model(x) - x @ truth.T).square().mean()
            loss.backward()
            optimizer.step()
        losses[name] = loss.item()
        if name == "rigl":
            found = sparsifier.masks["0"] & (truth != 0)
            assert int(found.sum()) > 0.9 * int((truth != 0).sum())
    assert losses["rigl"] < 0.1 * losses["static"]


def test_exchange_of_nothing_is_gradual_pruning_bit_for_bit() -> None:
    results = []
    for grow in (None, GradientGrow(Fraction(0.0), skip_update=False)):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        recipe = Recipe(
            Unstructured(),
            allocation=Uniform(0.8, "layer"),
            schedule=Cubic(0, 30, 5, update_until=50),
            grow=grow,
        )
        Sparsifier(model, recipe).attach(optimizer)
        train(model, optimizer, 60)
        results.append(model.state_dict())
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())


@pytest.mark.parametrize("pattern", [NM(1, 4), NM(2, 4), NM(2, 8), NM(1, 16), NM(2, 4, vector=4)], ids=str)
def test_sr_ste_follows_its_formula(pattern: NM) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(18, 12))  # the last group of a row is short
    rule = SRSTE(0.1)
    sparsifier = Sparsifier(model, Recipe(pattern, schedule=EveryForward(), gradient=rule))
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    sparsifier.attach(optimizer)
    x, direction = torch.randn(5, 18), torch.randn(5, 12)
    layer = model[0]
    for _ in range(3):
        stored = layer.parametrizations.weight.original
        mask = sparsifier.masks["0"].clone()
        assert torch.equal(layer.weight, stored * mask)
        assert sc.check_pattern(mask.float(), pattern).ok
        optimizer.zero_grad()
        (model(x) * direction).sum().backward()
        expected = direction.T @ x + 0.1 * stored.detach() * ~mask
        torch.testing.assert_close(stored.grad, expected)
        before = stored.detach().clone()
        optimizer.step()
        torch.testing.assert_close(stored.detach(), before - 0.5 * expected)
    sparsifier.finalize()
    assert isinstance(model[0], sc.nn.SparseLinear)
    torch.testing.assert_close(model(x), nn.functional.linear(x, stored * sparsifier.masks["0"], layer.bias))


def test_decay_calms_the_mask() -> None:
    """The mask of SR-STE moves less at the end of training than that of a plain straight-through gradient."""
    moved = []
    for gradient in (STE(), SRSTE(0.05)):
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        recipe = Recipe(NM(2, 4), schedule=EveryForward(), gradient=gradient)
        sparsifier = Sparsifier(model, recipe).attach(optimizer)
        train(model, optimizer, 150)
        before = copy.deepcopy(sparsifier.masks)
        train(model, optimizer, 50, first=150)
        moved.append(sum(int((mask ^ before[name]).sum()) for name, mask in sparsifier.masks.items()))
    assert moved[1] < moved[0]


@pytest.mark.parametrize(
    "recipe",
    [
        RIGL,
        Recipe(NM(2, 4), schedule=EveryForward(), gradient=SRSTE()),
        Recipe(Unstructured(), allocation=Uniform(0.8, "row"), schedule=Cubic(0, 30, 4)),
        replace(RIGL, grow=RandomGrow(Fraction(0.3))),
        Recipe(NM(2, 4, two_way=True), schedule=Constant(4), gradient=SRSTE()),
    ],
    ids=["rigl", "sr-ste", "gmp", "set", "two-way"],
)
def test_resumes_bit_for_bit(recipe: Recipe) -> None:
    def begin() -> tuple[nn.Module, torch.optim.Optimizer, Sparsifier]:
        model = network()
        sparsifier = Sparsifier(model, recipe)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        return model, optimizer, sparsifier.attach(optimizer)

    model, optimizer, sparsifier = begin()
    train(model, optimizer, 13)
    kept = copy.deepcopy([model.state_dict(), optimizer.state_dict(), sparsifier.state_dict()])
    train(model, optimizer, 17, first=13)

    resumed, other, again = begin()
    train(resumed, other, 3)  # whatever was there is overwritten
    resumed.load_state_dict(kept[0])
    other.load_state_dict(kept[1])
    again.load_state_dict(kept[2])
    train(resumed, other, 17, first=13)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(mask, again.masks[name]) for name, mask in sparsifier.masks.items())


def test_damaged_states_change_nothing() -> None:
    sparsifier = Sparsifier(network(), RIGL)
    good = sparsifier.state_dict()
    masks = copy.deepcopy(sparsifier.masks)
    short = {**good, "masks": {**good["masks"], "0": good["masks"]["0"][:3]}}
    other = {**good, "recipe": replace(RIGL, score=Random(1)).to_dict()}
    for bad in ({}, {**good, "version": 99}, {**good, "step": -1}, short, other, {**good, "masks": {}}):
        with pytest.raises(ValueError, match="load_state_dict"):
            sparsifier.load_state_dict(bad)
    assert sparsifier.step == 0
    assert all(torch.equal(mask, masks[name]) for name, mask in sparsifier.masks.items())


def test_convolutions_group_along_input_channels() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 16, 4))
    sparsifier = Sparsifier(model, Recipe(NM(2, 4)), targets=("Conv2d", "Linear"))
    mask = sparsifier.masks["0"]
    assert mask.shape == (6, 8, 3, 3)
    assert (mask.view(6, 2, 4, 3, 3).sum(2) == 2).all()
    x = torch.randn(2, 8, 6, 6)
    expected = model(x)
    sparsifier.finalize()
    assert isinstance(model[3], sc.nn.SparseLinear)
    torch.testing.assert_close(model(x), expected)


def test_gradients_are_masked_for_clipping() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Sparsifier(model, Recipe(Unstructured(), allocation=Uniform(0.9, "layer"))).attach(optimizer)
    model(torch.randn(4, 16)).sum().backward()
    assert all(
        not model.get_submodule(name).weight.grad[~mask].any() for name, mask in sparsifier.masks.items()
    )
    sparsifier.detach()
    optimizer.zero_grad()
    model(torch.randn(4, 16)).sum().backward()
    assert any(model.get_submodule(name).weight.grad[~mask].any() for name, mask in sparsifier.masks.items())


def test_gradient_scaler_steps_that_are_skipped_do_not_count() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier = Sparsifier(model, RIGL).attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for factor in (1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(4, 16)).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    assert sparsifier.step == 2
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # torch.compile's own doing
def test_wrapped_in_torch_compile() -> None:
    model = network()
    recipe = Recipe(NM(2, 4), schedule=EveryForward(), gradient=SRSTE())
    sparsifier = Sparsifier(model, recipe)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    sparsifier.attach(optimizer)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    train(compiled, optimizer, 5)
    plain = network()
    again = Sparsifier(plain, recipe)
    other = torch.optim.SGD(plain.parameters(), 0.05)
    again.attach(other)
    train(plain, other, 5)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name])


def test_recipes_survive_json() -> None:
    for recipe in (
        RIGL,
        Recipe(NM(2, 4, 16), schedule=EveryForward(), gradient=SRSTE(0.1)),
        Recipe(NM(2, 4, two_way=True), schedule=Constant(4), gradient=STE()),
        Recipe(Group(8, 1), allocation=Uniform(0.5), schedule=Cubic(1, 9, 2)),
    ):
        assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Recipe(Unstructured(), allocation=Uniform(0.5), grow=RandomGrow()),
            "needs a mask that changes",
        ),
        (lambda: Recipe(NM(2, 4), gradient=STE()), "needs a mask that changes"),
        (lambda: Recipe(NM(2, 4), schedule=EveryForward()), "EveryForward with Hard"),
        (
            lambda: Recipe(NM(2, 4), schedule=EveryForward(), gradient=STE(), grow=RandomGrow()),
            "needs a mask that persists",
        ),
        (
            lambda: Recipe(NM(2, 4), schedule=Constant(5), gradient=STE(), grow=RandomGrow()),
            "nothing can be grown",
        ),
        (lambda: Recipe(NM(2, 4), schedule=Cubic(0, 10, initial=0.3)), "fixes the sparsity"),
        (
            lambda: Recipe(NM(2, 4), sc.sparsify.Wanda(), schedule=Constant(5)),
            "needs calibration",
        ),
        (lambda: Recipe(NM(2, 4), weights=sc.sparsify.OBS(), schedule=Constant(5)), "rewrites weights once"),
        (lambda: Cubic(5, 5), "start < stop"),
        (lambda: Constant(0), "at least 1"),
        (lambda: Fraction(1.5), "initial <= 1"),
        (lambda: SRSTE(-1.0), "not negative"),
        (lambda: Recipe.from_dict({"pattern": "2:4", "speed": "fast"}), "unknown part 'speed'"),
        (lambda: Recipe.from_dict({"pattern": "2:4", "score": "Wunder"}), "unknown kind 'Wunder'"),
        (lambda: Recipe.from_dict({"pattern": "2:4", "gradient": {"kind": "SRSTE", "decai": 1}}), "no field"),
        (lambda: Recipe.from_dict({"score": "Magnitude"}), "needs a pattern"),
        (lambda: Sparsifier(network(), RIGL, targets=["nothing"]), "matches"),
        (lambda: Sparsifier(network(), RIGL, masks={"9": torch.ones(1).bool()}), "not targets"),
        (lambda: Sparsifier(network(), RIGL, masks={"0": torch.ones(2, 2).bool()}), "must be bool of shape"),
        (
            lambda: Sparsifier(network(), Recipe(Unstructured(), Saliency(), Uniform(0.5, "layer"))),
            "needs data",
        ),
        (
            lambda: Sparsifier(network(), RIGL).attach(torch.optim.SGD(network().parameters(), 0.1)),
            "does not hold the weight",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_diverged_training_is_named() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    Sparsifier(
        model, Recipe(Unstructured(), allocation=Uniform(0.5, "layer"), schedule=Cubic(0, 4, 1))
    ).attach(optimizer)
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite at step 0"):
        train(model, optimizer, 1)


def test_exchange_by_hand() -> None:
    active = torch.tensor([[True, True, False, False], [True, False, False, True]])
    score = torch.tensor([[1.0, 5.0, 0.0, 0.0], [2.0, 0.0, 0.0, 9.0]])
    growth = torch.tensor([[0.0, 0.0, 3.0, 7.0], [0.0, 8.0, 1.0, 0.0]])
    layer = exchange(active, score, growth, 2, competitors(Unstructured(), "layer", active.shape))
    assert layer.tolist() == [[False, True, False, True], [False, True, False, True]]
    rows = exchange(active, score, growth, 1, competitors(Unstructured(), "row", active.shape))
    assert rows.tolist() == [[False, True, False, True], [True, False, False, True]]
    pairs = exchange(active, score, growth, 1, competitors(NM(1, 2), "row", active.shape))
    assert pairs.tolist() == active.tolist()  # the weakest comes back: in its pair nobody offers more


def test_magnitude_only_needs_no_gradient() -> None:
    sparsifier = Sparsifier(
        network(), Recipe(Unstructured(), Magnitude(), Uniform(0.5, "layer"), gradient=Hard())
    )
    assert not sparsifier.needs_dense_grad()
    sparsifier.squash()
