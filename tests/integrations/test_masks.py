"""Masks of torch.ao.pruning and torch.nn.utils.prune come out as they are, and the layers become plain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.ao.pruning import WeightNormSparsifier
from torch.nn.utils import parametrize, prune

import sparsecore as sc
from sparsecore.integrations.masks import read_masks, take_masks_


def _model() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(32, 16), nn.ReLU(), nn.Sequential(nn.Linear(16, 8, bias=False)), nn.Linear(8, 4)
    )


def _sparsifier(model: nn.Module) -> WeightNormSparsifier:
    made = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    made.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "2.0.weight"}])
    made.step()
    return made


def test_torch_ao_pruning() -> None:
    model, x = _model(), torch.randn(5, 32)
    sparsifier = _sparsifier(model)
    with torch.no_grad():
        masked = model(x)
    wanted = {name: model.get_submodule(name).weight.detach().clone() for name in ("0", "2.0")}
    sparsifier_state = read_masks(sparsifier.state_dict())
    masks = take_masks_(model)
    assert list(masks) == ["0", "2.0"]
    assert type(model[0]) is nn.Linear
    assert not parametrize.is_parametrized(model[0])
    for name, mask in masks.items():
        assert torch.equal(mask, sparsifier_state[name])
        assert torch.equal(model.get_submodule(name).weight, wanted[name])
        assert mask.dtype == torch.bool
        assert mask.float().mean() == 0.5
    sc.sparsify_(model, "2:4", lambda _, name: name in masks, masks=masks)
    assert torch.equal(model[0].weight.mask(), masks["0"])
    with torch.no_grad():
        assert torch.allclose(model(x), masked, atol=1e-6)


def test_torch_nn_utils_prune() -> None:
    model, x = _model(), torch.randn(5, 32)
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    prune.random_unstructured(model[0], "weight", amount=0.5)  # a second mask on top
    prune.ln_structured(model[3], "weight", amount=2, n=2, dim=0)
    with torch.no_grad():
        masked = model(x)
    from_file = read_masks(model.state_dict())
    zeros = model[0].weight == 0
    masks = take_masks_(model)
    assert list(masks) == ["0", "3"] == list(from_file)
    assert torch.equal(masks["0"], from_file["0"])
    assert torch.equal(~masks["0"], zeros)
    assert "weight" in dict(model[0].named_parameters())
    sc.sparsify_(model, "unstructured", lambda _, name: name in masks, masks=masks)
    assert model[0].weight.stored == 32 * 16 // 4
    with torch.no_grad():
        assert torch.allclose(model(x), masked, atol=1e-6)


def test_a_bare_layer_has_the_empty_name() -> None:
    layer = prune.l1_unstructured(nn.Linear(8, 8), "weight", amount=0.5)
    assert list(read_masks(layer)) == [""] == list(read_masks(layer.state_dict()))
    assert take_masks_(layer)[""].sum() == 32


class _Scale(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


def test_what_cannot_be_read_is_refused() -> None:
    for source in (_model(), _model().state_dict()):
        with pytest.raises(ValueError, match="found no mask"):
            read_masks(source)
    model = _model()
    _sparsifier(model)
    parametrize.register_parametrization(model[2][0], "weight", _Scale())
    with pytest.raises(ValueError, match=r"'2\.0' is under _Scale too"):
        take_masks_(model)
    assert parametrize.is_parametrized(model[0])
    state = prune.l1_unstructured(nn.Linear(8, 8), "weight", amount=0.5).state_dict()
    with pytest.raises(ValueError, match=r"shape \(8, 8\), got \(7, 8\)"):
        read_masks(state | {"weight_mask": state["weight_mask"][1:]})
    with pytest.raises(ValueError, match="'0' must be a tensor, got NoneType"):
        read_masks({"state": {"0.weight": {}}})
