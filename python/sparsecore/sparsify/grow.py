"""Who comes back: at an update the weakest active weights are exchanged for as many inactive ones.

A share f(t) of the active weights is dropped by the recipe's score; among the positions that are then inactive those
with the highest growth score take their places, at 0 and with fresh optimizer state. A weight that is dropped and
grown in the same update keeps its value. Where units compete in rows or N:M groups, each of them gets back as many as
it lost, so the pattern holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from sparsecore.sparsify.scores import Statistics, uniform

Decay = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class Fraction:
    """Share of active weights exchanged at a step: ``initial`` at 0, ``floor`` from ``stop`` on.

    Attributes:
        initial: Share at step 0, in ``[0, 1]``.
        stop: Step of the last exchange; None: ``initial`` throughout.
        decay: Curve between the two.
        floor: Share at ``stop``.
    """

    initial: float = 0.3
    stop: int | None = None
    decay: Decay = "cosine"
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.floor <= self.initial <= 1.0:
            raise ValueError(f"Fraction: needs 0 <= floor <= initial <= 1, got {self}.")
        if self.stop is not None and self.stop < 1:
            raise ValueError(f"Fraction: stop must be a positive step, got {self.stop}.")
        if self.decay not in ("cosine", "linear", "constant"):
            raise ValueError(f"Fraction: decay must be 'cosine', 'linear' or 'constant', got {self.decay!r}.")

    def at(self, step: int) -> float:
        """The share at ``step``."""
        if self.stop is None or self.decay == "constant":
            return self.initial
        progress = min(step / self.stop, 1.0)
        curve = 0.5 * (1.0 + math.cos(math.pi * progress)) if self.decay == "cosine" else 1.0 - progress
        return self.floor + (self.initial - self.floor) * curve


@dataclass(frozen=True)
class Candidates:
    """What a growth rule may look at, all of the shape of the weight matrix ``(rows, columns)``.

    Attributes:
        stats: Gradient, layer and step.
        momentum: The optimizer's running mean of the gradient, or None before it has one.
        ever: True where a weight has been active before.
    """

    stats: Statistics
    momentum: Tensor | None
    ever: Tensor


class Grow(Protocol):
    """Scores positions that could come back."""

    needs_grad: ClassVar[bool]

    @property
    def fraction(self) -> Fraction:
        """How much is exchanged."""
        ...

    @property
    def skip_update(self) -> bool:
        """Whether the optimizer leaves all parameters alone at steps that change the mask."""
        ...

    def __call__(self, weight: Tensor, candidates: Candidates) -> Tensor:
        """Growth score ``(rows, columns)``, not negative, higher comes back first."""
        ...


@dataclass(frozen=True)
class RandomGrow:
    """Anyone, drawn without replacement (SET)."""

    needs_grad: ClassVar[bool] = False

    fraction: Fraction = Fraction()
    skip_update: bool = False
    seed: int = 0

    def __call__(self, weight: Tensor, candidates: Candidates) -> Tensor:
        stats = candidates.stats
        return uniform(weight, self.seed, f"grow {stats.key}", stats.step)


@dataclass(frozen=True)
class UnfiredGrow:
    """Positions that were never active first, in random order; then anyone."""

    needs_grad: ClassVar[bool] = False

    fraction: Fraction = Fraction()
    skip_update: bool = False
    seed: int = 0

    def __call__(self, weight: Tensor, candidates: Candidates) -> Tensor:
        stats = candidates.stats
        return uniform(weight, self.seed, f"grow {stats.key}", stats.step) + (~candidates.ever).float()


@dataclass(frozen=True)
class GradientGrow:
    """The largest gradient by the zero that stands there (RigL).

    RigL leaves the weights alone at update steps: the gradient is spent on the mask.
    """

    needs_grad: ClassVar[bool] = True

    fraction: Fraction = Fraction()
    skip_update: bool = True

    def __call__(self, weight: Tensor, candidates: Candidates) -> Tensor:
        assert candidates.stats.grad is not None
        return candidates.stats.grad.square()


@dataclass(frozen=True)
class MomentumGrow:
    """The largest running mean of the gradient; the gradient itself while there is none."""

    needs_grad: ClassVar[bool] = True

    fraction: Fraction = Fraction()
    skip_update: bool = False

    def __call__(self, weight: Tensor, candidates: Candidates) -> Tensor:
        assert candidates.stats.grad is not None
        found = candidates.stats.grad if candidates.momentum is None else candidates.momentum
        return found.square()
