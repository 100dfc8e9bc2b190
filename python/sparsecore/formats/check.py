"""Says where, and how often, a weight breaks a pattern."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecore.formats.select import shared_rows
from sparsecore.patterns import NM, Channel, Pattern


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

    N:M groups break it by keeping more than n. Rows that share their columns break it by keeping different ones.
    """
    if isinstance(pattern, Channel):
        side = 1 if pattern.side == "out" else 0
        torn = mask.any(side, keepdim=True) & ~mask.all(side, keepdim=True)
        return torn, mask.shape[1] if side else 1
    rows, (n, k) = shared_rows(pattern), mask.shape
    kept, partial = mask, torch.zeros((n, k), dtype=torch.bool, device=mask.device)
    if rows > 1:
        padded = torch.nn.functional.pad(mask, (0, 0, 0, -n % rows)).view(-(-n // rows), rows, k)
        live = torch.full((padded.shape[0],), rows, device=mask.device)
        if n % rows and len(live):
            live[-1] = n % rows
        count = padded.sum(1)
        kept, partial = count > 0, (count > 0) & (count < live.unsqueeze(1))
    if not isinstance(pattern, NM):
        return partial, 1
    width = -(-k // pattern.m) * pattern.m
    groups = torch.nn.functional.pad(kept, (0, width - k)).view(kept.shape[0], width // pattern.m, pattern.m)
    torn = (
        torch.nn.functional.pad(partial, (0, width - k))
        .view(kept.shape[0], width // pattern.m, pattern.m)
        .any(-1)
    )
    return (groups.sum(-1) > pattern.n) | torn, pattern.m


def check_pattern(weight: Tensor, pattern: Pattern) -> PatternReport:
    """Does the non-zero part of a dense weight follow a pattern?

    Shared patterns (``vector > 1``, ``Group``, ``Channel``) are judged by what they share: zeros inside a kept column
    or channel do no harm.

    Args:
        weight: ``(out_features, in_features)``.
        pattern: For example ``NM(2, 4)``.
    """
    if weight.dim() != 2:
        raise ValueError(
            f"check_pattern: weight must be (out_features, in_features), got shape {tuple(weight.shape)}."
        )
    rows = shared_rows(pattern)
    mask = weight.detach() != 0
    if rows > 1:  # a column any row uses counts as kept by all
        padded = torch.nn.functional.pad(mask, (0, 0, 0, -mask.shape[0] % rows)).view(
            -(-mask.shape[0] // rows), rows, mask.shape[1]
        )
        whole = padded.any(1).repeat_interleave(rows, 0)[: mask.shape[0]]
    elif isinstance(pattern, Channel):
        whole = mask.any(1 if pattern.side == "out" else 0, keepdim=True).expand(mask.shape)
    else:
        whole = mask
    broken, width = mask_violations(whole, pattern)
    places = broken.nonzero()
    first = (int(places[0, 0]) * rows, int(places[0, 1]) * width) if len(places) else None
    zeros = 1.0 - float(mask.sum()) / max(mask.numel(), 1)
    return PatternReport(pattern, zeros, broken.numel(), len(places), first)
