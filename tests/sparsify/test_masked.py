"""Zeros that survive optimizers, wrappers and LoRA merges."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from torch import nn

from sparsecore.patterns import NM, Unstructured
from sparsecore.sparsify import MaskedOptimizer, magnitude, mask_parameters_, merge_lora, merge_lora_

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=1e-2),
    "adam": lambda p: torch.optim.Adam(p, 1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1, foreach=True),
    "adamw fused": lambda p: torch.optim.AdamW(p, 1e-2, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9),
    "lbfgs": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=4),
}


def pruned() -> tuple[nn.Sequential, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 6))
    return model, magnitude(model, Unstructured(), sparsity=0.7, progress=False)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 50) -> None:
    for step in range(steps):
        x = torch.randn(16, 12, generator=torch.Generator().manual_seed(step))

        def closure(x: torch.Tensor = x) -> torch.Tensor:
            optimizer.zero_grad()
            loss = (model(x) - x[:, :6]).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_masked_optimizer(name: str) -> None:
    model, masks = pruned()
    before = copy.deepcopy(model.state_dict())
    optimizer = MaskedOptimizer(OPTIMIZERS[name](model.parameters()), model)
    assert isinstance(optimizer, torch.optim.Optimizer)
    train(model, optimizer)
    for layer, mask in masks.items():
        weight = model.get_submodule(layer).weight
        assert not weight[~mask].any()
        assert not torch.equal(weight, before[f"{layer}.weight"])
        for value in optimizer.state[weight].values():
            if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                assert not value[~mask].any()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_masked_gradients_are_enough_for_common_optimizers(name: str) -> None:
    model, masks = pruned()
    handles = mask_parameters_(model, masks)
    train(model, OPTIMIZERS[name](model.parameters()))
    assert all(not model.get_submodule(layer).weight[~mask].any() for layer, mask in masks.items())
    for handle in handles:
        handle.remove()
    train(model, torch.optim.SGD(model.parameters(), 0.1), 2)
    assert any(model.get_submodule(layer).weight[~mask].any() for layer, mask in masks.items())


def test_schedulers_scalers_state_and_pickle() -> None:
    model, masks = pruned()
    optimizer = MaskedOptimizer(torch.optim.AdamW(model.parameters(), 1e-2), model, masks)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for _ in range(5):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(4, 12)).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] < 1e-2
    state = optimizer.state_dict()
    bare = torch.optim.AdamW(model.parameters(), 1e-2)
    bare.load_state_dict(state)
    optimizer.load_state_dict(copy.deepcopy(state))
    buffer = io.BytesIO()
    torch.save(optimizer, buffer)
    again = torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    train(model, optimizer, 5)
    assert all(not model.get_submodule(layer).weight[~mask].any() for layer, mask in masks.items())
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    assert len(optimizer.param_groups) == 2


def test_mistakes() -> None:
    model, masks = pruned()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match="no parameter or layer '7'"):
        MaskedOptimizer(optimizer, model, {"7": masks["0"]})
    with pytest.raises(ValueError, match="must be bool of shape"):
        mask_parameters_(model, {"0": masks["0"].float()})
    with pytest.raises(ValueError, match="does not hold"):
        MaskedOptimizer(torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1), model, masks)


class Adapted(nn.Module):
    """The shape of a peft layer."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, 3, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(3, base.out_features, bias=False)})
        self.scaling = {"default": 0.5}


def test_lora_merges_keep_the_zeros() -> None:
    torch.manual_seed(0)
    weight = torch.randn(8, 12)
    model = nn.Sequential(nn.Linear(12, 8))
    with torch.no_grad():
        model[0].weight.copy_(weight)
    mask = magnitude(model, NM(2, 4), progress=False)["0"]
    adapted = Adapted(model[0])
    a, b = adapted.lora_A["default"].weight, adapted.lora_B["default"].weight
    expected = ((weight * mask) + 0.5 * b @ a) * mask
    torch.testing.assert_close(merge_lora(weight * mask, a, b, 0.5), expected)
    torch.testing.assert_close(merge_lora(weight, a, b, 0.5, mask), expected)
    model[0] = adapted
    assert merge_lora_(model) == ["0"]
    assert type(model[0]) is nn.Linear
    torch.testing.assert_close(model[0].weight, expected)
    with pytest.raises(ValueError, match="must be"):
        merge_lora(weight, b, a)
