"""One-shot pruning: layers in the order the model calls them, each with what is in front of it already pruned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from sparsecore.patterns import Pattern
from sparsecore.sparsify import selection
from sparsecore.sparsify._progress import bar
from sparsecore.sparsify.allocation import Allocation, Uniform
from sparsecore.sparsify.budget import split_budget
from sparsecore.sparsify.calibration import Batch, Calibration, Moments, as_sequence, input_norms
from sparsecore.sparsify.kinds import stored_pattern
from sparsecore.sparsify.recipe import Recipe
from sparsecore.sparsify.schedules import OneShot
from sparsecore.sparsify.scores import Magnitude, Score, Statistics, Wanda
from sparsecore.sparsify.targets import find_targets
from sparsecore.sparsify.weights import Keep, WeightRule


def apply_recipe(
    model: nn.Module,
    recipe: Recipe | Mapping[str, Recipe],
    *,
    data: Iterable[Batch] | None = None,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
    memory: int | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """Prunes a model in place by a :class:`Recipe`, or each layer by its own.

    Args:
        model: As in :func:`prune_once`.
        recipe: One for all layers, or a mapping from dotted layer names, which are then the targets.
        data: As in :func:`prune_once`.
        targets: As in :func:`prune_once`; unused with a mapping.
        ignore: The same.
        memory: As in :func:`prune_once`.
        progress: Show a progress bar.

    Returns:
        Masks by layer name.
    """
    if isinstance(recipe, Mapping):
        recipes = dict(recipe)
        layers = find_targets(model, list(recipes), ())
        unknown = sorted(set(recipes) - set(layers))
        if unknown:
            raise ValueError(
                f"apply_recipe: recipe names layers that the model has not: {', '.join(unknown)}."
            )
    else:
        layers = find_targets(model, targets, ignore)
        recipes = dict.fromkeys(layers, recipe)
    for each in _unique(recipes.values()):
        if each.trains:
            raise ValueError(
                f"prune_once: {type(each.schedule).__name__} prunes while training. Use "
                f"sparsify.Sparsifier(model, recipe) and attach it to the optimizer."
            )
        if each.needs_data and data is None:
            raise ValueError(
                f"prune_once: {each.score} with {each.weights} needs data. Pass data=[inputs, ...]."
            )
        if "grad" in each.score.requires:
            raise ValueError(f"prune_once: {each.score} needs gradients. Use sparsify.snip(model, ...).")
    batches = None if data is None else as_sequence(data)
    masks: dict[str, Tensor] = {}
    training = model.training
    model.eval()
    try:
        selectors = _selectors(model, layers, recipes, batches)
        titles = {str(each.pattern) for each in recipes.values()}
        title = f"pruning to {titles.pop()}" if len(titles) == 1 else "pruning"
        with bar(len(layers), title, progress) as advance:
            for names, moments in _visits(model, layers, recipes, batches, memory):
                for name in names:
                    layer, rule = layers[name], recipes[name]
                    seen = moments if moments is None or rule.weights.follow == "dense" else moments.own()
                    weight, mask = rule.weights.prune(
                        layer.weight.detach(), seen, selectors[name], rule.score, name
                    )
                    if not torch.isfinite(weight).all():
                        raise ValueError(f"prune_once: pruning {name!r} gave weights that are not finite.")
                    with torch.no_grad():
                        layer.weight.copy_(weight)
                    masks[name] = mask
                    advance()
    finally:
        model.train(training)
    return {name: masks[name] for name in layers}


def _unique(recipes: Iterable[Recipe]) -> list[Recipe]:
    found: list[Recipe] = []
    for recipe in recipes:
        if recipe not in found:
            found.append(recipe)
    return found


def _selectors(
    model: nn.Module,
    layers: dict[str, nn.Linear],
    recipes: Mapping[str, Recipe],
    data: Sequence[Batch] | None,
) -> dict[str, selection.Selector]:
    """What each layer keeps, with the budget split by the recipes' allocations."""
    found: dict[str, selection.Selector] = {}
    for recipe in _unique(recipes.values()):
        mine = {name: layer for name, layer in layers.items() if recipes[name] == recipe}
        scores = None
        if recipe.allocation.requires:
            # The inverse moments of OBSScore are known layer by layer only; what it would remove first is what
            # Wanda finds cheap, so that score compares the layers.
            score = Wanda() if "pivot" in recipe.score.requires else recipe.score
            score = Wanda() if "norm" in recipe.allocation.requires else score
            norms = input_norms(model, mine, data or ()) if "norm" in score.requires else {}
            scores = {
                name: score(layer.weight.detach().float(), Statistics(norms.get(name), key=name))
                for name, layer in mine.items()
            }
        weights = {name: layer.weight for name, layer in mine.items()}
        found |= split_budget(stored_pattern(recipe.pattern, (1, 1)), recipe.allocation, weights, scores)
    return found


def _visits(
    model: nn.Module,
    layers: dict[str, nn.Linear],
    recipes: Mapping[str, Recipe],
    data: Sequence[Batch] | None,
    memory: int | None,
) -> Iterator[tuple[Sequence[str], Moments | None]]:
    """Layers in the order they are pruned, with the moments of their input at that time."""
    if data is None or not any(recipe.needs_data for recipe in recipes.values()):
        for name in layers:
            yield [name], None
        return
    follow_dense = any(recipe.weights.follow == "dense" for recipe in recipes.values())
    calibration = Calibration(model, layers, data, follow_dense=follow_dense, memory=memory)
    for stage in calibration.stages:
        yield stage.names, calibration.collect(stage)


def prune_once(
    model: nn.Module,
    pattern: Pattern,
    *,
    score: Score | None = None,
    weights: WeightRule | None = None,
    sparsity: float | Allocation | None = None,
    data: Iterable[Batch] | None = None,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
    memory: int | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """Prunes the linear layers of a model in place, in one shot.

    The dense weights end up with exact zeros, so ``sparsecore.sparsify_`` packs them afterwards. Every
    targeted layer is pruned, the first and the last too: name those that must stay dense in ``ignore``.

    Args:
        model: Any module; its ``nn.Linear`` layers can be pruned.
        pattern: ``NM``, ``Unstructured``, ``Group`` or ``Channel``.
        score: What a weight is worth; ``Magnitude()`` by default.
        weights: What the surviving weights become; ``Keep()`` by default.
        sparsity: Fraction of zeros, or an allocation; left out where the pattern fixes it.
        data: Calibration batches (tensors, tuples or mappings of the model's arguments), needed by every
            score but ``Magnitude`` and every rule but ``Keep``. An ``attention_mask`` in a mapping leaves
            padding out. A list, or a dataset with a length that makes a batch when it is asked for one: batches are
            visited more than once. Anything else is read into a list first.
        targets: Class names, dotted names, or ``"re:"`` with a regular expression for the whole dotted name.
        ignore: The same, for layers to leave alone.
        memory: Bytes of activations to keep between layers; the rest goes to temporary files. None: no limit. The
            moments of a layer, float64 and as large as its inputs squared, come on top.
        progress: Show a progress bar.

    Returns:
        For each pruned layer, by name, ``(out_features, in_features)`` bool, True where a weight was kept.
    """
    allocation = Uniform(sparsity) if sparsity is None or isinstance(sparsity, (int, float)) else sparsity
    recipe = Recipe(pattern, score or Magnitude(), allocation, OneShot(), weights or Keep())
    return apply_recipe(
        model, recipe, data=data, targets=targets, ignore=ignore, memory=memory, progress=progress
    )
