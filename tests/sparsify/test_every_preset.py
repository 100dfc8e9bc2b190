"""What holds for every preset: it resumes bit for bit and depends on no luck and no number of threads."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sparsecore.patterns import NM, Unstructured
from sparsecore.sparsify import (
    Recipe,
    Sparsifier,
    Uniform,
    alps,
    asp,
    evolutionary,
    gmp,
    granet,
    grasp,
    magnitude,
    masks_from_scores,
    rigl,
    snip,
    sparsegpt,
    sr_ste,
    static_random,
    synflow,
    wanda,
)

TRAINED = {
    "gmp": gmp(0.8, start=2, stop=20, every=3),
    "static_random": static_random(0.8),
    "evolutionary": evolutionary(0.8, steps=40, every=4),
    "rigl": rigl(0.8, steps=40, every=4),
    "granet": granet(0.8, steps=40, stop=20, every=4),
    "sr_ste": sr_ste("2:4"),
}


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    return (model(batch) - batch[:, :8]).square().mean()


def data(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(16, 16, generator=generator)
    return [torch.randn(64, 16, generator=generator) @ mix / 4 for _ in range(count)]


def scored(find: Callable[..., dict[str, Tensor]]) -> Callable[[nn.Module], dict[str, Tensor]]:
    return lambda model: masks_from_scores(model, find(model, data(), loss), 0.8)


ONCE: dict[str, Callable[[nn.Module], dict[str, Tensor]]] = {
    "magnitude": lambda model: magnitude(model, NM(2, 4), progress=False),
    "wanda": lambda model: wanda(model, NM(2, 4), data(), progress=False),
    "sparsegpt": lambda model: sparsegpt(model, Unstructured(), data(), sparsity=0.6, progress=False),
    "alps": lambda model: alps(model, NM(2, 4, vector=4), data(), progress=False),
    "asp": lambda model: asp(model, pairs=[("0", "2")], progress=False),
    "snip": scored(snip),
    "grasp": scored(grasp),
    "synflow": lambda model: synflow(model, data(1)[0][:1], 0.8),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 40), nn.ReLU(), nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 8))


def train(
    model: nn.Module, sparsifier: Sparsifier | None, steps: range, optimizer: torch.optim.Optimizer
) -> None:
    if sparsifier is not None:
        sparsifier.attach(optimizer)
    batches = data(8)
    for step in steps:
        optimizer.zero_grad()
        loss(model, batches[step % 8]).backward()
        optimizer.step()


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 5e-3)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("name", TRAINED)
def test_training_depends_on_no_thread_and_no_global_seed(name: str) -> None:
    found = []
    before = torch.get_num_threads()
    for threads, seed in ((1, 1), (2, 2)):
        model = network()
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        torch.set_num_threads(threads)
        try:
            sparsifier = Sparsifier(model, TRAINED[name])
            train(model, sparsifier, range(24), adam(model))
        finally:
            torch.set_num_threads(before)
        assert torch.equal(torch.get_rng_state(), state)
        found.append(sparsifier.masks)
    assert same(*found)


@pytest.mark.parametrize("name", ONCE)
def test_pruning_once_depends_on_no_thread_and_no_global_seed(name: str) -> None:
    found = []
    before = torch.get_num_threads()
    for threads, seed in ((1, 1), (2, 2)):
        model = network()
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        torch.set_num_threads(threads)
        try:
            masks = ONCE[name](model)
        finally:
            torch.set_num_threads(before)
        assert torch.equal(torch.get_rng_state(), state)
        assert (
            0.3 < 1 - sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values()) < 0.9
        )
        found.append(masks)
    assert same(*found)


@pytest.mark.parametrize("name", TRAINED)
def test_training_resumes_bit_for_bit(name: str) -> None:
    whole = network()
    straight = Sparsifier(whole, TRAINED[name])
    train(whole, straight, range(30), adam(whole))
    first = network()
    sparsifier, optimizer = Sparsifier(first, TRAINED[name]), adam(first)
    train(first, sparsifier, range(13), optimizer)
    saved = copy.deepcopy((first.state_dict(), sparsifier.state_dict(), optimizer.state_dict()))
    again = network()
    resumed, optimizer = Sparsifier(again, TRAINED[name]), adam(again)
    again.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    optimizer.load_state_dict(saved[2])
    train(again, resumed, range(13, 30), optimizer)
    assert same(whole.state_dict(), again.state_dict())
    assert same(straight.masks, resumed.masks)


def test_nothing_pruned_is_untouched_training() -> None:
    plain, masked = network(), network()
    train(plain, None, range(20), adam(plain))
    train(
        masked, Sparsifier(masked, Recipe(Unstructured(), allocation=Uniform(0.0))), range(20), adam(masked)
    )
    assert same(plain.state_dict(), masked.state_dict())


def _error(method: Callable[..., object], inputs: Tensor, **options: object) -> float:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(inputs.shape[1], 64, bias=False))
    with torch.no_grad():
        wanted = layer(inputs)
        method(layer, Unstructured(), progress=False, **options)
        return float((layer(inputs) - wanted).square().sum() / wanted.square().sum())


def test_wanda_and_sparsegpt_see_the_inputs() -> None:
    """A tenth of the features ten times as large: magnitude is blind to it."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2000, 100, generator=generator)
    x = x + 0.3 * x.roll(1, 1)  # mild correlation
    x[:, :10] *= 10
    blind = _error(magnitude, x, sparsity=0.5, within="row")
    seeing = _error(wanda, x, data=[x], sparsity=0.5)
    correcting = _error(sparsegpt, x, data=[x], sparsity=0.5)
    assert seeing < blind / 3
    assert correcting < seeing


def test_wanda_does_not_see_scales_that_cancel() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(500, 32, generator=generator)
    scale = torch.exp2(torch.randint(-3, 4, (32,), generator=generator).float())
    masks = []
    for factor in (torch.ones(32), scale):
        torch.manual_seed(0)
        layer = nn.Sequential(nn.Linear(32, 16))
        layer[0].weight.data /= factor
        inputs = x * factor
        masks.append(
            wanda(layer, Unstructured(), [inputs[:100], inputs[100:]], sparsity=0.5, progress=False)["0"]
        )
    assert torch.equal(*masks)
