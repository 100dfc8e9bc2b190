"""A budget split over layers, and the masks that spend it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sparsecore.formats.select import score_units, unit_shape
from sparsecore.patterns import Pattern, Unstructured
from sparsecore.sparsify import selection
from sparsecore.sparsify.allocation import Allocation, Global, Layer, Uniform
from sparsecore.sparsify.kinds import AnyPattern, as_matrix, as_weight


def split_budget(
    pattern: Pattern | Mapping[str, Pattern],
    allocation: Allocation,
    weights: Mapping[str, Tensor],
    scores: Mapping[str, Tensor] | None = None,
) -> dict[str, selection.Selector]:
    """A selector per layer.

    Args:
        pattern: What is kept together, in all layers or by layer.
        allocation: How the budget is split.
        weights: ``(rows, columns)`` by layer.
        scores: Of every weight, where the allocation compares layers by them.
    """
    own = pattern if isinstance(pattern, Mapping) else dict.fromkeys(weights, pattern)
    final = {part: selection.check(part, allocation.sparsity) for part in set(own.values())}
    if isinstance(allocation, Uniform):
        return {name: selection.Selector(own[name], final[own[name]], allocation.within) for name in weights}
    layers = {
        name: Layer(tuple(weight.shape), score_units(weight.detach(), own[name]).numel())
        for name, weight in weights.items()
    }
    units = None
    if scores is not None:
        # By weight, so that layers with groups of different sizes can be compared.
        units = {
            name: score_units(score, own[name]) / math.prod(unit_shape(own[name]))
            for name, score in scores.items()
        }
    kept = allocation.kept(layers, units)
    return {
        name: selection.Selector(own[name], 1.0 - kept[name] / max(layer.units, 1), allocation.within)
        for name, layer in layers.items()
    }


def choose_masks(
    pattern: AnyPattern,
    allocation: Allocation,
    scores: Mapping[str, Tensor],
    alive: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Masks of the best weights among those alive.

    Args:
        pattern: What is kept together.
        allocation: How the budget is split.
        scores: Of every weight, not negative, in the shape of the weights, by layer.
        alive: Bool masks of the same shapes; None: all are.

    Returns:
        Bool masks in the shape of the weights, True where kept.
    """
    matrices = {name: as_matrix(score, pattern) for name, score in scores.items()}
    values = {name: matrix for name, (matrix, _) in matrices.items()}
    dead = {} if alive is None else {name: ~as_matrix(alive[name], pattern)[0] for name in scores}
    compared = {
        name: value.masked_fill(dead[name], 0.0) if name in dead else value for name, value in values.items()
    }
    parts = {name: part for name, (_, part) in matrices.items()}
    selectors = split_budget(parts, allocation, compared, compared)
    masks: dict[str, Tensor] = {}
    for name, value in values.items():
        if name not in dead:
            mask = selectors[name].mask(value)
        else:
            # Zero is the worst score and may be that of a living weight too: those come before what is masked.
            mask = selectors[name].mask(value.masked_fill(dead[name], -1.0)) & ~dead[name]
        masks[name] = as_weight(mask, scores[name], pattern)
    return masks


def masks_from_scores(
    model: nn.Module,
    scores: Mapping[str, Tensor],
    sparsity: float | Allocation | None = None,
    pattern: AnyPattern | None = None,
) -> dict[str, Tensor]:
    """Prunes the named layers of a model in place to the best scores.

    ```python
    masks = masks_from_scores(model, snip(model, batches, loss), sparsity=0.9)
    Sparsifier(model, Recipe(Unstructured(), allocation=Uniform(0.9)), masks=masks).attach(optimizer)
    ```

    Args:
        model: Any module.
        scores: By layer name, in the shape of the weights, higher is better.
        sparsity: Fraction of zeros over all layers together, or an allocation.
        pattern: What is kept together; ``Unstructured()`` by default.

    Returns:
        Masks by layer name, True where kept.
    """
    pattern = Unstructured() if pattern is None else pattern
    if sparsity is None or isinstance(sparsity, (int, float)):
        allocation: Allocation = Uniform(None) if sparsity is None else Global(float(sparsity))
    else:
        allocation = sparsity
    for name, score in scores.items():
        weight = model.get_submodule(name).weight
        if not isinstance(weight, Tensor) or weight.shape != score.shape:
            raise ValueError(
                f"masks_from_scores: the score of {name!r} has shape {tuple(score.shape)}, which is not that of "
                f"the weight."
            )
        if not torch.isfinite(score).all():
            raise ValueError(f"masks_from_scores: the score of {name!r} is not finite.")
    # Scores such as GraSP's may be negative; only their order counts.
    low = min((float(score.min()) for score in scores.values() if score.numel()), default=0.0)
    shifted = {name: score.float() - min(low, 0.0) for name, score in scores.items()}
    masks = choose_masks(pattern, allocation, shifted)
    with torch.no_grad():
        for name, mask in masks.items():
            weight = model.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            weight.mul_(mask)
    return masks
