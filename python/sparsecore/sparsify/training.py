"""Published methods of pruning while training, as recipes for :class:`~sparsecore.sparsify.Sparsifier`.

Each is a composition that can be taken apart again: ``dataclasses.replace(rigl(...), score=...)``.
"""

from __future__ import annotations

from sparsecore.patterns import NM, Pattern, Unstructured
from sparsecore.patterns import pattern as parse_pattern
from sparsecore.sparsify.allocation import ERK, Allocation, Global, Uniform
from sparsecore.sparsify.gradients import SRSTE
from sparsecore.sparsify.grow import Fraction, GradientGrow, RandomGrow
from sparsecore.sparsify.recipe import Recipe, Start
from sparsecore.sparsify.schedules import Constant, Cubic, EveryForward, OneShot
from sparsecore.sparsify.scores import Magnitude, Random, SignedMagnitude


def gmp(
    sparsity: float | None,
    *,
    start: int,
    stop: int,
    every: int = 100,
    pattern: Pattern | str = "unstructured",
    allocation: Allocation | None = None,
) -> Recipe:
    """Gradual magnitude pruning: a cubic ramp from dense to ``sparsity`` (Zhu and Gupta 2017).

    Args:
        sparsity: Final fraction of zeros; None for patterns that fix it, which then begin at ``start``.
        start: Step of the first update.
        stop: Step of the last.
        every: Steps between.
        pattern: What is kept together.
        allocation: Split over layers; ``Uniform(sparsity, "layer")`` by default.
    """
    chosen = parse_pattern(pattern)
    return Recipe(
        chosen,
        Magnitude(),
        allocation or Uniform(sparsity, "layer"),
        Cubic(start, stop, every),
    )


def static_random(sparsity: float, *, allocation: Allocation | None = None, seed: int = 0) -> Recipe:
    """A random mask that never changes, spread by ERK (Liu et al. 2022)."""
    return Recipe(Unstructured(), Random(seed), allocation or ERK(sparsity, within="layer"), OneShot())


def evolutionary(
    sparsity: float,
    *,
    steps: int,
    every: int = 100,
    zeta: float = 0.3,
    allocation: Allocation | None = None,
    seed: int = 0,
) -> Recipe:
    """SET: drop the weights nearest to zero of either sign, grow random ones (Mocanu et al. 2018).

    Args:
        sparsity: Fraction of zeros throughout.
        steps: Of the whole training; no update in the last quarter.
        every: Steps between updates; the paper's is an epoch.
        zeta: Share of the active weights exchanged.
        allocation: Split over layers; ERK by default (ER for linear layers).
        seed: Of the random choices.
    """
    split = allocation or ERK(sparsity, within="layer")
    return Recipe(
        Unstructured(),
        SignedMagnitude(),
        split,
        Constant(every, stop=max(1, steps * 3 // 4)),
        grow=RandomGrow(Fraction(zeta, decay="constant"), seed=seed),
        start=Start(Random(seed), split),
    )


def rigl(
    sparsity: float,
    *,
    steps: int,
    every: int = 100,
    fraction: float = 0.3,
    allocation: Allocation | None = None,
    seed: int = 0,
) -> Recipe:
    """RigL: drop by magnitude, grow where the dense gradient is largest (Evci et al. 2020).

    Args:
        sparsity: Fraction of zeros throughout.
        steps: Of the whole training; updates end after three quarters of it.
        every: Steps between updates.
        fraction: Share exchanged at first; it falls to 0 along a cosine.
        allocation: Split over layers; ERK by default.
        seed: Of the first mask.
    """
    stop = max(1, steps * 3 // 4)
    split = allocation or ERK(sparsity, within="layer")
    return Recipe(
        Unstructured(),
        Magnitude(),
        split,
        Constant(every, stop),
        grow=GradientGrow(Fraction(fraction, stop)),
        start=Start(Random(seed), split),
    )


def granet(
    sparsity: float,
    *,
    steps: int,
    stop: int,
    every: int = 100,
    initial: float = 0.5,
    fraction: float = 0.5,
    seed: int = 0,
) -> Recipe:
    """GraNet: a cubic ramp by global magnitude, and after each pruning an exchange by gradient (Liu et al. 2021).

    Args:
        sparsity: Final fraction of zeros.
        steps: Of the whole training: the exchange falls to 0.005 by then.
        stop: Step at which the ramp ends.
        every: Steps between updates.
        initial: Sparsity at the start, a random ERK mask; 0 starts dense.
        fraction: Share exchanged at first.
        seed: Of the first mask.
    """
    return Recipe(
        Unstructured(),
        Magnitude(),
        Global(sparsity),
        Cubic(0, stop, every, initial=initial, update_until=max(stop, steps)),
        grow=GradientGrow(Fraction(fraction, steps, floor=min(0.005, fraction)), skip_update=False),
        start=Start(Random(seed), ERK(initial, within="layer")) if initial > 0.0 else None,
    )


def sr_ste(pattern: NM | str = "2:4", *, decay: float = 2e-4) -> Recipe:
    """SR-STE: N:M from scratch, the mask chosen in every step, weights that are out fading (Zhou et al. 2021).

    Args:
        pattern: N:M, per row, shared or two-way.
        decay: Of masked weights.
    """
    chosen = parse_pattern(pattern)
    return Recipe(chosen, Magnitude(), Uniform(), EveryForward(), gradient=SRSTE(decay))
