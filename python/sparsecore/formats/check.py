"""Says where, and how often, a weight breaks a pattern."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecore.formats.matrices import to_matrix
from sparsecore.formats.select import decided_rows, spread, tiles, unit_shape
from sparsecore.patterns import NM, VNM, Channel, Pattern, VariableNM
from sparsecore.patterns import pattern as parse_pattern


@dataclass(frozen=True)
class PatternReport:
    """What :func:`check_pattern` found.

    Attributes:
        pattern: The pattern asked about.
        sparsity: Fraction of exact zeros.
        groups: Groups looked at.
        violations: Groups that keep too much.
        first: Row (of output channels) and first column of the first violation, or None.
    """

    pattern: Pattern
    sparsity: float
    groups: int
    violations: int
    first: tuple[int, int] | None

    @property
    def ok(self) -> bool:
        """True where the pattern holds everywhere."""
        return self.violations == 0

    def __str__(self) -> str:
        if self.ok:
            return f"{self.pattern}: holds in all {self.groups} groups, {self.sparsity:.1%} zeros"
        return (
            f"{self.pattern}: broken in {self.violations} of {self.groups} groups, first at row {self.first[0]}, "  # type: ignore[index]
            f"column {self.first[1]}, {self.sparsity:.1%} zeros"  # type: ignore[index]
        )


def mask_violations(mask: Tensor, pattern: Pattern) -> tuple[Tensor, int]:
    """Which groups of ``mask`` (``(n, k)``, True = kept) break the pattern, and how many columns a group spans.

    N:M groups break it by keeping more than n, V:N:M also by using more than four inputs. Of a two-way pattern a group
    is a tile of 4 x 4. Weights that are kept together break it by being kept apart.
    """
    if isinstance(pattern, Channel):
        side = 1 if pattern.side == "out" else 0
        torn = mask.any(side, keepdim=True) & ~mask.all(side, keepdim=True)
        return torn, mask.shape[1] if side else 1
    if isinstance(pattern, VariableNM):  # a dense block is one too
        return torch.zeros(mask.shape[0] // 16, mask.shape[1] // 16, dtype=torch.bool), 16
    if isinstance(pattern, VNM):
        used = tiles(tiles(mask.int(), pattern.vector, 1).sum((1, 3)).bool().int(), 1, pattern.m).sum((1, 3))
        own = tiles(tiles(mask.int(), 1, pattern.m).sum((1, 3)), pattern.vector, 1).amax((1, 3))
        return (used > 4) | (own > pattern.n), pattern.m
    rows, cols = unit_shape(pattern)
    count = tiles(mask.int(), rows, cols).sum((1, 3))
    size = tiles(torch.ones_like(mask, dtype=torch.int), rows, cols).sum((1, 3))
    kept, partial = count > 0, (count > 0) & (count < size)
    if not isinstance(pattern, NM):
        return partial, cols
    if pattern.two_way:
        tile = tiles(mask.int(), 4, 4)
        return (tile.sum(3).amax(1) > 2) | (tile.sum(1).amax(2) > 2), 4
    runs, torn = tiles(kept.int(), 1, pattern.m).sum((1, 3)), tiles(partial.int(), 1, pattern.m).sum((1, 3))
    return (runs > pattern.n) | (torn > 0), pattern.m


def check_pattern(weight: Tensor, pattern: Pattern | str) -> PatternReport:
    """Does the non-zero part of a dense weight follow a pattern?

    Shared patterns (``vector > 1``, ``Group``, ``Channel``) are judged by what they share: zeros inside a kept column,
    block or channel do no harm. A convolution is judged as the matrix it multiplies by, input channels innermost.

    Args:
        weight: ``(out_features, in_features)``, or ``(out_channels, in_channels, *kernel)``.
        pattern: For example ``NM(2, 4)`` or ``"4x4"``.

    Raises:
        ValueError: The weight has less than two dimensions.
    """
    pattern = parse_pattern(pattern)
    if weight.dim() < 2:
        raise ValueError(
            f"check_pattern: weight must be (out_features, in_features) or (out_channels, in_channels, *kernel), got "
            f"shape {tuple(weight.shape)}."
        )
    weight = to_matrix(weight)
    rows, cols = unit_shape(pattern)
    mask = weight.detach() != 0
    if isinstance(pattern, Channel):
        whole = mask.any(1 if pattern.side == "out" else 0, keepdim=True).expand(mask.shape)
    else:  # what any weight of a unit uses counts as kept by all
        used = tiles(mask.int(), rows, cols).sum((1, 3)) > 0
        whole = spread(used, rows, cols, (mask.shape[0], mask.shape[1]))
    broken, width = mask_violations(whole, pattern)
    places = broken.nonzero()
    height = 1 if isinstance(pattern, Channel) else decided_rows(pattern)
    first = (int(places[0, 0]) * height, int(places[0, 1]) * width) if len(places) else None
    zeros = 1.0 - float(mask.sum()) / max(mask.numel(), 1)
    return PatternReport(pattern, zeros, broken.numel(), len(places), first)
