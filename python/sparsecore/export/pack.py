"""Which blocks a weight is stored in, and the group lists themselves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Share of the peak that kernels reach on the weights they multiply, by rows of a group: more rows use every load of a
# pixel more often. Stored zeros are multiplied too, so what counts is stored weights over this share.
EFFICIENCY = {1: 0.50, 2: 0.60, 4: 0.72, 8: 0.86, 16: 0.87, 32: 0.87}
MOST_COLUMNS = 32
DENSE_ROWS = 8  # where every block is kept, taller groups gain nothing
# Kept fraction from which a weight of a vector is stored dense: below it lists read fewer bytes.
DENSE_FROM = 0.7


@dataclass(frozen=True)
class Blocks:
    """A choice: ``rows`` x ``cols`` blocks, and which of them are stored, ``(groups, ceil(k / cols))`` bool."""

    rows: int
    cols: int
    kept: Tensor

    @property
    def density(self) -> float:
        """Stored blocks over all."""
        return float(self.kept.float().mean()) if self.kept.numel() else 0.0


def blocks_of(matrix: Tensor, rows: int, cols: int) -> Blocks:
    """The blocks of a matrix that hold anything but zeros."""
    kept = matrix != 0
    for axis, size in ((0, rows), (1, cols)):
        for _ in range(size.bit_length() - 1):
            kept = _pairs(kept, axis)
    return Blocks(rows, cols, kept)


def _pairs(kept: Tensor, axis: int) -> Tensor:
    """Blocks of twice the size: True where either of two neighbours is."""
    kept = functional.pad(kept, (0, 0, 0, kept.shape[0] % 2) if axis == 0 else (0, kept.shape[1] % 2))
    return kept[::2] | kept[1::2] if axis == 0 else kept[:, ::2] | kept[:, 1::2]


def choose_blocks(matrix: Tensor) -> Blocks:
    """The blocks with which a matrix is multiplied soonest; among equals the largest.

    Args:
        matrix: ``(n, k)``; exact zeros are what may be left out.
    """
    tall = best = blocks_of(matrix, 1, 1)
    least = float("inf")
    for rows, share in EFFICIENCY.items():
        tall = tall if rows == 1 else Blocks(rows, 1, _pairs(tall.kept, 0))
        cost = float(tall.kept.sum()) * rows / share
        if cost <= least:
            best, least = tall, cost
        if rows == DENSE_ROWS and bool(tall.kept.all()):
            return tall
    records = int(best.kept.sum())
    wide = best
    while wide.cols < MOST_COLUMNS:
        wide = Blocks(wide.rows, 2 * wide.cols, _pairs(wide.kept, 1))
        if int(wide.kept.sum()) * wide.cols > records:  # some block is not whole
            break
        best = wide
    return best


def quantise_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values in -127..127 and the float32 scale of each row."""
    scale = matrix.abs().amax(1).clamp_min(1e-30) / 127
    return (matrix / scale[:, None]).round().to(torch.int8), scale


def pack_group_lists(matrix: Tensor, blocks: Blocks) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The four arrays of group lists, and the numbers that a step says about them.

    Args:
        matrix: ``(n, k)`` in the dtype to store.
        blocks: What to store of it.
    """
    (n, k), operators = matrix.shape, torch.ops.sparsecore
    described = {"rows": blocks.rows, "cols": blocks.cols}
    described["depth"] = operators.group_lists_depth(blocks.rows, blocks.cols, k, blocks.density)
    described["window"] = operators.group_lists_window(blocks.rows, n)
    lists = operators.group_lists_pack(matrix.contiguous(), blocks.kept.contiguous(), *described.values())
    arrays = dict(zip(("values", "index", "order", "starts"), lists, strict=True))
    if (
        arrays["index"].dtype == torch.int16
    ):  # torch computes with no 16-bit unsigned integers, files have them
        arrays["index"] = arrays["index"].view(torch.uint16)
    return arrays, described
