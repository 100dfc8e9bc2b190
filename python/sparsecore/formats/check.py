"""Says where, and how often, a weight breaks a pattern."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecore.formats.matrices import to_matrix
from sparsecore.formats.select import decided_rows, spread, unit_shape
from sparsecore.patterns import NM, VNM, Channel, Pattern, Unstructured, VariableNM
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
        used = _counts(_counts(mask, pattern.vector, 1) > 0, 1, pattern.m)
        own = _counts(_counts(mask, 1, pattern.m) > pattern.n, pattern.vector, 1)
        return (used > 4) | (own > 0), pattern.m
    rows, cols = unit_shape(pattern)
    if isinstance(pattern, NM) and pattern.two_way:
        along = _counts(_counts(mask, 1, 4) > 2, 4, 1)
        across = _counts(_counts(mask, 4, 1) > 2, 1, 4)
        return along + across > 0, 4
    if isinstance(pattern, NM) and pattern.vector == 1:
        return _counts(mask, 1, pattern.m) > pattern.n, pattern.m
    count = _counts(mask, rows, cols)
    kept, partial = count > 0, (count > 0) & (count < _sizes(mask, rows, cols))
    if not isinstance(pattern, NM):
        return partial, cols
    return (_counts(kept, 1, pattern.m) > pattern.n) | (_counts(partial, 1, pattern.m) > 0), pattern.m


def violations(mask: Tensor, pattern: Pattern) -> tuple[int, int, tuple[int, int] | None]:
    """Groups of ``mask``, how many break the pattern, and the row and column where the first of these begins."""
    broken, width = mask_violations(mask, pattern)
    places = broken.nonzero()
    if not len(places):
        return broken.numel(), 0, None
    height = 1 if isinstance(pattern, Channel) else decided_rows(pattern)
    return broken.numel(), len(places), (int(places[0, 0]) * height, int(places[0, 1]) * width)


def _counts(mask: Tensor, rows: int, cols: int) -> Tensor:
    """How many entries of each tile are True, ``(ceil(n / rows), ceil(k / cols))`` int16.

    A pass over each row and each column of the tiles: many times as fast as a sum over short dimensions.
    """
    padded = torch.nn.functional.pad(mask, (0, -mask.shape[1] % cols, 0, -mask.shape[0] % rows))
    high = padded[::rows].to(torch.int16)
    for i in range(1, rows):
        high += padded[i::rows]
    count = high[:, ::cols].clone()
    for i in range(1, cols):
        count += high[:, i::cols]
    return count


def _sizes(mask: Tensor, rows: int, cols: int) -> Tensor:
    """Entries of each tile; those at an edge may have fewer."""
    high = (mask.shape[0] - torch.arange(0, mask.shape[0], rows, device=mask.device)).clamp(max=rows)
    wide = (mask.shape[1] - torch.arange(0, mask.shape[1], cols, device=mask.device)).clamp(max=cols)
    return high.unsqueeze(1) * wide


_SLAB = 1 << 24
_SHARING = 128
"""The most outputs that any pattern lets choose together."""


def require_pattern(owner: str, mask: Tensor, pattern: Pattern) -> None:
    """Raises ValueError unless a mask follows the pattern; looks at a few million entries at a time.

    Args:
        owner: Whom the message names.
        mask: ``(out_features, in_features)`` bool.
        pattern: What the mask is said to follow.
    """
    if isinstance(pattern, (Unstructured, VariableNM)):
        return
    n, k = mask.shape
    rows = n if isinstance(pattern, Channel) else max(_SLAB // max(k, 1) // _SHARING, 1) * _SHARING
    for start in range(0, n, max(rows, 1)):
        _, _, first = violations(mask[start : start + rows], pattern)
        if first is not None:
            raise ValueError(
                f"{owner}: the pattern is said to be {pattern}, and what is stored breaks it at row "
                f"{start + first[0]}, column {first[1]}. The description is of another weight; pack it again."
            )


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
        used = _counts(mask, rows, cols) > 0
        whole = spread(used, rows, cols, (mask.shape[0], mask.shape[1]))
    zeros = 1.0 - float(mask.sum()) / max(mask.numel(), 1)
    return PatternReport(pattern, zeros, *violations(whole, pattern))
