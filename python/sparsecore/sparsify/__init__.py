"""Which weights go: scores, allocations, schedules and weight rules that compose, and one-shot pruning."""

from sparsecore.sparsify.allocation import Uniform
from sparsecore.sparsify.gradients import SRSTE, STE, Hard
from sparsecore.sparsify.grow import Fraction, GradientGrow, MomentumGrow, RandomGrow, UnfiredGrow
from sparsecore.sparsify.once import apply_recipe, prune_once
from sparsecore.sparsify.packed import exchange_
from sparsecore.sparsify.presets import alps, magnitude, sparsegpt, wanda
from sparsecore.sparsify.recipe import Recipe, Start
from sparsecore.sparsify.schedules import Constant, Cubic, EveryForward, OneShot
from sparsecore.sparsify.scores import Magnitude, OBSScore, Random, Saliency, SignedMagnitude, Wanda
from sparsecore.sparsify.sparsifier import Sparsifier
from sparsecore.sparsify.weights import ADMM, OBS, Keep

__all__ = [
    "ADMM",
    "OBS",
    "SRSTE",
    "STE",
    "Constant",
    "Cubic",
    "EveryForward",
    "Fraction",
    "GradientGrow",
    "Hard",
    "Keep",
    "Magnitude",
    "MomentumGrow",
    "OBSScore",
    "OneShot",
    "Random",
    "RandomGrow",
    "Recipe",
    "Saliency",
    "SignedMagnitude",
    "Sparsifier",
    "Start",
    "UnfiredGrow",
    "Uniform",
    "Wanda",
    "alps",
    "apply_recipe",
    "exchange_",
    "magnitude",
    "prune_once",
    "sparsegpt",
    "wanda",
]
