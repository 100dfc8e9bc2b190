"""Scores before training: formulas, conservation, survival of layers, and models left as they were."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sparsecore.sparsify import grasp, masks_from_scores, snip, synflow
from sparsecore.sparsify.initialization import synflow_scores


def network(depth: int = 1, width: int = 20, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(10, width), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 4)).to(dtype)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def batches(dtype: torch.dtype = torch.float32, count: int = 2) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(16, 10, generator=generator).to(dtype), torch.randint(0, 4, (16,), generator=generator))
        for _ in range(count)
    ]


def test_snip_is_the_derivative_by_a_mask() -> None:
    model = network()
    scores = snip(model, batches(), loss)
    names = list(scores)
    factors = {name: torch.ones_like(scores[name], requires_grad=True) for name in names}
    parameters = dict(model.named_parameters())
    masked = {f"{name}.weight": parameters[f"{name}.weight"].detach() * factors[name] for name in names}
    total = sum(
        nn.functional.cross_entropy(torch.func.functional_call(model, masked, (x,)), y) for x, y in batches()
    )
    grads = torch.autograd.grad(total / 2, list(factors.values()))
    whole = sum(float(grad.abs().sum()) for grad in grads)
    for name, grad in zip(names, grads, strict=True):
        torch.testing.assert_close(scores[name], grad.abs() / whole)
    assert sum(float(score.sum()) for score in scores.values()) == pytest.approx(1.0)


def test_grasp_against_finite_differences() -> None:
    model = network(dtype=torch.float64)
    model[1] = nn.Tanh()
    model[3] = nn.Tanh()
    given = batches(torch.float64)
    scores = grasp(model, given, loss)
    weights = [model[i].weight for i in (0, 2, 4)]

    def gradient() -> list[Tensor]:
        return list(torch.autograd.grad(sum(loss(model, batch) for batch in given) / 2, weights))

    first, step = gradient(), 1e-5
    moved = []
    for sign in (1, -1):
        with torch.no_grad():
            for weight, grad in zip(weights, first, strict=True):
                weight += sign * step * grad
        moved.append(gradient())
        with torch.no_grad():
            for weight, grad in zip(weights, first, strict=True):
                weight -= sign * step * grad
    products = [w.detach() * (p - m) / (2 * step) for w, p, m in zip(weights, *moved, strict=True)]
    scale = abs(sum(float(product.sum()) for product in products)) + 1e-10
    for score, product in zip(scores.values(), products, strict=True):
        torch.testing.assert_close(score, product / scale, rtol=1e-4, atol=1e-7)
    assert any((score < 0).any() for score in scores.values())


def test_synflow_is_conserved_between_layers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(10, 20, bias=False),
        nn.ReLU(),
        nn.Linear(20, 30, bias=False),
        nn.ReLU(),
        nn.Linear(30, 4, bias=False),
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    weights = {str(i): model[i].weight for i in (0, 2, 4)}
    sums = [
        float(score.sum()) for score in synflow_scores(model, torch.ones(1, 10).double(), weights).values()
    ]
    assert sums[0] == pytest.approx(sums[1], rel=1e-10)
    assert sums[0] == pytest.approx(sums[2], rel=1e-10)


def test_synflow_empties_no_layer_of_a_deep_network() -> None:
    model = network(depth=5, width=40)
    masks = synflow(model, torch.randn(1, 10), 0.98)
    total = sum(mask.numel() for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.02 * total)
    assert all(mask.any() for mask in masks.values())
    # and there is a path from input to output
    flow = torch.ones(10)
    for mask in masks.values():
        flow = mask.float() @ flow
    assert flow.any()


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(10, 12), nn.BatchNorm1d(12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


@pytest.mark.parametrize("score", [snip, grasp])
def test_models_stay_as_they_were(score: object) -> None:
    model = Normed().train()
    model.norm.eval()
    model.first.weight.requires_grad_(False)
    model.last.weight.grad = torch.ones_like(model.last.weight)
    before = copy.deepcopy(model.state_dict())
    score(model, batches(), loss)  # type: ignore[operator]
    synflow(model, torch.randn(2, 10), 0.5, rounds=3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.last.weight.grad, torch.ones_like(model.last.weight))
    assert model.first.weight.grad is None
    assert not model.first.weight.requires_grad
    assert (model.training, model.norm.training) == (True, False)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="no batch"):
        snip(network(), [], loss)
    with pytest.raises(ValueError, match="does not depend"):
        snip(network(), batches(), lambda model, batch: model(batch[0]).sum() * 0.0)
    with pytest.raises(ValueError, match="rounds >= 1"):
        synflow(network(), torch.randn(1, 10), 0.5, rounds=0)
    masks = masks_from_scores(network(), grasp(network(), batches(), loss), 0.8)
    assert sum(int(mask.sum()) for mask in masks.values()) > 0
