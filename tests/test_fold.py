"""Batch norms folded into the layers in front of them: the same function, and no guess where it is ambiguous."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc


def _trained(model: nn.Module) -> nn.Module:
    """Norms that are not the identity."""
    for norm in model.modules():
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.3, 3.0)
            if norm.affine:
                nn.init.uniform_(norm.weight, -2.0, 2.0)
                nn.init.normal_(norm.bias)
    return model.eval()


class Block(nn.Module):
    """A residual block whose norms stand in another order than they are called."""

    def __init__(self) -> None:
        super().__init__()
        self.bn2 = nn.BatchNorm2d(8)
        self.bn1 = nn.BatchNorm2d(8, affine=False)
        self.before = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.skip = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.skip(x))


class Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) if float(x.sum()) < 1e9 else x


def _norms(model: nn.Module) -> int:
    return sum(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) for module in model.modules())


@pytest.mark.parametrize("pattern", [None, "4x1", "1x4", "unstructured"])
def test_residual_blocks(pattern: str | None) -> None:
    model, input = _trained(nn.Sequential(Block(), Block())), torch.randn(2, 8, 6, 6)
    if pattern is not None:
        sc.sparsify_(model, pattern, sparsity=0.5)
    with torch.no_grad():
        expected = model(input)
        assert sc.fold_batch_norm_(model) is model
        assert _norms(model) == 2  # those that no layer makes the input of
        assert torch.allclose(model(input), expected, atol=1e-4, rtol=1e-4)


def test_linear_layers_one_dimension_and_int8() -> None:
    model = _trained(nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)))
    line = _trained(nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8)))
    packed = sc.sparsify_(
        _trained(nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16))), "4x4", dtype=torch.int8
    )
    for module, input in (
        (model, torch.randn(5, 12)),
        (line, torch.randn(2, 4, 9)),
        (packed, torch.randn(5, 12)),
    ):
        with torch.no_grad():
            expected = module(input)
            sc.fold_batch_norm_(module)
            assert _norms(module) == 0
            assert torch.allclose(module(input), expected, atol=1e-5, rtol=1e-4)


def test_models_that_cannot_be_traced_fold_neighbours_only() -> None:
    model, input = _trained(Untraceable()), torch.randn(2, 8, 4, 4)
    with torch.no_grad():
        expected = model(input)
        sc.fold_batch_norm_(model)
        assert _norms(model) == 1
        assert torch.allclose(model(input), expected, atol=1e-5)


def test_what_is_ambiguous_is_left_alone_or_refused() -> None:
    with pytest.raises(ValueError, match=r"Call model\.eval\(\) first"):
        sc.fold_batch_norm_(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    with pytest.raises(ValueError, match="track_running_stats"):
        sc.fold_batch_norm_(
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)).eval()
        )
    conv = nn.Conv2d(4, 4, 1)
    twice = _trained(nn.Sequential(conv, nn.BatchNorm2d(4), conv, nn.BatchNorm2d(4)))
    before, input = twice(torch.ones(1, 4, 2, 2)), torch.ones(1, 4, 2, 2)
    assert _norms(sc.fold_batch_norm_(twice)) == 2
    assert torch.equal(twice(input), before)
    tied = _trained(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)))
    tied[2].weight = tied[0].weight
    with pytest.raises(ValueError, match="shares a parameter"):
        sc.fold_batch_norm_(tied)
    fused = _trained(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    fused[0] = sc.nn.SparseConv2d.from_dense(fused[0], "4x1", activation="relu").eval()
    assert _norms(sc.fold_batch_norm_(fused)) == 1
