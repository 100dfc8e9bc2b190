"""Two processes with different data choose the same zeros, and the ones a single process with all data would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tests.ranks import run_ranks
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.patterns import NM, Unstructured
from sparsecore.sparsify import (
    Constant,
    Fraction,
    GradientGrow,
    MaskedOptimizer,
    Random,
    Recipe,
    Sparsifier,
    Start,
    Uniform,
    magnitude,
    sparsegpt,
)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8))


def batch(index: int) -> Tensor:
    return torch.randn(32, 16, generator=torch.Generator().manual_seed(index))


def train(model: nn.Module, first: int, stride: int) -> dict[str, Tensor]:
    recipe = Recipe(
        Unstructured(),
        allocation=Uniform(0.7, "layer"),
        schedule=Constant(3),
        grow=GradientGrow(Fraction(0.4)),
        start=Start(Random()),
    )
    sparsifier = Sparsifier(model, recipe)
    trained: nn.Module = nn.parallel.DistributedDataParallel(model) if stride > 1 else model
    optimizer = torch.optim.SGD(trained.parameters(), 0.05, momentum=0.9)
    sparsifier.attach(optimizer)
    for step in range(10):
        optimizer.zero_grad()
        indices = range(first, 2, stride) if stride > 1 else range(2)
        loss = torch.stack([trained(batch(2 * step + index)).square().mean() for index in indices]).mean()
        loss.backward()
        optimizer.step()
    return sparsifier.masks


def agree(rank: int, folder: Path) -> None:
    pruned = network()
    once = sparsegpt(pruned, NM(2, 4), [batch(100 + rank)], progress=False)
    found = {"once": once, "weights": pruned.state_dict(), "trained": train(network(), rank, 2)}
    torch.save(found, folder / f"{rank}.pt")


def shard(rank: int, folder: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    refusals = []

    def refused(call: Callable[[], object]) -> None:
        try:
            call()
        except TypeError as error:
            refusals.append(str(error))

    weight = network()[0].weight.detach().clone()
    pruned = network()
    masks = magnitude(pruned, NM(2, 4), progress=False)
    fully_shard(pruned, mesh=init_device_mesh("cpu", (2,)))
    refused(lambda: magnitude(pruned, NM(2, 4), progress=False))
    refused(lambda: Sparsifier(pruned, Recipe(Unstructured(), allocation=Uniform(0.5))))
    refused(lambda: sc.sparsify_(pruned, "2:4"))
    # Keeping zeros needs no whole weight.
    optimizer = MaskedOptimizer(torch.optim.Adam(pruned.parameters(), 0.1), pruned)
    for step in range(3):
        optimizer.zero_grad()
        pruned(batch(2 * step + rank)).square().mean().backward()
        optimizer.step()
    learned = pruned[0].weight.full_tensor().detach()
    kept = masks["0"]
    zeros = bool((learned[~kept] == 0).all()) and bool((learned[kept] != weight[kept]).all())
    wrapped = FullyShardedDataParallel(network(), device_id=torch.device("cpu"))
    refused(lambda: magnitude(wrapped, NM(2, 4), progress=False))
    refused(lambda: sc.sparsify_(wrapped, "2:4"))
    torch.save({"refusals": refusals, "zeros": zeros}, folder / f"{rank}.pt")


def test_spread_weights_are_refused_and_keep_their_zeros(tmp_path: Path) -> None:
    run_ranks(shard, tmp_path)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert [text.split(":")[0] for text in found["refusals"]] == [
            "prune_once",
            "Sparsifier",
            "sparsify_",
            "prune_once",
            "sparsify_",
        ]
        assert all("Prune the plain model" in text for text in found["refusals"])
        assert found["zeros"]


def test_all_processes_agree(tmp_path: Path) -> None:
    run_ranks(agree, tmp_path)
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for part in ("once", "weights", "trained"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items()), part
    alone = network()
    masks = sparsegpt(alone, NM(2, 4), [batch(100), batch(101)], progress=False)
    assert all(torch.equal(mask, one["once"][name]) for name, mask in masks.items())
    single = train(network(), 0, 1)
    assert all(torch.equal(mask, one["trained"][name]) for name, mask in single.items())
