"""The rows of the table: a layout, a type and its sparsities, each with the ratios it must and wants to reach.

A ratio is the time of dense torch of the same type over ours, the geometric mean over shapes and numbers of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

import sparsecore as sc


@dataclass(frozen=True)
class Line:
    """One sparsity of a row: its label, the pattern, and the targets."""

    label: str
    pattern: sc.Pattern
    must: float
    stretch: float
    sparsity: float | None = None


@dataclass(frozen=True)
class Row:
    """A layout and a type.

    Attributes:
        title: As the table prints it.
        lines: Its sparsities.
        dtype: Of activations, and of weights where ``weights`` is None.
        weights: Storage type.
        compute: What the operator is asked for.
        roof: The limit that products are compared with, a name of :mod:`roof`.
    """

    title: str
    lines: tuple[Line, ...]
    dtype: torch.dtype = torch.float32
    weights: torch.dtype | None = None
    compute: str = "float32"
    roof: str = "fma_float32"


NM_LABELS = ("2:4", "1:4", "2:8", "1:8")


def _nm(vector: int, *targets: tuple[float, float]) -> tuple[Line, ...]:
    """Targets of 2:4, of 1:4 and 2:8 together, of 1:8."""
    half, quarter, eighth = targets
    return tuple(
        Line(label, sc.NM(int(label[0]), int(label[2:]), vector=vector), *target)
        for label, target in zip(NM_LABELS, (half, quarter, quarter, eighth), strict=True)
    )


def _unstructured(*targets: tuple[float, float, float]) -> tuple[Line, ...]:
    return tuple(
        Line(f"{sparsity:.0%}", sc.Unstructured(), must, stretch, sparsity)
        for sparsity, must, stretch in targets
    )


ROWS = {
    "shared64_float32": Row("shared lists of 64, float32", _nm(64, (2.4, 2.7), (4.5, 5.2), (8, 10))),
    "shared32_float32": Row("shared lists of 32, float32", _nm(32, (2.2, 2.6), (4.1, 5.0), (7.2, 9.5))),
    "shared16_float32": Row("shared lists of 16, float32", _nm(16, (2.0, 2.5), (3.7, 4.7), (6.3, 8.5))),
    "shared64_bfloat16": Row(
        "shared lists of 64, bfloat16",
        _nm(64, (3.3, 4.0), (6.0, 7.8), (11, 14)),
        dtype=torch.bfloat16,
        roof="dot_bfloat16",
    ),
    "shared64_float16": Row(
        "shared lists of 64, float16", _nm(64, (2.0, 3.5), (3.8, 6.5), (7.0, 12)), dtype=torch.float16
    ),
    "shared64_int8": Row(
        "shared lists of 64, int8 x int8",
        _nm(64, (1.6, 1.9), (3.0, 3.7), (5, 7)),
        weights=torch.int8,
        compute="int8",
        roof="dot_int8",
    ),
    "rows_float32": Row("row lists, float32", _nm(1, (1.4, 1.7), (2.5, 3.2), (4.3, 5.8))),
    "rows_float16": Row(
        "row lists, float16", _nm(1, (2.3, 2.8), (3.8, 5), (6, 8.5)), dtype=torch.float16, compute="float16"
    ),
    "unstructured_float32": Row(
        "row lists, unstructured, float32",
        _unstructured((0.5, 1.4, 1.6), (0.7, 2.0, 2.5), (0.9, 4.5, 6), (0.95, 8, 11)),
    ),
}
