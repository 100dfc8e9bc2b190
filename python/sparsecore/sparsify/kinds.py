"""Patterns that depend on the kind of operator a weight belongs to, as kernels of networks for images want them.

kind        weight                 a group of SparseByteNN                            here
linear      (K, C)                 N outputs x 1 input                                Group(N, 1)
pointwise   (K, C, 1, 1)           the same                                           Group(N, 1)
conv        (K, C, k, k)           N outputs x 1 input x one tap                      Group(N, 1)
            or                     N outputs x 1 input x all taps, a whole kernel     Kernels(N)
depthwise   (C, 1, k, k)           M channels x one tap                               Group(M, 1)

A layer's groups compete by the sum of their scores: in the whole layer with ``Uniform(s, "layer")``, over all layers
with ``Global(s)``, and with ``Uniform(s, "row")`` inside each run of N outputs, so that all runs keep the same number
of groups and kernels the same trip count. Source: SparseByteNN (Xu et al. 2023); 1xN (Lin et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from sparsecore.formats.matrices import from_matrix, to_matrix
from sparsecore.patterns import Channel, Group, Pattern, Unstructured
from sparsecore.patterns import pattern as parse_pattern


@dataclass(frozen=True)
class Kernels:
    """Keeps or drops whole kernels: ``rows`` neighbouring outputs x 1 input x all taps of a convolution.

    A weight without taps is pruned as by ``Group(rows, 1)``, which is also how such weights are stored.

    Attributes:
        rows: Neighbouring output channels of a group: 1, 2, 4, 8, 16, 32 or 64.
    """

    rows: int = 1

    def __post_init__(self) -> None:
        if self.rows != 1:
            Group(self.rows, 1)

    @property
    def stored(self) -> Pattern:
        """The pattern of one tap."""
        return Unstructured() if self.rows == 1 else Group(self.rows, 1)

    def __str__(self) -> str:
        return f"{self.rows}x1 groups of whole kernels"


Part: TypeAlias = Group | Unstructured | Kernels


@dataclass(frozen=True)
class PerKind:
    """A pattern for each kind of operator, told apart by the shapes of weights.

    A convolution of a single input channel counts as depthwise.

    Attributes:
        linear: Of linear layers.
        pointwise: Of convolutions whose kernel is one tap.
        conv: Of other convolutions.
        depthwise: Of convolutions with one input per group.

    Raises:
        ValueError: A part is neither a group, nor ``Kernels``, nor ``Unstructured``, nor the short name of one.
    """

    linear: Part
    pointwise: Part
    conv: Part
    depthwise: Part

    def __post_init__(self) -> None:
        for kind in ("linear", "pointwise", "conv", "depthwise"):
            part = getattr(self, kind)
            part = parse_pattern(part) if isinstance(part, str) else part
            if not isinstance(part, (Group, Unstructured, Kernels)):
                raise ValueError(f"PerKind: {kind} must be Group, Kernels or Unstructured, got {part}.")
            object.__setattr__(self, kind, part)

    def of(self, shape: tuple[int, ...]) -> Part:
        """The pattern of a weight of this shape."""
        if len(shape) == 2:
            return self.linear
        if math.prod(shape[2:]) == 1:
            return self.pointwise
        return self.depthwise if shape[1] == 1 else self.conv

    def __str__(self) -> str:
        return (
            f"linear {self.linear}, pointwise {self.pointwise}, convolutions {self.conv}, "
            f"depthwise {self.depthwise}"
        )


@dataclass(frozen=True)
class ByWidth:
    """Another pattern for wide layers: coarse groups cost little accuracy where there are many channels.

    Attributes:
        narrow: Of layers with fewer inputs and fewer outputs.
        wide: Of layers with at least ``channels`` inputs or outputs.
        channels: Where wide begins.
    """

    narrow: Part
    wide: Part
    channels: int

    def __post_init__(self) -> None:
        for name in ("narrow", "wide"):
            part = getattr(self, name)
            object.__setattr__(self, name, parse_pattern(part) if isinstance(part, str) else part)

    def of(self, shape: tuple[int, ...]) -> Part:
        """The pattern of a weight of this shape."""
        return self.wide if max(shape[:2]) >= self.channels else self.narrow

    def __str__(self) -> str:
        return f"{self.narrow}, from {self.channels} channels on {self.wide}"


AnyPattern: TypeAlias = Pattern | Kernels | PerKind | ByWidth


def part_for(pattern: AnyPattern, shape: tuple[int, ...]) -> Pattern | Kernels:
    """What a pattern means for a weight of this shape."""
    return pattern.of(shape) if isinstance(pattern, (PerKind, ByWidth)) else pattern


def stored_pattern(pattern: AnyPattern, shape: tuple[int, ...]) -> Pattern:
    """The pattern in which a packed weight of this shape may be held."""
    part = part_for(pattern, shape)
    return part.stored if isinstance(part, Kernels) else part


def as_matrix(values: Tensor, pattern: AnyPattern) -> tuple[Tensor, Pattern]:
    """Values of the weights of a layer as the matrix its pattern is about, and that pattern.

    Args:
        values: ``(out, in, *taps)``, scores or, as bool, a mask.
        pattern: Of the network.

    Returns:
        ``(out, taps * in)`` as :func:`~sparsecore.formats.matrices.to_matrix` has it; for whole kernels ``(out, in)``,
        means over the taps, or whether any tap is True.
    """
    shape = tuple(values.shape)
    if isinstance(part_for(pattern, shape), Kernels) and len(shape) > 2:
        taps = values.flatten(2)
        values = taps.any(2) if values.dtype == torch.bool else taps.mean(2)
    return to_matrix(values), stored_pattern(pattern, shape)


def as_weight(matrix: Tensor, like: Tensor, pattern: AnyPattern) -> Tensor:
    """The inverse of :func:`as_matrix` for masks, in the shape of ``like``."""
    if like.dim() > 2 and isinstance(part_for(pattern, tuple(like.shape)), Kernels):
        return matrix.reshape(*matrix.shape, *(1 for _ in like.shape[2:])).expand_as(like).contiguous()
    return from_matrix(matrix, like)


def parts_of(pattern: AnyPattern) -> list[Pattern]:
    """Every pattern that layers may be asked to follow, each once."""
    parts: list[Pattern | Kernels]
    if isinstance(pattern, PerKind):
        parts = [pattern.linear, pattern.pointwise, pattern.conv, pattern.depthwise]
    elif isinstance(pattern, ByWidth):
        parts = [pattern.narrow, pattern.wide]
    else:
        parts = [pattern]
    return list(dict.fromkeys(part.stored if isinstance(part, Kernels) else part for part in parts))


def parse(pattern: AnyPattern | str) -> AnyPattern:
    """A pattern from its short name, or as it is."""
    return pattern if isinstance(pattern, (Kernels, PerKind, ByWidth)) else parse_pattern(pattern)


def choose_group(mask: Tensor, *, sizes: Sequence[int] = (4, 2), fill: float = 0.9) -> Group | Unstructured:
    """The longest groups of outputs in which a mask may be stored without storing many zeros.

    A group is stored as soon as one of its weights is kept; the rule of Fast Sparse ConvNets (Elsen et al. 2020) takes
    the first size whose stored groups are at least 90 % full.

    Args:
        mask: ``(out, in)`` or ``(out, in, *taps)``, True (or not zero) where kept.
        sizes: Outputs per group, in the order they are tried.
        fill: Share of the stored weights that has to be kept. Outputs after the last whole group do not count.

    Returns:
        ``Group(size, 1)``, or ``Unstructured()`` where no size fits.

    Raises:
        ValueError: A mask without rows and columns, or a fill outside ``(0, 1]``.
    """
    if mask.dim() < 2 or not 0.0 < fill <= 1.0:
        raise ValueError(
            f"choose_group: needs a mask (out, in) and a fill in (0, 1], got shape {tuple(mask.shape)} and {fill}."
        )
    kept = to_matrix(mask.detach() != 0)
    for size in sizes:
        whole = kept[: len(kept) // size * size].reshape(len(kept) // size, size, kept.shape[1])
        stored = size * int(whole.any(1).sum())
        if stored and int(whole.sum()) >= fill * stored:
            return Group(size, 1)
    return Unstructured()


def is_grouped(pattern: AnyPattern) -> bool:
    """Whether neighbouring channels share a decision anywhere, so that their order matters."""
    return any(isinstance(part, Group) for part in parts_of(pattern)) and not isinstance(pattern, Channel)
