"""How much a weight is worth: higher means keep. Scores are local to a layer.

A score sees the current weight as a matrix and what is known about it; it never sees the pattern. Where the
statistics allow it may be asked about any run of columns, which is what the column-by-column weight rules do.
The score of a group is the sum over its weights, so scores must add up: ``w^2``, or ``|w|`` for L1 norms of groups.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """What is known about a matrix, or a run of its columns, besides its weights.

    Attributes:
        norm: ``(columns,)``, root mean square of the input, or None without data.
        pivot: ``(columns,)``, diagonal of U where ``H^-1 = U^T U``: its square is what the inverse second
            moment of a column becomes once all columns before it are settled. None without data.
        grad: ``(rows, columns)``, gradient of the loss by the weight the layer computes with, zeros included.
        key: Name of the layer, for random numbers of its own.
        step: Training step, for random numbers of its own.
    """

    norm: Tensor | None = None
    pivot: Tensor | None = None
    grad: Tensor | None = None
    key: str = ""
    step: int = 0


class Score(Protocol):
    """Value of every weight of a matrix."""

    requires: ClassVar[frozenset[str]]  # which of the statistics, of {"norm", "pivot", "grad", "key"}

    def __call__(self, weight: Tensor, stats: Statistics) -> Tensor:
        """Scores ``weight`` ``(rows, columns)``; the result has its shape."""
        ...


@dataclass(frozen=True)
class Magnitude:
    """``w^2``: orders weights as ``|w|`` does, and adds up over the rows of a group."""

    requires: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, weight: Tensor, stats: Statistics) -> Tensor:
        return weight.square()


@dataclass(frozen=True)
class Absolute:
    """``|w|``: the score of a group is its L1 norm (1xN, Lin et al. 2022)."""

    requires: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, weight: Tensor, stats: Statistics) -> Tensor:
        return weight.abs()


@dataclass(frozen=True)
class SignedMagnitude:
    """Rank of ``|w|`` among the non-zero weights of the same sign, as a share: SET prunes both signs alike.

    Zero weights score 0. Source: Mocanu et al. 2018, Scalable training with adaptive sparse connectivity.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, weight: Tensor, stats: Statistics) -> Tensor:
        flat = weight.flatten()
        score = torch.zeros_like(flat)
        for side in (flat > 0, flat < 0):
            count = int(side.sum())
            if count:
                order = flat[side].abs().argsort(stable=True)
                rank = torch.empty(count, dtype=flat.dtype, device=flat.device)
                rank[order] = torch.arange(1, count + 1, dtype=flat.dtype, device=flat.device) / count
                score[side] = rank
        return score.view_as(weight)


@dataclass(frozen=True)
class Wanda:
    """``w^2 E[x_j^2]``: the squared change of the output if this weight alone went."""

    requires: ClassVar[frozenset[str]] = frozenset({"norm"})

    def __call__(self, weight: Tensor, stats: Statistics) -> Tensor:
        assert stats.norm is not None
        return weight.square() * stats.norm.square()


@dataclass(frozen=True)
class OBSScore:
    """``w^2 / U_jj^2``: the loss of removing a weight when the columns after it make up for it."""

    requires: ClassVar[frozenset[str]] = frozenset({"pivot"})

    def __call__(self, weight: Tensor, stats: Statistics) -> Tensor:
        assert stats.pivot is not None
        return weight.square() / stats.pivot.square()


@dataclass(frozen=True)
class Saliency:
    """``|w dL/dw|``: first-order change of the loss if the weight went, the score of SNIP."""

    requires: ClassVar[frozenset[str]] = frozenset({"grad"})

    def __call__(self, weight: Tensor, stats: Statistics) -> Tensor:
        assert stats.grad is not None
        return (weight * stats.grad).abs()


@dataclass(frozen=True)
class Random:
    """Uniform random numbers: the same for the same seed, layer and step, whatever the thread count or rank."""

    requires: ClassVar[frozenset[str]] = frozenset({"key"})

    seed: int = 0

    def __call__(self, weight: Tensor, stats: Statistics) -> Tensor:
        return uniform(weight, self.seed, stats.key, stats.step)


def uniform(like: Tensor, seed: int, key: str, step: int) -> Tensor:
    """Numbers in ``[0, 1)`` in the shape and on the device of ``like``, drawn from a stream of their own."""
    digest = hashlib.blake2b(f"{seed}/{step}/{key}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
    return torch.rand(like.shape, generator=generator, dtype=torch.float32).to(like.device)
