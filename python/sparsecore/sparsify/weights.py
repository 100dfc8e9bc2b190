"""What happens to the weights that stay when others go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Tensor

from sparsecore.sparsify import solvers
from sparsecore.sparsify.calibration import Moments
from sparsecore.sparsify.scores import Score, Statistics
from sparsecore.sparsify.selection import Selector

Follow = Literal["dense", "pruned"]


class WeightRule(Protocol):
    """Chooses the support with a score and a selector, and says what the survivors become."""

    requires: ClassVar[frozenset[str]]  # of {"calibration"}
    provides: ClassVar[frozenset[str]]  # statistics it can hand to a score, of {"norm", "pivot", "key"}

    @property
    def follow(self) -> Follow:
        """Whose outputs a layer imitates: see :class:`OBS`."""
        ...

    def prune(
        self, weight: Tensor, moments: Moments | None, selector: Selector, score: Score, key: str = ""
    ) -> tuple[Tensor, Tensor]:
        """The new weight, zero outside the mask, and the mask; ``key`` names the layer."""
        ...


def _check_common(name: str, dampening: float, follow: str) -> None:
    if not dampening > 0.0:
        raise ValueError(f"{name}: dampening must be positive, got {dampening}.")
    if follow not in ("dense", "pruned"):
        raise ValueError(f"{name}: follow must be 'dense' or 'pruned', got {follow!r}.")


@dataclass(frozen=True)
class Keep:
    """Survivors keep their values."""

    requires: ClassVar[frozenset[str]] = frozenset()
    provides: ClassVar[frozenset[str]] = frozenset({"norm", "key"})
    follow: ClassVar[Follow] = "pruned"

    def prune(
        self, weight: Tensor, moments: Moments | None, selector: Selector, score: Score, key: str = ""
    ) -> tuple[Tensor, Tensor]:
        norm = None if moments is None else moments.second.diagonal().sqrt().float()
        mask = selector.mask(score(weight.float(), Statistics(norm, key=key)))
        return weight.float().masked_fill(~mask, 0.0), mask


@dataclass(frozen=True)
class OBS:
    """Optimal brain surgeon, column by column, as SparseGPT does it.

    Attributes:
        block_size: Columns updated together before the rest of the matrix catches up, and the run of columns
            inside which a pattern without groups is selected. Rounded down to whole groups.
        dampening: Added to the diagonal of the second moment, as a fraction of its mean.
        refit: Conjugate gradient steps towards least squares on the final support; 0 is the published method.
        follow: Whose outputs a layer imitates: with ``pruned`` those its dense weights would give for the
            inputs it gets now, with ``dense`` those of the untouched model, so that it corrects the layers in
            front of it.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"calibration"})
    provides: ClassVar[frozenset[str]] = frozenset({"norm", "pivot"})

    block_size: int = 128
    dampening: float = 0.01
    refit: int = 0
    follow: Follow = "pruned"

    def __post_init__(self) -> None:
        _check_common("OBS", self.dampening, self.follow)
        if self.block_size < 1 or self.refit < 0:
            raise ValueError(f"OBS: block_size must be positive and refit not negative, got {self}.")

    def prune(
        self, weight: Tensor, moments: Moments | None, selector: Selector, score: Score, key: str = ""
    ) -> tuple[Tensor, Tensor]:
        assert moments is not None
        problem = solvers.Problem.build(weight, moments.second, moments.cross, self.dampening)
        pruned, mask = solvers.obs(problem, selector, score, self.block_size)
        if self.refit:
            pruned = solvers.refit(problem, pruned, mask, self.refit)
        return pruned, mask


@dataclass(frozen=True)
class ADMM:
    """Alternating directions with a growing pull towards the pattern, then a refit, as ALPS does it.

    Slower than :class:`OBS` and clearly better, most of all for patterns that rows share.

    Attributes:
        steps: Most alternations; it stops as soon as the support does not change.
        pull: First penalty, in units of the scaled second moment (whose diagonal is 1).
        growth: Factor on the penalty after each step.
        refit: Conjugate gradient steps on the final support.
        dampening: As in :class:`OBS`.
        follow: As in :class:`OBS`.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"calibration"})
    provides: ClassVar[frozenset[str]] = frozenset({"norm"})

    steps: int = 40
    pull: float = 0.1
    growth: float = 1.15
    refit: int = 10
    dampening: float = 0.03
    follow: Follow = "dense"

    def __post_init__(self) -> None:
        _check_common("ADMM", self.dampening, self.follow)
        if self.steps < 1 or self.refit < 0 or not self.pull > 0.0 or not self.growth >= 1.0:
            raise ValueError(f"ADMM: needs steps >= 1, refit >= 0, pull > 0 and growth >= 1, got {self}.")

    def prune(
        self, weight: Tensor, moments: Moments | None, selector: Selector, score: Score, key: str = ""
    ) -> tuple[Tensor, Tensor]:
        assert moments is not None
        problem = solvers.Problem.build(weight, moments.second, moments.cross, self.dampening)
        pruned, mask = solvers.admm(problem, selector, score, self.steps, self.pull, self.growth)
        return solvers.refit(problem, pruned, mask, self.refit), mask
