"""One-shot pruning: a recipe is a composition of small values, and ``prune_once`` applies it to a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore.patterns import NM, Group, Pattern, Unstructured
from sparsecore.sparsify import selection
from sparsecore.sparsify._progress import bar
from sparsecore.sparsify.allocation import OneShot, Uniform
from sparsecore.sparsify.calibration import Batch, Calibration, Moments
from sparsecore.sparsify.scores import Magnitude, OBSScore, Score, Wanda
from sparsecore.sparsify.targets import find_targets
from sparsecore.sparsify.weights import ADMM, OBS, Keep, WeightRule

_PARTS: dict[str, type] = {
    part.__name__: part
    for part in (NM, Group, Unstructured, Magnitude, Wanda, OBSScore, Uniform, OneShot, Keep, OBS, ADMM)
}


@dataclass(frozen=True)
class Recipe:
    """Where the zeros go (pattern, score, allocation, schedule) and what the other weights become.

    Parts that do not fit together are refused here, before any work is done.
    """

    pattern: Pattern
    score: Score = field(default_factory=Magnitude)
    allocation: Uniform = field(default_factory=Uniform)
    schedule: OneShot = field(default_factory=OneShot)
    weights: WeightRule = field(default_factory=Keep)

    def __post_init__(self) -> None:
        selection.check(self.pattern, self.allocation.sparsity)
        missing = self.score.requires - self.weights.provides
        if missing:
            raise ValueError(
                f"Recipe: the score {self.score} needs {sorted(missing)}, which {self.weights} "
                f"does not provide. OBSScore goes with OBS; Magnitude and Wanda go with every rule."
            )
        if self.allocation.within == "block" and not isinstance(self.weights, OBS):
            raise ValueError(
                "Recipe: within='block' is the block of columns of the OBS rule. Use 'row' or 'layer' here."
            )

    @property
    def needs_data(self) -> bool:
        return bool(self.score.requires or self.weights.requires)

    def selector(self, step: int = 1) -> selection.Selector:
        """The pattern with its budget after ``step`` steps of the schedule."""
        final = selection.check(self.pattern, self.allocation.sparsity)
        return selection.Selector(self.pattern, self.schedule.sparsity(final, step), self.allocation.within)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain values, ready for JSON."""
        parts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: {"kind": type(part).__name__, **asdict(part)} for name, part in parts.items()}

    @staticmethod
    def from_dict(state: dict[str, dict[str, Any]]) -> Recipe:
        """The inverse of :meth:`to_dict`; unknown kinds and keys are refused."""
        parts = {}
        for name, values in state.items():
            if name not in Recipe.__dataclass_fields__:
                raise ValueError(
                    f"Recipe: unknown part {name!r}, expected {list(Recipe.__dataclass_fields__)}."
                )
            values = dict(values)
            kind = _PARTS.get(values.pop("kind", ""))
            if kind is None:
                raise ValueError(
                    f"Recipe: unknown kind {state[name].get('kind')!r} of {name}, have {sorted(_PARTS)}."
                )
            unknown = set(values) - {part.name for part in fields(kind)}
            if unknown:
                raise ValueError(f"Recipe: {kind.__name__} has no field {sorted(unknown)}.")
            parts[name] = kind(**values)
        return Recipe(**parts)


def apply_recipe(
    model: nn.Module,
    recipe: Recipe,
    *,
    data: Iterable[Batch] | None = None,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Tensor]:
    """Prunes a model in place by a :class:`Recipe`; arguments and result as in :func:`prune_once`."""
    layers = find_targets(model, targets, ignore)
    if recipe.needs_data and data is None:
        raise ValueError(
            f"prune_once: {recipe.score} with {recipe.weights} needs data. Pass data=[inputs, ...]."
        )
    selector = recipe.selector()
    masks: dict[str, Tensor] = {}
    training = model.training
    model.eval()
    try:
        with bar(len(layers), f"pruning to {recipe.pattern}", progress) as advance:
            for names, moments in _visits(model, layers, recipe, data):
                for name in names:
                    layer = layers[name]
                    weight, mask = recipe.weights.prune(
                        layer.weight.detach(), moments, selector, recipe.score
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


def _visits(
    model: nn.Module, layers: dict[str, nn.Linear], recipe: Recipe, data: Iterable[Batch] | None
) -> Iterator[tuple[Sequence[str], Moments | None]]:
    """Layers in the order they are pruned, with the moments of their input at that time."""
    if not recipe.needs_data or data is None:
        for name in layers:
            yield [name], None
        return
    calibration = Calibration(model, layers, data, follow_dense=recipe.weights.follow == "dense")
    for stage in calibration.stages:
        yield stage.names, calibration.collect(stage)


def prune_once(
    model: nn.Module,
    pattern: Pattern,
    *,
    score: Score | None = None,
    weights: WeightRule | None = None,
    sparsity: float | Uniform | None = None,
    data: Iterable[Batch] | None = None,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Tensor]:
    """Prunes the linear layers of a model in place, in one shot.

    The dense weights end up with exact zeros, so ``sparsecore.sparsify_`` packs them afterwards. Every
    targeted layer is pruned, the first and the last too: name those that must stay dense in ``ignore``.

    Args:
        model: Any module; its ``nn.Linear`` layers can be pruned.
        pattern: ``NM``, ``Unstructured`` or ``Group(rows, 1)``.
        score: What a weight is worth; ``Magnitude()`` by default.
        weights: What the surviving weights become; ``Keep()`` by default.
        sparsity: Fraction of zeros, or an allocation; left out where the pattern fixes it.
        data: Calibration batches (tensors, tuples or mappings of the model's arguments), needed by every
            score but ``Magnitude`` and every rule but ``Keep``. An ``attention_mask`` in a mapping leaves
            padding out.
        targets: Class names, dotted names, or ``"re:"`` with a regular expression for the whole dotted name.
        ignore: The same, for layers to leave alone.
        progress: Show a progress bar.

    Returns:
        For each pruned layer, by name, ``(out_features, in_features)`` bool, True where a weight was kept.
    """
    allocation = sparsity if isinstance(sparsity, Uniform) else Uniform(sparsity)
    recipe = Recipe(pattern, score or Magnitude(), allocation, OneShot(), weights or Keep())
    return apply_recipe(model, recipe, data=data, targets=targets, ignore=ignore, progress=progress)
