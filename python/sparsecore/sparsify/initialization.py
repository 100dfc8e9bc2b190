"""Scores before training: SNIP, GraSP, SynFlow. They say which weights to keep of a network that has learned nothing.

    SNIP      |w dL/dw|                                     Lee et al. 2019
    GraSP     w (H g), H the Hessian, g the gradient of L   Wang et al. 2020; large is kept, negative is not cut off
    SynFlow   |w dR/dw|, R = sum of the outputs of the network with |weights| for an input of ones    Tanaka et al. 2020

Every function leaves the model as it was, bit for bit: weights, buffers, gradients and modes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore.patterns import Unstructured
from sparsecore.sparsify.allocation import Global
from sparsecore.sparsify.budget import choose_masks
from sparsecore.sparsify.calibration import run_model
from sparsecore.sparsify.targets import find_trainable

Loss = Callable[[nn.Module, Any], Tensor]  # (model, batch) -> scalar


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Puts parameters, buffers, gradients, ``requires_grad`` and modes back at the end."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    grads = {name: parameter.grad for name, parameter in model.named_parameters()}
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    for parameter in model.parameters():
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in {**dict(model.named_parameters()), **dict(model.named_buffers())}.items():
                tensor.copy_(values[name])
        for name, parameter in model.named_parameters():
            parameter.grad = grads[name]
            parameter.requires_grad_(wanted[name])
        for name, module in model.named_modules():
            module.training = modes[name]


def _weights(model: nn.Module, targets: Sequence[str], ignore: Sequence[str]) -> dict[str, nn.Parameter]:
    layers = find_trainable(model, targets, ignore)
    weights: dict[str, Any] = {name: layer.weight for name, layer in layers.items()}
    for weight in weights.values():
        weight.requires_grad_(True)
    return weights


def _nonempty(owner: str, batches: Iterable[Any]) -> list[Any]:
    found = list(batches)
    if not found:
        raise ValueError(f"{owner}: there is no batch. Pass what loss(model, batch) takes.")
    return found


def snip(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
) -> dict[str, Tensor]:
    """``|w dL/dw|`` over all batches together, divided by its sum.

    Args:
        model: Freshly initialised, with a variance-scaling initialisation.
        batches: About ten samples per class, in one batch or several.
        loss: ``(model, batch) -> scalar``, a mean over the batch.
        targets: Layers, as for :class:`~sparsecore.sparsify.Sparsifier`.
        ignore: The same, to leave out.

    Returns:
        Scores by layer name, for :func:`~sparsecore.sparsify.masks_from_scores`.
    """
    given = _nonempty("snip", batches)
    with untouched(model):
        weights = _weights(model, targets, ignore)
        for batch in given:
            (loss(model, batch) / len(given)).backward()
        scores = {
            name: (weight.detach() * weight.grad).abs()
            if weight.grad is not None
            else torch.zeros_like(weight)
            for name, weight in weights.items()
        }
    total = sum(float(score.sum()) for score in scores.values())
    if not 0.0 < total < float("inf"):
        raise ValueError(
            f"snip: the scores sum to {total}; the loss does not depend on the weights, or overflows."
        )
    return {name: score / total for name, score in scores.items()}


def grasp(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
) -> dict[str, Tensor]:
    """``w (H g)``: keeping the largest keeps the flow of gradients. Needs a loss that can be derived twice.

    The paper divides logits by a temperature of 200 inside the loss. Arguments and result as for :func:`snip`.
    """
    given = _nonempty("grasp", batches)
    with untouched(model):
        weights = _weights(model, targets, ignore)
        held = list(weights.values())
        first = [torch.zeros_like(weight) for weight in held]
        for batch in given:
            for total, grad in zip(
                first, torch.autograd.grad(loss(model, batch) / len(given), held), strict=True
            ):
                total += grad
        product = [torch.zeros_like(weight) for weight in held]
        for batch in given:
            grads = torch.autograd.grad(loss(model, batch) / len(given), held, create_graph=True)
            flow = sum((grad * start).sum() for grad, start in zip(grads, first, strict=True))
            assert isinstance(flow, Tensor)
            for total, grad in zip(product, torch.autograd.grad(flow, held), strict=True):
                total += grad
        scores = {
            name: weight.detach() * value
            for (name, weight), value in zip(weights.items(), product, strict=True)
        }
    scale = abs(sum(float(score.sum()) for score in scores.values())) + 1e-10
    return {name: score / scale for name, score in scores.items()}


def synflow(
    model: nn.Module,
    inputs: Any,
    sparsity: float,
    *,
    rounds: int = 100,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Masks without data: prunes globally to ``density ** (k / rounds)`` for k = 1 to ``rounds``, scored anew.

    Works on a copy of the model in float64, because products of many |weights| overflow float32.

    Args:
        model: Any module that takes ``inputs``.
        inputs: A tensor, tuple or mapping in the shape of one sample's batch; floating tensors are replaced by ones.
        sparsity: Fraction of zeros over all layers.
        rounds: Of scoring and pruning.
        targets: As for :func:`snip`.
        ignore: As for :func:`snip`.

    Returns:
        Masks by layer name, True where kept.
    """
    if not 0.0 <= sparsity < 1.0 or rounds < 1:
        raise ValueError(f"synflow: needs sparsity in [0, 1) and rounds >= 1, got {sparsity} and {rounds}.")
    double = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        for tensor in (*double.parameters(), *double.buffers()):
            if tensor.is_floating_point():
                tensor.abs_()
    weights = _weights(double, targets, ignore)
    whole = {name: weight.detach().clone() for name, weight in weights.items()}
    ones = _ones(inputs)
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    for turn in range(1, rounds + 1):
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(whole[name] * masks[name])
        double.zero_grad()
        scores = synflow_scores(double, ones, weights)
        share = 1.0 - (1.0 - sparsity) ** (turn / rounds)
        masks = choose_masks(Unstructured(), Global(share), scores, masks)
    return masks


def synflow_scores(model: nn.Module, ones: Any, weights: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """``|w dR/dw|`` of a model whose weights are not negative already."""
    result = run_model(model, ones)
    while not isinstance(result, Tensor):
        result = next(iter(result.values())) if isinstance(result, dict) else result[0]
    grads = torch.autograd.grad(result.sum(), list(weights.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if grad is None else (weight.detach() * grad).abs()
        for (name, weight), grad in zip(weights.items(), grads, strict=True)
    }


def _ones(inputs: Any) -> Any:
    if isinstance(inputs, Tensor):
        return torch.ones_like(inputs, dtype=torch.float64) if inputs.is_floating_point() else inputs
    if isinstance(inputs, dict):
        return {name: _ones(value) for name, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(_ones(value) for value in inputs)
    return inputs
