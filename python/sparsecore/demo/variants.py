"""The sparse models of the demo: which patterns, how they are made and how they are run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.demo.encoder import Source
from sparsecore.demo.store import write_atomically

Prune = Callable[..., dict[str, Tensor]]
METHODS: dict[str, Prune] = {"alps": sc.sparsify.alps, "sparsegpt": sc.sparsify.sparsegpt}


@dataclass(frozen=True)
class Variant:
    """A pattern and how much of it.

    Attributes:
        key: For file names.
        title: For people.
        pattern: What may be kept.
        sparsity: Fraction of zeros, where the pattern leaves it open.
    """

    key: str
    title: str
    pattern: sc.Pattern
    sparsity: float | None = None


VARIANTS = (
    Variant("unstructured-50", "unstructured 50 %", sc.Unstructured(), 0.5),
    Variant("nm-2-4", "2:4 per row", sc.NM(2, 4)),
    Variant("nm-2-4-shared", "2:4 shared by 64 rows", sc.NM(2, 4, vector=64)),
    Variant("unstructured-90", "unstructured 90 %", sc.Unstructured(), 0.9),
)


def prune(source: Source, variant: Variant, method: str, path: Path, progress: bool) -> None:
    """Prunes a fresh model, packs it and writes it to ``path``."""
    model = source.make()
    masks = METHODS[method](
        model,
        variant.pattern,
        source.calibration,
        sparsity=variant.sparsity,
        targets=source.targets,
        progress=progress,
    )
    sc.sparsify_(model, variant.pattern, lambda _, name: name in masks, masks=masks)
    write_atomically(path, lambda target: sc.save(model, target))


def load(source: Source, path: Path) -> nn.Module:
    """The packed model, for inference."""
    return sc.load(source.make(), path).eval().requires_grad_(False)


def fuse_gelu(model: nn.Module) -> nn.Module:
    """Lets packed layers apply the activation that follows them, in a BERT of transformers.

    ``BertIntermediate`` is a linear layer and then ``intermediate_act_fn``; the kernel does both at once.
    """
    for module in model.modules():
        linear, activation = getattr(module, "dense", None), getattr(module, "intermediate_act_fn", None)
        if isinstance(linear, sc.nn.SparseLinear) and _is_exact_gelu(activation):
            linear.activation = "gelu"
            module.intermediate_act_fn = nn.Identity()
    return model


def _is_exact_gelu(activation: Any) -> bool:
    """Whether an activation computes what the kernels call gelu, by trying it."""
    if not callable(activation) or isinstance(activation, nn.Identity):
        return False
    x = torch.linspace(-6.0, 6.0, 101)
    return torch.equal(activation(x), nn.functional.gelu(x))
