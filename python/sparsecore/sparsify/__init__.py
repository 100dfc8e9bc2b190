"""Which weights go: scores, allocations, schedules and weight rules that compose, and one-shot pruning."""

from sparsecore.sparsify.allocation import OneShot, Uniform
from sparsecore.sparsify.once import Recipe, apply_recipe, prune_once
from sparsecore.sparsify.presets import alps, magnitude, sparsegpt, wanda
from sparsecore.sparsify.scores import Magnitude, OBSScore, Wanda
from sparsecore.sparsify.weights import ADMM, OBS, Keep

__all__ = [
    "ADMM",
    "OBS",
    "Keep",
    "Magnitude",
    "OBSScore",
    "OneShot",
    "Recipe",
    "Uniform",
    "Wanda",
    "alps",
    "apply_recipe",
    "magnitude",
    "prune_once",
    "sparsegpt",
    "wanda",
]
