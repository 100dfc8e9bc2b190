"""The reference networks: as many parameters as published, activations of a trained net's size, zeros where asked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models import MODELS, calibrate_, prunable, prune_

PARAMETERS = {
    "mobilenet_v1": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "mobilenet_v3_small": 2_542_856,
    "efficientnet_b0": 5_288_548,
    "resnet50": 25_557_032,
}


@pytest.mark.parametrize("name", MODELS)
def test_as_published(name: str) -> None:
    model = MODELS[name]()
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert not model.training
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 33, 65)).shape == (2, 1000)


def test_same_seed_same_weights() -> None:
    states = [MODELS["mobilenet_v2"](num_classes=5, seed=seed).state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["classifier.1.weight"], states[2]["classifier.1.weight"])


def test_calibration_keeps_activations_alive() -> None:
    model = calibrate_(MODELS["mobilenet_v1"](num_classes=7), size=64)
    sizes: list[float] = []
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _module, _input, output: sizes.append(float(output.std())))
    with torch.no_grad():
        model(torch.randn(4, 3, 64, 64))
    assert len(sizes) == 27
    assert min(sizes) > 0.3
    assert max(sizes) < 3


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (4, 1), (16, 1), (4, 4), (1, 8)])
def test_pruned_in_blocks(rows: int, cols: int) -> None:
    model = prune_(MODELS["mobilenet_v2"](num_classes=7), 0.8, rows, cols)
    stem, depthwise = model.features[0][0], model.features[1].layers[0][0]
    assert torch.all(stem.weight != 0)
    assert torch.all(depthwise.weight != 0)
    assert len(prunable(model)) == 35
    for _, module in prunable(model):
        n, k = module.weight.shape[:2]
        kept = (module.weight != 0).reshape(n, k)
        if n % rows == 0 and k % cols == 0:
            blocks = kept.reshape(n // rows, rows, k // cols, cols).sum((1, 3))
            assert set(blocks.unique().tolist()) <= {0, rows * cols}
        assert float(kept.float().mean()) == pytest.approx(0.2, abs=0.08)


def test_pruned_taps_of_larger_kernels() -> None:
    model = prune_(MODELS["resnet50"](num_classes=7), 0.9)
    kept = [float((module.weight != 0).float().mean()) for _, module in prunable(model)]
    assert len(kept) == 53
    assert all(part == pytest.approx(0.1, abs=1e-3) for part in kept)
