"""SparseLinear under DistributedDataParallel: two processes train as one does on the whole batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from tests.ranks import RANKS, run_ranks

STEPS, BATCH = 3, 16

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo",
)


PATTERNS = ("2:4", "2:4/16")


def _model(pattern: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        sc.nn.SparseLinear(64, 48, pattern=pattern), nn.GELU(), sc.nn.SparseLinear(48, 32, pattern=pattern)
    )


def _train(model: nn.Module, input: Tensor, target: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        (model(input) - target).square().mean().backward()
        optimizer.step()


def _train_share(rank: int, folder: Path) -> None:
    batch = torch.load(folder / "batch.pt")
    share = slice(rank * BATCH // RANKS, (rank + 1) * BATCH // RANKS)
    for index, pattern in enumerate(PATTERNS):
        model = _model(pattern, seed=rank)  # rank 0 decides which weights are kept: DDP sends buffers
        parallel = nn.parallel.DistributedDataParallel(model)
        _train(parallel, batch["input"][share], batch["target"][share])
        torch.save(model.state_dict(), folder / f"{index} {rank}.pt")


def test_ranks_agree_with_each_other_and_with_one_process(tmp_path: Path) -> None:
    batch = {"input": torch.randn(BATCH, 64), "target": torch.randn(BATCH, 32)}
    torch.save(batch, tmp_path / "batch.pt")
    run_ranks(_train_share, tmp_path)
    for index, pattern in enumerate(PATTERNS):
        first, second = (torch.load(tmp_path / f"{index} {rank}.pt") for rank in range(RANKS))
        single = _model(pattern, seed=0)
        start = {key: tensor.clone() for key, tensor in single.state_dict().items()}
        _train(single, **batch)
        expected = single.state_dict()
        assert first.keys() == second.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.equal(first[key], second[key]), (pattern, key)
            torch.testing.assert_close(first[key], tensor, rtol=1e-5, atol=1e-6)
            trained = key.endswith(("weight_values", "bias"))
            assert torch.equal(tensor, start[key]) != trained, (pattern, key)
