"""Which weights go: scores, allocations, schedules and weight rules that compose, and one-shot pruning."""

from sparsecore.sparsify.aliases import StepSparsifier, WandaSparsifier, WeightNormSparsifier
from sparsecore.sparsify.allocation import (
    ER,
    ERK,
    LAMP,
    OWL,
    ERKPlus,
    Global,
    PerLayer,
    Uniform,
    UniformPlus,
)
from sparsecore.sparsify.asp import asp
from sparsecore.sparsify.budget import masks_from_scores
from sparsecore.sparsify.drivers import imp
from sparsecore.sparsify.gradients import SRSTE, STE, Hard
from sparsecore.sparsify.grow import Fraction, GradientGrow, MomentumGrow, RandomGrow, UnfiredGrow
from sparsecore.sparsify.hidden import find_pairs
from sparsecore.sparsify.initialization import grasp, snip, synflow
from sparsecore.sparsify.kinds import ByWidth, Kernels, PerKind, choose_group
from sparsecore.sparsify.masked import MaskedOptimizer, mask_parameters_, merge_lora, merge_lora_
from sparsecore.sparsify.masked_linear import MaskedLinear, pack_masked_, train_masked_
from sparsecore.sparsify.networks import fast_sparse_convnets, sparse_byte_nn
from sparsecore.sparsify.once import apply_recipe, prune_once
from sparsecore.sparsify.orderings import order_columns, order_rows
from sparsecore.sparsify.packed import exchange_
from sparsecore.sparsify.penalties import Distillation, LayerDistillation, SquareHead
from sparsecore.sparsify.permute import order_hidden_, permute_hidden_
from sparsecore.sparsify.presets import alps, magnitude, sparsegpt, wanda
from sparsecore.sparsify.ratios import allocation_report, from_scores
from sparsecore.sparsify.rearrange import Rearrangement, rearrange_
from sparsecore.sparsify.recipe import Recipe, Start
from sparsecore.sparsify.recipes import load_recipe, oneshot
from sparsecore.sparsify.recover import Recovery, recover
from sparsecore.sparsify.schedules import Constant, Cubic, EveryForward, OneShot
from sparsecore.sparsify.scores import Absolute, Magnitude, OBSScore, Random, Saliency, SignedMagnitude, Wanda
from sparsecore.sparsify.sparsifier import Sparsifier
from sparsecore.sparsify.training import evolutionary, gmp, granet, rigl, sr_ste, static_random
from sparsecore.sparsify.weights import ADMM, OBS, Keep

__all__ = [
    "ADMM",
    "ER",
    "ERK",
    "LAMP",
    "OBS",
    "OWL",
    "SRSTE",
    "STE",
    "Absolute",
    "ByWidth",
    "Constant",
    "Cubic",
    "Distillation",
    "ERKPlus",
    "EveryForward",
    "Fraction",
    "Global",
    "GradientGrow",
    "Hard",
    "Keep",
    "Kernels",
    "LayerDistillation",
    "Magnitude",
    "MaskedLinear",
    "MaskedOptimizer",
    "MomentumGrow",
    "OBSScore",
    "OneShot",
    "PerKind",
    "PerLayer",
    "Random",
    "RandomGrow",
    "Rearrangement",
    "Recipe",
    "Recovery",
    "Saliency",
    "SignedMagnitude",
    "Sparsifier",
    "SquareHead",
    "Start",
    "StepSparsifier",
    "UnfiredGrow",
    "Uniform",
    "UniformPlus",
    "Wanda",
    "WandaSparsifier",
    "WeightNormSparsifier",
    "allocation_report",
    "alps",
    "apply_recipe",
    "asp",
    "choose_group",
    "evolutionary",
    "exchange_",
    "fast_sparse_convnets",
    "find_pairs",
    "from_scores",
    "gmp",
    "granet",
    "grasp",
    "imp",
    "load_recipe",
    "magnitude",
    "mask_parameters_",
    "masks_from_scores",
    "merge_lora",
    "merge_lora_",
    "oneshot",
    "order_columns",
    "order_hidden_",
    "order_rows",
    "pack_masked_",
    "permute_hidden_",
    "prune_once",
    "rearrange_",
    "recover",
    "rigl",
    "snip",
    "sparse_byte_nn",
    "sparsegpt",
    "sr_ste",
    "static_random",
    "synflow",
    "train_masked_",
    "wanda",
]
