"""The sparse models of the demo: which patterns, how they are made and how they are run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.demo.encoder import Source, sentence_embedding
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
        steps: Of recovery after pruning; 0: pruned in one shot and left at that.
        lr: Learning rate of the recovery.
    """

    key: str
    title: str
    pattern: sc.Pattern
    sparsity: float | None = None
    steps: int = 0
    lr: float = 5e-4


VARIANTS = (
    Variant("unstructured-50", "unstructured 50 %", sc.Unstructured(), 0.5),
    Variant("nm-2-4", "2:4 per row", sc.NM(2, 4), steps=80, lr=3e-4),
    Variant("nm-2-4-shared", "2:4 shared by 64 rows", sc.NM(2, 4, vector=64)),
    Variant("unstructured-70", "unstructured 70 %", sc.Unstructured(), 0.7, steps=60, lr=5e-4),
    Variant("unstructured-85", "unstructured 85 %", sc.Unstructured(), 0.85, steps=120, lr=1e-3),
)

# The whole curve: everything that leaves something to learn is recovered.
FULL = (
    *(
        Variant(
            f"unstructured-{percent}",
            f"unstructured {percent} %",
            sc.Unstructured(),
            percent / 100,
            steps,
            lr,
        )
        for percent, steps, lr in (
            (50, 100, 3e-4),
            (60, 100, 3e-4),
            (70, 150, 5e-4),
            (80, 200, 1e-3),
            (90, 300, 1e-3),
            (95, 300, 1e-3),
        )
    ),
    Variant("nm-2-4", "2:4 per row", sc.NM(2, 4), steps=150, lr=3e-4),
    Variant("nm-1-4", "1:4 per row", sc.NM(1, 4), steps=200, lr=1e-3),
    Variant("nm-2-4-shared-16", "2:4 shared by 16 rows", sc.NM(2, 4, vector=16), steps=300, lr=1e-3),
    Variant("nm-2-4-shared-64", "2:4 shared by 64 rows", sc.NM(2, 4, vector=64), steps=300, lr=1e-3),
    Variant("nm-3-4-shared-16", "3:4 shared by 16 rows", sc.NM(3, 4, vector=16), steps=200, lr=5e-4),
    Variant("groups-16-50", "16x1 groups 50 %", sc.Group(16, 1), 0.5, steps=300, lr=1e-3),
    Variant("groups-16-75", "16x1 groups 75 %", sc.Group(16, 1), 0.75, steps=300, lr=1e-3),
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


def recover(
    source: Source, variant: Variant, steps: int, pruned: Path, path: Path, progress: bool
) -> list[float]:
    """Distils a pruned model from the dense one and writes it to ``path``; an interrupted run goes on.

    Returns:
        Mean loss of each tenth of the steps.
    """
    model = sc.load(source.make(), pruned)
    found = sc.sparsify.recover(
        model,
        source.make(),
        source.learning or source.calibration,
        steps=steps,
        lr=variant.lr,
        output=sentence_embedding,
        checkpoint=path.with_suffix(".checkpoint"),
        progress=progress,
        title=f"recovering {variant.title}",
    )
    write_atomically(path, lambda target: sc.save(model, target))
    return found.losses


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
