"""Which units a pattern keeps, given a score: exact counts, ties to the lowest index, groups never cross rows.

A *unit* is what is kept or dropped as one: a weight, the weights of one column in the rows that share a list, a block
of a matrix, or a channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore._library import has_kernel
from sparsecore.formats.variable_select import choose_codes, codes_of_mask, variable_mask
from sparsecore.ops.semi_structured import semi_structured_compress, semi_structured_decompress
from sparsecore.patterns import NM, VNM, Channel, Group, Pattern, VariableNM, fixed_sparsity


def top_mask(score: Tensor, keep: int) -> Tensor:
    """True at the ``keep`` largest entries along the last dimension; of equal ones the first are taken."""
    if keep >= score.shape[-1]:
        return torch.ones_like(score, dtype=torch.bool)
    if keep <= 0 or score.numel() == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    threshold = score.kthvalue(score.shape[-1] - keep + 1, dim=-1, keepdim=True).values
    above = score > threshold
    ties = score == threshold
    room = keep - above.sum(-1, keepdim=True)
    return above | (ties & (ties.cumsum(-1) <= room))


def nm_mask(units: Tensor, n: int, m: int) -> Tensor:
    """The ``n`` best of every ``m`` along the last dimension; a short last group keeps ``min(n, its width)``."""
    rows, width = units.shape
    padded = torch.nn.functional.pad(units, (0, -width % m), value=-torch.inf)
    groups = padded.shape[1] // m
    return top_mask(padded.view(rows, groups, m), n).reshape(rows, groups * m)[:, :width]


def choose_nm(units: Tensor, pattern: NM) -> Tensor:
    """The units that an N:M pattern keeps, by their scores, in both directions where it is two-way."""
    return two_way_mask(units) if pattern.two_way else nm_mask(units, pattern.n, pattern.m)


def two_way_mask(score: Tensor) -> Tensor:
    """At most two of four neighbours along both directions of each 4 x 4 tile, from the largest score on.

    On a GPU the kernel that packs chooses, in one pass, among roots of the scores that are rounded to float16: by
    magnitudes of 16 bits that is the choice of the plain form, but for those 2^14 times smaller than the largest.

    Args:
        score: ``(rows, columns)``; what is negative comes last and is left out where the kernel chooses.
    """
    if not score.numel() or score.is_meta or not has_kernel("semi_structured_compress", score.device.type):
        return reference.two_way_mask(score)
    size = score.float().clamp_min(0.0).sqrt()
    size = torch.ldexp(
        size, -torch.frexp(size.amax()).exponent
    ).half()  # a power of two: no rounding of its own
    size = size.clamp_min(2.0**-24).masked_fill(score < 0, 0.0)  # what is kept is not zero
    values, metadata = semi_structured_compress(size, selection="two_way")
    rows, columns = score.shape
    return semi_structured_decompress(values, metadata, out_features=rows, in_features=columns) != 0


def unit_shape(pattern: Pattern) -> tuple[int, int]:
    """Output channels and inputs of a unit of this pattern; of ``Channel``, whose units span the matrix, ``(1, 1)``."""
    if isinstance(pattern, NM):
        return pattern.vector, 1
    return (pattern.rows, pattern.cols) if isinstance(pattern, Group) else (1, 1)


def shared_rows(pattern: Pattern) -> int:
    """Neighbouring output channels that share their columns, or pick them together, under this pattern."""
    return pattern.vector if isinstance(pattern, VNM) else unit_shape(pattern)[0]


def decided_rows(pattern: Pattern) -> int:
    """Neighbouring output channels whose masks depend on each other."""
    return 4 if isinstance(pattern, NM) and pattern.two_way else shared_rows(pattern)


def vnm_mask(score: Tensor, pattern: VNM) -> Tensor:
    """Of every ``m`` columns the four with the largest sums over a run of rows, and of these each row's two largest."""
    n = score.shape[0]
    sums = tiles(score, pattern.vector, 1).sum((1, 3))
    picked = nm_mask(sums, 4, pattern.m).repeat_interleave(pattern.vector, 0)[:n]
    return nm_mask(torch.where(picked, score, -torch.inf), pattern.n, pattern.m) & picked


def tiles(matrix: Tensor, rows: int, cols: int) -> Tensor:
    """A view of a matrix, filled up with zeros, as ``(ceil(n / rows), rows, ceil(k / cols), cols)``."""
    padded = torch.nn.functional.pad(matrix, (0, -matrix.shape[1] % cols, 0, -matrix.shape[0] % rows))
    return padded.view(padded.shape[0] // rows, rows, padded.shape[1] // cols, cols)


def spread(units: Tensor, rows: int, cols: int, shape: tuple[int, int]) -> Tensor:
    """A mask of units of ``rows`` x ``cols`` weights as a mask of the weights of a matrix of this shape."""
    if rows > 1:
        units = units.repeat_interleave(rows, 0)[: shape[0]]
    return units.repeat_interleave(cols, 1)[:, : shape[1]] if cols > 1 else units


def score_units(score: Tensor, pattern: Pattern) -> Tensor:
    """Scores of the units of a pattern, a matrix: sums over the weights of each; those at an edge may have fewer."""
    if isinstance(pattern, Channel):
        return score.sum(1 if pattern.side == "out" else 0, keepdim=True)
    rows, cols = unit_shape(pattern)
    return score if rows == cols == 1 else tiles(score, rows, cols).sum((1, 3))


def mask_units(mask: Tensor, pattern: Pattern) -> Tensor:
    """A mask of weights that follows the pattern as a mask of its units."""
    if isinstance(pattern, Channel):
        return mask[:, :1] if pattern.side == "out" else mask[:1]
    rows, cols = unit_shape(pattern)
    return mask[::rows, ::cols]


def spread_units(units: Tensor, pattern: Pattern, shape: tuple[int, int]) -> Tensor:
    """The inverse of :func:`mask_units` for a weight of this shape."""
    if isinstance(pattern, Channel):
        return units.expand(shape).contiguous()
    return spread(units, *unit_shape(pattern), shape)


def select_mask(score: Tensor, pattern: Pattern, sparsity: float | None = None) -> Tensor:
    """The mask of the best units.

    Args:
        score: ``(out_features, in_features)``, non-negative, higher is better.
        pattern: What may be kept together. ``NM`` and ``VNM`` fix how much; the others need ``sparsity``.
        sparsity: Fraction of zeros in ``[0, 1)`` over the whole matrix. None: every unit with a score above 0.

    Returns:
        ``(out_features, in_features)``, bool, True where kept.

    Raises:
        ValueError: A sparsity outside ``[0, 1)``, or one that contradicts an N:M pattern.
    """
    if sparsity is not None and not 0.0 <= sparsity < 1.0:
        raise ValueError(f"select_mask: sparsity is the fraction of zeros in [0, 1), got {sparsity}.")
    if isinstance(pattern, VariableNM):
        codes = (
            codes_of_mask(score > 0)
            if sparsity is None
            else choose_codes(score, sparsity=sparsity, empty=True)
        )
        return variable_mask(score, codes)
    fixed = fixed_sparsity(pattern)
    if fixed is not None and sparsity is not None and abs(sparsity - fixed) > 1e-9:
        raise ValueError(
            f"select_mask: {pattern} fixes the sparsity to {fixed:g}, got {sparsity:g}. Leave it out."
        )
    if isinstance(pattern, VNM):
        return vnm_mask(score.float(), pattern)
    units = score_units(score.float(), pattern)
    if isinstance(pattern, NM):
        mask = choose_nm(units, pattern)
    elif sparsity is None:
        mask = units > 0
    else:
        mask = top_mask(units.flatten(), round((1.0 - sparsity) * units.numel())).view(units.shape)
    return spread_units(mask, pattern, (score.shape[0], score.shape[1]))
