"""torchao's calls, word for word, over our kernels."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import sparsecore as sc
from sparsecore.integrations.torchao import (
    SemiSparseWeightConfig,
    WandaSparsifier,
    apply_fake_sparsity,
    semi_sparse_weight,
    sparsify_,
)


def _model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16)).eval()


def test_fake_sparsity_then_sparsify() -> None:
    model, x = _model(), torch.randn(6, 32)
    dense = model[0].weight.detach().clone()
    apply_fake_sparsity(model)
    assert type(model[0]) is nn.Linear
    assert torch.equal(model[0].weight, sc.pack(dense, "2:4").to_dense())
    with torch.no_grad():
        wanted = model(x)
        assert sparsify_(model, SemiSparseWeightConfig(), lambda m, fqn: fqn == "0") is model
        assert isinstance(model[0], sc.nn.SparseLinear)
        assert type(model[2]) is nn.Linear
        assert torch.allclose(model(x), wanted, atol=1e-6)


def test_wanda_prunes_by_what_comes_in() -> None:
    model, x = _model(), torch.randn(100, 32) * torch.tensor([10.0, 10.0, 0.1, 0.1]).repeat(8)
    sparsifier = WandaSparsifier(semi_structured_block_size=4)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    model(x)
    sparsifier.step()
    sparsifier.squash_mask()
    kept = model[0].weight != 0
    assert kept.view(64, 8, 4)[..., :2].float().mean() > 0.9  # magnitudes alone would say a half
    sparsify_(model, semi_sparse_weight(), lambda m, fqn: fqn == "0")
    assert torch.equal(model[0].weight.mask(), kept)


def test_more_than_torchao_has() -> None:
    layer = sparsify_(nn.Linear(64, 64), SemiSparseWeightConfig("16x1", 0.5, dtype=torch.int8))
    assert isinstance(layer, sc.nn.SparseLinear)
    assert layer.weight_values.dtype == torch.int8
    with pytest.raises(ValueError, match="none of"):
        SemiSparseWeightConfig("2of4")
    with pytest.raises(TypeError, match=r"needs sparsecore\.integrations\.torchao\.SemiSparseWeightConfig"):
        sparsify_(nn.Linear(8, 8), SimpleNamespace())  # type: ignore[arg-type]
