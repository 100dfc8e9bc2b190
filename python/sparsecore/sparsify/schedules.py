"""When the zeros come: how sparse a model is after each step, and at which steps the mask changes.

Steps count calls of ``optimizer.step()`` from 0; the mask of step t is chosen at the end of that call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol


class Schedule(Protocol):
    """Sparsity over time."""

    persistent: ClassVar[
        bool
    ]  # whether a mask lives on between updates; False: it is chosen anew in every forward

    def sparsity(self, final: float, step: int) -> float:
        """Sparsity of the mask chosen at ``step`` on the way to ``final``."""
        ...

    def is_update(self, step: int) -> bool:
        """Whether the mask changes at ``step``."""
        ...

    @property
    def starts_sparse(self) -> bool:
        """Whether a mask is needed before the first step."""
        ...


def _require(owner: object, holds: bool, needed: str) -> None:
    if not holds:
        raise ValueError(f"{type(owner).__name__}: {needed}, got {owner}.")


@dataclass(frozen=True)
class OneShot:
    """All zeros come at once, before the first step, and the mask never changes."""

    persistent: ClassVar[bool] = True
    starts_sparse: ClassVar[bool] = True

    def sparsity(self, final: float, step: int) -> float:
        return final

    def is_update(self, step: int) -> bool:
        return False


@dataclass(frozen=True)
class Cubic:
    """Gradual pruning: ``s(t) = s_f + (s_i - s_f) (1 - progress)^power`` between two steps.

    The last update, at ``stop``, reaches the final sparsity exactly. Source: Zhu and Gupta 2017, To prune, or not
    to prune (power 3).

    Attributes:
        start: Step of the first update.
        stop: Step at which the final sparsity is reached.
        every: Steps between updates.
        initial: Sparsity at ``start``; above 0 training starts with such a mask.
        power: Of the ramp.
        update_until: Updates at the final sparsity go on until this step (for growth); None: until ``stop``.
    """

    persistent: ClassVar[bool] = True

    start: int
    stop: int
    every: int = 100
    initial: float = 0.0
    power: float = 3.0
    update_until: int | None = None

    def __post_init__(self) -> None:
        _require(self, 0 <= self.start < self.stop, "needs 0 <= start < stop")
        _require(self, self.every >= 1, "every must be at least 1")
        _require(self, 0.0 <= self.initial < 1.0, "initial is a fraction of zeros in [0, 1)")
        _require(self, self.power > 0.0, "power must be positive")
        _require(
            self,
            self.update_until is None or self.update_until >= self.stop,
            "update_until must not lie before stop",
        )

    @property
    def starts_sparse(self) -> bool:
        return self.initial > 0.0

    def sparsity(self, final: float, step: int) -> float:
        _require(self, self.initial <= final, f"initial must not exceed the final sparsity {final:g}")
        progress = min(max((step - self.start) / (self.stop - self.start), 0.0), 1.0)
        remaining: float = (1.0 - progress) ** self.power
        return self.initial * remaining + final * (1.0 - remaining)

    def is_update(self, step: int) -> bool:
        last = self.stop if self.update_until is None else self.update_until
        regular = self.start <= step <= last and (step - self.start) % self.every == 0
        return regular or step == self.stop


@dataclass(frozen=True)
class Constant:
    """A fixed sparsity from the first step on; the mask changes every so often, until ``stop``.

    Attributes:
        every: Steps between updates.
        stop: No update from this step on; None: updates never end.
    """

    persistent: ClassVar[bool] = True
    starts_sparse: ClassVar[bool] = True

    every: int = 100
    stop: int | None = None

    def __post_init__(self) -> None:
        _require(self, self.every >= 1, "every must be at least 1")
        _require(self, self.stop is None or self.stop >= 0, "stop must not be negative")

    def sparsity(self, final: float, step: int) -> float:
        return final

    def is_update(self, step: int) -> bool:
        return step > 0 and step % self.every == 0 and (self.stop is None or step < self.stop)


@dataclass(frozen=True)
class EveryForward:
    """The mask is chosen anew from the current weights in every step; the dense weights live on beneath it."""

    persistent: ClassVar[bool] = False
    starts_sparse: ClassVar[bool] = True

    def sparsity(self, final: float, step: int) -> float:
        return final

    def is_update(self, step: int) -> bool:
        return True
