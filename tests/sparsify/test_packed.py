"""Exchanges inside packed layers: counts, patterns, survivors and their optimizer state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sparsecore as sc
from sparsecore.sparsify import exchange_

PATTERNS = [
    (sc.Unstructured(), 0.8),
    (sc.NM(2, 4), None),
    (sc.NM(1, 4, vector=16), None),
    (sc.VNM(16, 2, 8), None),
    (sc.VNM(32, 2, 5), None),
    (sc.Group(8, 1), 0.7),
    (sc.Group(4, 4), 0.7),
]


@pytest.mark.parametrize(("pattern", "sparsity"), PATTERNS, ids=[str(pattern) for pattern, _ in PATTERNS])
@pytest.mark.parametrize("make", [torch.optim.Adam, lambda p: torch.optim.SGD(p, 0.01, momentum=0.9)])
def test_exchange(pattern: sc.Pattern, sparsity: float | None, make: type[torch.optim.Optimizer]) -> None:
    model = nn.Sequential(nn.Linear(50, 64), nn.ReLU(), nn.Linear(64, 10))
    sc.sparsify_(model, pattern, sparsity=sparsity)
    optimizer = make(model.parameters())
    x = torch.randn(32, 50)
    for step in range(4):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        layer = model[0]
        parameter, old = layer.weight_values, layer.weight
        mask, dense = old.mask(), old.to_dense()
        state = {k: v.clone() for k, v in optimizer.state[parameter].items() if v.shape == parameter.shape}
        states = {k: old.with_values(v).to_dense() for k, v in state.items()}
        count = int(mask.sum())
        assert exchange_(model, optimizer, 0.3, step=step) > 0
        assert layer.weight_values is parameter
        new = layer.weight.validate()
        assert int(new.mask().sum()) == count
        stayed, grown = mask & new.mask(), new.mask() & ~mask
        assert grown.any()
        assert torch.equal(new.to_dense()[stayed], dense[stayed])
        assert not new.to_dense()[grown].any()
        for name, value in states.items():
            moved = new.with_values(optimizer.state[parameter][name]).to_dense()
            assert torch.equal(moved[stayed], value[stayed])
            assert not moved[grown].any()


@pytest.mark.parametrize("shape", [(40, 50), (16, 3), (7, 64), (33, 8)], ids=str)
@pytest.mark.parametrize("pattern", [sc.VNM(16, 2, 8), sc.VNM(32, 2, 5)], ids=str)
def test_vnm_exchanges_weights_and_what_runs_pick(pattern: sc.VNM, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(shape[1], shape[0]))
    sc.sparsify_(model, pattern)
    first = model[0].weight.mask()

    def counts(mask: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(mask, (0, -shape[1] % pattern.m))
        return padded.view(shape[0], -1, pattern.m).sum(-1)

    def picked(mask: torch.Tensor) -> torch.Tensor:
        padded = nn.functional.pad(mask, (0, 0, 0, -shape[0] % pattern.vector))
        return padded.view(-1, pattern.vector, shape[1]).any(1)

    for step in range(6):
        before, dense = model[0].weight.mask(), model[0].weight.to_dense()
        moved = exchange_(model, None, 0.4, step=step, init=0.1, score="magnitude")
        mask, weight = model[0].weight.mask(), model[0].weight.validate().to_dense()
        assert sc.check_pattern(mask.float(), pattern).ok
        assert torch.equal(counts(mask), counts(before))
        assert int((mask & ~before).sum()) == moved <= int(0.4 * int(before.sum()))
        assert torch.equal(weight[mask & before], dense[mask & before])
        gone = before & ~mask
        if pattern.vector == 16 and shape[1] > 8 and shape[0] > 16:
            assert moved > 0.2 * int(before.sum())
            assert dense[gone].abs().mean() < dense[before & mask].abs().mean()
    if shape[1] > 8:
        assert not torch.equal(picked(first), picked(model[0].weight.mask()))
    assert exchange_(model, None, 0.0) == 0
    assert torch.equal(model[0].weight.mask(), mask)


def test_narrow_groups_exchange_too() -> None:
    model = nn.Sequential(nn.Linear(3, 8))  # fewer inputs than a group
    sc.sparsify_(model, "2:4")
    assert exchange_(model, None, 1.0) >= 0
    assert torch.equal(model[0].weight.mask().sum(1), torch.full((8,), 2))


def test_draws_are_reproducible_and_new_weights_can_be_random() -> None:
    def once(step: int) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(32, 32))
        sc.sparsify_(model, "unstructured", sparsity=0.9)
        exchange_(model, None, 0.5, step=step, init=0.1)
        return model[0].weight.to_dense()

    assert torch.equal(once(1), once(1))
    assert not torch.equal(once(1), once(2))
    assert int((once(1) != 0).sum()) == round(0.1 * 32 * 32)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="no trainable SparseLinear"):
        exchange_(nn.Sequential(nn.Linear(4, 4)), None, 0.3)
    model = nn.Sequential(nn.Linear(4, 4))
    sc.sparsify_(model, "2:4")
    both_ways = nn.Sequential(sc.nn.SparseLinear(8, 8, pattern="2:4-two-way"))
    with pytest.raises(ValueError, match=r"'0' keeps 2:4 .* Train it under a Sparsifier"):
        exchange_(both_ways, None, 0.3)
    with pytest.raises(ValueError, match="fraction in"):
        exchange_(model, None, 1.5)
    with pytest.raises(ValueError, match="float32 values"):
        model[0].replace_weight(sc.pack(torch.randn(4, 4), "2:4", dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="4 x 4"):
        model[0].replace_weight(sc.pack(torch.randn(8, 4), "2:4"))


def test_exchange_in_convolutions() -> None:
    conv = nn.Conv2d(8, 12, 3)
    model = nn.Sequential(sc.nn.SparseConv2d.from_dense(conv, "4x1", sparsity=0.6))
    before = model[0].weight
    kept, mask = before.to_dense().clone(), before.mask().clone()
    moved = exchange_(model, None, 0.3, seed=1)
    after = model[0].weight.validate()
    assert moved > 0
    assert after.stored == int(mask.sum())
    assert not torch.equal(after.mask(), mask)
    stayed = after.mask() & mask
    assert torch.equal(after.to_dense()[stayed], kept[stayed])
