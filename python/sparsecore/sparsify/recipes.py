"""Recipes as data: a mapping, or a YAML file, that says which layers are pruned by which recipe.

```yaml
preset: sparsegpt            # or the axes themselves: score, weights, allocation
pattern: "2:4"
targets: [Linear]            # the default
ignore: ["re:.*lm_head"]
```

A list of such mappings prunes several groups of layers in one pass; the first that names a layer has it. Unknown keys
are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparsecore.convert import sparsify_
from sparsecore.patterns import fixed_sparsity
from sparsecore.patterns import pattern as parse_pattern
from sparsecore.sparsify.allocation import Uniform
from sparsecore.sparsify.calibration import Batch
from sparsecore.sparsify.kinds import stored_pattern
from sparsecore.sparsify.once import apply_recipe
from sparsecore.sparsify.recipe import Recipe
from sparsecore.sparsify.scores import Magnitude, OBSScore, Wanda
from sparsecore.sparsify.targets import find_targets
from sparsecore.sparsify.weights import ADMM, OBS, Keep

_PRESETS: dict[str, tuple[Any, Any, str]] = {
    "magnitude": (Magnitude(), Keep(), "layer"),
    "wanda": (Wanda(), Keep(), "row"),
    "sparsegpt": (OBSScore(), OBS(), "block"),
    "alps": (Wanda(), ADMM(), "row"),
}
_PLACE = ("targets", "ignore")


@dataclass(frozen=True)
class Assignment:
    """A recipe and the layers it is for; rules as in :func:`sparsecore.sparsify.prune_once`."""

    recipe: Recipe
    targets: tuple[str, ...] = ("Linear",)
    ignore: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What :func:`load_recipe` reads back."""
        return {**self.recipe.to_dict(), "targets": list(self.targets), "ignore": list(self.ignore)}


RecipeLike = (
    Recipe
    | Assignment
    | Mapping[str, Any]
    | str
    | os.PathLike[str]
    | Sequence[Assignment | Mapping[str, Any]]
)


def load_recipe(source: RecipeLike) -> tuple[Assignment, ...]:
    """Assignments from a recipe, a mapping, a list of mappings, or the path of a YAML (or JSON) file.

    Raises:
        ValueError: Unknown keys, kinds or presets, or text that is not YAML.
        FileNotFoundError: There is no such file.
    """
    if isinstance(source, Recipe):
        return (Assignment(source),)
    if isinstance(source, Assignment):
        return (source,)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        try:
            return _assignments(_read_yaml(path))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error
    if isinstance(source, Mapping):
        return (_assignment(source),)
    if not isinstance(source, Sequence) or not source:
        raise ValueError(f"load_recipe: needs a mapping or a list of mappings, got {type(source).__name__}.")
    return tuple(found for item in source for found in load_recipe(item))


def _assignments(document: Any) -> tuple[Assignment, ...]:
    """What a file says; a text in it names no other file."""
    items = document if isinstance(document, list) and document else [document]
    for item in items:
        if not isinstance(item, Mapping):
            raise ValueError(
                f"load_recipe: needs a mapping or a list of mappings, got {type(item).__name__}."
            )
    return tuple(_assignment(item) for item in items)


def _read_yaml(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"load_recipe: there is no file {path}.")
    try:
        import yaml
    except ImportError as error:
        raise ImportError("load_recipe: reading YAML needs PyYAML: pip install 'sparsecore[cli]'.") from error
    try:
        return yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"load_recipe: not readable as YAML ({error}).") from error


def _assignment(given: Mapping[str, Any]) -> Assignment:
    state = dict(given)
    place: dict[str, tuple[str, ...]] = {}
    for name in _PLACE:
        if name in state:
            rules = state.pop(name)
            rules = [rules] if isinstance(rules, str) else rules
            if not isinstance(rules, (list, tuple)) or not all(isinstance(rule, str) for rule in rules):
                raise ValueError(f"load_recipe: {name} must be a list of names, got {rules!r}.")
            place[name] = tuple(rules)
    if "preset" not in state and "sparsity" not in state:
        return Assignment(Recipe.from_dict(state), **place)
    preset = state.pop("preset", "magnitude")
    sparsity = state.pop("sparsity", None)
    if preset not in [*_PRESETS]:
        raise ValueError(f"load_recipe: unknown preset {preset!r}, have {sorted(_PRESETS)}.")
    if sparsity is not None and not isinstance(sparsity, (int, float)):
        raise ValueError(f"load_recipe: sparsity is a fraction of zeros, got {sparsity!r}.")
    axes = {part.name for part in fields(Recipe)} - {"pattern"}
    clash = sorted(set(state) & axes)
    if clash:
        raise ValueError(
            f"load_recipe: {clash[0]!r} cannot stand beside preset or sparsity. Name all axes, or the preset alone."
        )
    unknown = sorted(set(state) - {"pattern"})
    if unknown:
        raise ValueError(
            f"load_recipe: unknown key {unknown[0]!r}, expected preset, pattern, sparsity, targets, ignore."
        )
    if "pattern" not in state:
        raise ValueError('load_recipe: needs a pattern, for instance "2:4" or "unstructured".')
    pattern = parse_pattern(state["pattern"])
    score, weights, within = _PRESETS[preset]
    scope: Any = within if fixed_sparsity(pattern) is None else "row"
    return Assignment(Recipe(pattern, score, Uniform(sparsity, scope), weights=weights), **place)


def assign(model: nn.Module, source: RecipeLike) -> dict[str, Recipe]:
    """The recipe of each layer of a model, by dotted name.

    Raises:
        ValueError: An assignment names no layer.
    """
    found: dict[str, Recipe] = {}
    for assignment in load_recipe(source):
        for name in find_targets(model, assignment.targets, assignment.ignore):
            found.setdefault(name, assignment.recipe)
    order = [name for name, _ in model.named_modules() if name in found]
    return {name: found[name] for name in order}


def oneshot(
    model: nn.Module,
    recipe: RecipeLike,
    data: Iterable[Batch] | None = None,
    *,
    convert: bool = True,
    output_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> nn.Module:
    """Prunes a model by a recipe and packs it, in place.

    Args:
        model: Any module with ``nn.Linear`` layers.
        recipe: A :class:`Recipe`, a mapping, a list of mappings, or a YAML file: see the module's text.
        data: Calibration batches, where the recipe needs them.
        convert: Pack the pruned layers for the sparse kernels; False leaves dense weights with exact zeros.
        output_dir: Also save there: by ``save_pretrained`` where the model has it and stays dense, otherwise as
            ``model.safetensors``.
        progress: Show a progress bar.

    Returns:
        The model.
    """
    recipes = assign(model, recipe)
    masks = apply_recipe(model, recipes, data=data, progress=progress)
    if convert:
        model = _pack(model, recipes, masks)
    if output_dir is not None:
        from sparsecore.io import save

        target = Path(output_dir)
        target.mkdir(parents=True, exist_ok=True)
        pretrained = getattr(model, "save_pretrained", None)
        if pretrained is not None and not convert:
            pretrained(target)
        else:
            save(model, target / "model.safetensors")
    return model


def _pack(model: nn.Module, recipes: Mapping[str, Recipe], masks: Mapping[str, Tensor]) -> nn.Module:
    for pattern in dict.fromkeys(stored_pattern(recipe.pattern, (1, 1)) for recipe in recipes.values()):
        names = {
            name for name, recipe in recipes.items() if stored_pattern(recipe.pattern, (1, 1)) == pattern
        }
        mine = {name: masks[name] for name in names}
        model = sparsify_(model, pattern, lambda _, name, names=names: name in names, masks=mine)  # type: ignore[misc]
    return model
