"""A recipe: one value on each axis of pruning, refused at construction where two do not fit together.

pattern     which weights may be kept together           sparsecore.patterns, and kinds for whole networks
score       what a weight is worth                       scores
allocation  how the budget of zeros is split             allocation
schedule    when the zeros come                          schedules
weights     what survivors of one-shot pruning become    weights
grow        who comes back during training               grow
gradient    what gradient masked weights get             gradients
start       the first mask, where it is chosen by other rules than the later ones
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from sparsecore.patterns import (
    NM,
    VNM,
    Channel,
    Group,
    Unstructured,
    VariableNM,
    fixed_sparsity,
    pattern_name,
)
from sparsecore.sparsify import allocation as allocations
from sparsecore.sparsify import gradients, schedules, scores, selection, weights
from sparsecore.sparsify import grow as growth
from sparsecore.sparsify.allocation import Allocation, Uniform
from sparsecore.sparsify.gradients import GradientRule, Hard
from sparsecore.sparsify.grow import Grow
from sparsecore.sparsify.kinds import AnyPattern, ByWidth, Kernels, PerKind, parse, parts_of
from sparsecore.sparsify.schedules import OneShot, Schedule
from sparsecore.sparsify.scores import Magnitude, Random, Score
from sparsecore.sparsify.weights import OBS, Keep, WeightRule


@dataclass(frozen=True)
class Start:
    """How the first mask of a training run is chosen.

    Attributes:
        score: What a weight is worth then; random by default.
        allocation: How the first budget is split; None: as later.
    """

    score: Score = field(default_factory=Random)
    allocation: Allocation | None = None


def _dataclasses_of(*modules: Any) -> dict[str, type]:
    found = {
        name: part for module in modules for name, part in vars(module).items() if isinstance(part, type)
    }
    return {name: part for name, part in found.items() if is_dataclass(part)}


_PARTS = _dataclasses_of(scores, allocations, schedules, weights, growth, gradients)
_PARTS |= {
    part.__name__: part
    for part in (NM, VNM, Group, Unstructured, Channel, VariableNM, Kernels, PerKind, ByWidth, Start)
}


@dataclass(frozen=True)
class Recipe:
    """Where the zeros go, when they come, and what happens to the other weights. See the module for the axes."""

    pattern: AnyPattern
    score: Score = field(default_factory=Magnitude)
    allocation: Allocation = field(default_factory=Uniform)
    schedule: Schedule = field(default_factory=OneShot)
    weights: WeightRule = field(default_factory=Keep)
    grow: Grow | None = None
    gradient: GradientRule = field(default_factory=Hard)
    start: Start | None = None

    def __post_init__(self) -> None:
        for part in parts_of(self.pattern):
            selection.check(part, self.allocation.sparsity)
        self._check_one_shot()
        self._check_training()

    def _check_one_shot(self) -> None:
        missing = self.score.requires - self.weights.provides - {"grad", "key"}
        if missing:
            raise ValueError(
                f"Recipe: the score {self.score} needs {sorted(missing)}, which {self.weights} "
                f"does not provide. OBSScore goes with OBS; Magnitude and Wanda go with every rule."
            )
        if self.allocation.within == "block" and not isinstance(self.weights, OBS):
            raise ValueError(
                "Recipe: within='block' is the block of columns of the OBS rule. Use 'row' or 'layer' here."
            )
        if fixed_sparsity(self.pattern) is not None and not isinstance(self.allocation, Uniform):
            raise ValueError(
                f"Recipe: {self.pattern} fixes how much each layer keeps, so {self.allocation} has nothing to "
                f"split. Use Uniform(), or Unstructured() or a Group as the pattern."
            )
        if self.allocation.requires and self.allocation.within != "layer":
            raise ValueError(
                f"Recipe: {type(self.allocation).__name__} compares single weights of different layers, so "
                f"within must be 'layer', got {self.allocation.within!r}."
            )

    def _check_training(self) -> None:
        if not self.trains and (self.grow is not None or self.gradient.keeps_dense):
            raise ValueError(
                f"Recipe: {self.grow or self.gradient} needs a mask that changes while training. "
                f"Use schedule=Constant(every=100), Cubic(...) or EveryForward()."
            )
        if self.trains and not isinstance(self.weights, Keep):
            raise ValueError(
                f"Recipe: {type(self.weights).__name__} rewrites weights once, from calibration data; "
                f"{type(self.schedule).__name__} trains. Prune in one shot first, then train with masks=."
            )
        unknown = {"norm", "pivot"} & self.score.requires
        if self.trains and unknown:
            raise ValueError(
                f"Recipe: the score {self.score} needs calibration, which {type(self.schedule).__name__} has "
                f"not. Use Magnitude(), Saliency() or Random()."
            )
        if self.grow is not None and not self.schedule.persistent:
            raise ValueError(
                f"Recipe: {type(self.grow).__name__} needs a mask that persists; EveryForward chooses it anew "
                f"and lets weights return by itself. Use Constant or Cubic, or leave grow out."
            )
        if self.grow is not None and self.gradient.keeps_dense:
            raise ValueError(
                f"Recipe: {type(self.gradient).__name__} keeps all weights alive, so nothing can be grown. "
                f"Use gradient=Hard()."
            )
        if not self.schedule.persistent and not self.gradient.keeps_dense:
            raise ValueError(
                "Recipe: EveryForward with Hard() would never let a weight return. Use SRSTE() or STE()."
            )
        two_way = isinstance(self.pattern, NM) and self.pattern.two_way
        if self.grow is not None and (two_way or isinstance(self.pattern, VariableNM)):
            raise ValueError(
                f"Recipe: {type(self.grow).__name__} exchanges single weights, which {self.pattern} does not hold. "
                f"Leave grow out, or use Unstructured()."
            )
        if fixed_sparsity(self.pattern) is not None and getattr(self.schedule, "initial", 0.0) > 0.0:
            raise ValueError(f"Recipe: {self.pattern} fixes the sparsity, so schedule.initial must be 0.")

    @property
    def trains(self) -> bool:
        """Whether the mask changes after the first step, so that a :class:`Sparsifier` has to drive it."""
        return not isinstance(self.schedule, OneShot)

    @property
    def needs_data(self) -> bool:
        """Whether one-shot pruning needs calibration data."""
        calibrated = {"norm", "pivot"} & (self.score.requires | self.allocation.requires)
        return bool(calibrated or self.weights.requires)

    @property
    def final(self) -> float:
        """Fraction of zeros in the end."""
        return selection.check(parts_of(self.pattern)[0], self.allocation.sparsity)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON or YAML."""
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: _encode(part) for name, part in parts.items() if part is not None}

    @staticmethod
    def from_dict(state: Mapping[str, Any]) -> Recipe:
        """The inverse of :meth:`to_dict`. A part may be its kind alone, a pattern its short name.

        Raises:
            ValueError: An unknown part, kind or key.
        """
        known = [part.name for part in fields(Recipe)]
        for name in state:
            if name not in known:
                raise ValueError(f"Recipe: unknown part {name!r}, expected {known}.")
        if "pattern" not in state:
            raise ValueError('Recipe: needs a pattern, for instance "2:4" or "unstructured".')
        return Recipe(**{name: _decode(name, value) for name, value in state.items()})


def _encode(part: Any) -> Any:
    if isinstance(part, (NM, VNM, Group, Unstructured, Channel, VariableNM)):
        return pattern_name(part)
    if isinstance(part, type) or not is_dataclass(part):
        return part
    return {"kind": type(part).__name__} | {
        item.name: _encode(getattr(part, item.name)) for item in fields(part)
    }


def _decode(name: str, value: Any) -> Any:
    if name == "pattern" and isinstance(value, str):
        return parse(value)
    if isinstance(value, str):
        value = {"kind": value}
    if not isinstance(value, Mapping):
        raise ValueError(
            f"Recipe: {name} must be the name of a kind or a mapping with 'kind', got {value!r}."
        )
    values = dict(value)
    kind = _PARTS.get(str(values.pop("kind", None)))
    if kind is None:
        raise ValueError(f"Recipe: unknown kind {value.get('kind')!r} of {name}, have {sorted(_PARTS)}.")
    known = {item.name for item in fields(kind) if item.init}
    unknown = set(values) - known
    if unknown:
        raise ValueError(f"Recipe: {kind.__name__} has no field {sorted(unknown)}, it has {sorted(known)}.")
    nested = {
        key: _decode(key, item) if isinstance(item, Mapping) and "kind" in item else item
        for key, item in values.items()
    }
    try:
        return kind(**nested)
    except TypeError as error:
        raise ValueError(f"Recipe: {name} {value!r}: {error}.") from error
