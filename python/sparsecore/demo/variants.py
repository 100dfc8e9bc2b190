"""The sparse models of the demo: which patterns, how they are made and how they are run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.demo.source import Source
from sparsecore.demo.store import write_atomically

Prune = Callable[..., dict[str, Tensor]]
METHODS: dict[str, Prune] = {"alps": sc.sparsify.alps, "sparsegpt": sc.sparsify.sparsegpt}


@dataclass(frozen=True)
class Variant:
    """A pattern and how much of it.

    Attributes:
        key: For file names.
        title: For people.
        pattern: What may be kept; None: what :func:`sparsecore.advise` proposes for each layer.
        sparsity: Fraction of zeros, where the pattern leaves it open.
        latency: Budget for the advice, a share of the dense time on one thread.
        steps: Of recovery after pruning; 0: pruned in one shot and left at that.
        lr: Learning rate of the recovery.
    """

    key: str
    title: str
    pattern: sc.Pattern | None
    sparsity: float | None = None
    latency: float | None = None
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
            steps=steps,
            lr=lr,
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
    Variant("advised-60", "advised, 60 % of the time", None, latency=0.6, steps=150, lr=5e-4),
    Variant("advised-45", "advised, 45 % of the time", None, latency=0.45, steps=200, lr=1e-3),
)

# The recognizer has few redundant weights, and its pictures are quick to learn from.
READING = (
    Variant("unstructured-50", "unstructured 50 %", sc.Unstructured(), 0.5),
    Variant("nm-2-4", "2:4 per row", sc.NM(2, 4)),
    Variant("unstructured-70", "unstructured 70 %", sc.Unstructured(), 0.7, steps=100, lr=5e-4),
    Variant("unstructured-85", "unstructured 85 %", sc.Unstructured(), 0.85, steps=200, lr=1e-3),
)
READING_FULL = (
    *READING,
    Variant("unstructured-90", "unstructured 90 %", sc.Unstructured(), 0.9, steps=300, lr=2e-3),
    Variant("nm-1-4", "1:4 per row", sc.NM(1, 4), steps=300, lr=1e-3),
    Variant("nm-2-4-shared-16", "2:4 shared by 16 rows", sc.NM(2, 4, vector=16), steps=300, lr=1e-3),
    Variant("groups-16-75", "16x1 groups 75 %", sc.Group(16, 1), 0.75, steps=300, lr=1e-3),
    Variant("advised-60", "advised, 60 % of the time", None, latency=0.6, steps=150, lr=1e-3),
)


def advise(source: Source, progress: bool) -> sc.Advice:
    """Times patterns for every layer on one thread, for single inputs, and judges them on the calibration data."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return sc.advise(
            source.make(),
            data=[source.timing(1), *source.calibration],
            targets=source.targets,
            seconds=20.0,
            progress=progress,
        )
    finally:
        torch.set_num_threads(before)


def prune(
    source: Source,
    variant: Variant,
    method: str,
    path: Path,
    progress: bool,
    advice: Callable[[], sc.Advice],
) -> None:
    """Prunes a fresh model, packs it and writes it to ``path``; a variant without a pattern asks for ``advice``."""
    model = source.make()
    if variant.pattern is None:
        chosen = advice().choose(latency=variant.latency)
        chosen.apply_(model, source.calibration, method=method, progress=progress)
        write_atomically(path, lambda target: sc.save(model, target))
        return
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
        output=source.task.compared,
        checkpoint=path.with_suffix(".checkpoint"),
        progress=progress,
        title=f"recovering {variant.title}",
    )
    write_atomically(path, lambda target: sc.save(model, target))
    return found.losses


def load(source: Source, path: Path) -> nn.Module:
    """The packed model, for inference."""
    return sc.load(source.make(), path).eval().requires_grad_(False)
