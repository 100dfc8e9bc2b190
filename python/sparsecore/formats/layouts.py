"""Which layouts hold a pattern on which kind of device, the default first: the plan behind ``pack``, layers and moves.

Two things decide. ``ORDER`` ranks the layouts of a pattern for a kind of device, and torch's dispatcher knows whether
this installation has the layout's operator there. A family of kernels comes in by registering its operator for the
device, ``sparsecore::<layout>_linear``, and a row in ``ORDER``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparsecore.formats.base import PackedWeight
from sparsecore.formats.bitmap_decode import BitmapDecode
from sparsecore.formats.block_sparse import BlockSparse
from sparsecore.formats.channels import Channels
from sparsecore.formats.group_lists import GroupLists
from sparsecore.formats.nm_decode import NMDecode
from sparsecore.formats.row_lists import RowLists
from sparsecore.formats.select import unit_shape
from sparsecore.formats.semi_structured import SemiStructured, all_but_two
from sparsecore.formats.shared_lists import SharedLists
from sparsecore.formats.variable_nm import VariableNM
from sparsecore.formats.vnm import VNM
from sparsecore.ops.block_sparse import BLOCK_SIZES
from sparsecore.patterns import NM, Channel, Group, Pattern, Unstructured
from sparsecore.patterns import VNM as VNMPattern
from sparsecore.patterns import VariableNM as VariableNMPattern

LAYOUTS: dict[str, type[PackedWeight]] = {
    kind.layout: kind
    for kind in (
        RowLists,
        SharedLists,
        GroupLists,
        NMDecode,
        BitmapDecode,
        VariableNM,
        Channels,
        SemiStructured,
        BlockSparse,
        VNM,
    )
}

# Shared lists fill a register with the outputs of a group. From this many on they are within a fifth of group lists for
# many tokens and ahead for a handful; below, group lists are two to twenty times as fast.
_SHARING = 16


@dataclass(frozen=True)
class Row:
    """A layout, and the patterns it is the next best for."""

    layout: str
    holds: Callable[[Pattern], bool]


def _shares(pattern: Pattern, least: int) -> bool:
    """Whether at least so many neighbouring outputs choose one input together."""
    rows, cols = unit_shape(pattern)
    return isinstance(pattern, (NM, Group)) and rows >= least and cols == 1


def _single(pattern: Pattern) -> bool:
    """Whether every weight is chosen on its own."""
    return isinstance(pattern, (NM, VNMPattern, Unstructured)) and unit_shape(pattern) == (1, 1)


def _square(pattern: Pattern) -> bool:
    """Whether square blocks are kept that fill a product of tensor cores."""
    return isinstance(pattern, Group) and pattern.rows == pattern.cols and pattern.rows in BLOCK_SIZES


def _lists(pattern: Pattern) -> bool:
    """Whether group lists hold a pattern: all but whole channels and blocks with an N of their own."""
    return isinstance(pattern, (NM, VNMPattern, Group, Unstructured))


_ON_CPU = (
    Row("channels", lambda p: isinstance(p, Channel)),
    Row("variable_nm", lambda p: isinstance(p, VariableNMPattern)),
    Row("shared_lists", lambda p: _shares(p, _SHARING)),
    Row("row_lists", lambda p: _single(p) or (isinstance(p, Group) and p.rows <= 2)),
    Row("nm_decode", lambda p: isinstance(p, NM) and _single(p)),
    Row("bitmap_decode", lambda p: isinstance(p, Unstructured)),
    Row("group_lists", _lists),
    Row("shared_lists", lambda p: _shares(p, 3)),
    Row("row_lists", lambda p: isinstance(p, Group) and p.rows > 2 and p.cols > 1),
    Row("semi_structured", all_but_two),
    Row("block_sparse", _square),
    Row("vnm", lambda p: isinstance(p, VNMPattern)),
)

_ON_CUDA = (
    Row("channels", lambda p: isinstance(p, Channel)),
    Row("semi_structured", all_but_two),
    Row("vnm", lambda p: isinstance(p, VNMPattern)),
    Row("block_sparse", _square),
    Row("shared_lists", lambda p: _shares(p, 8)),
    Row("bitmap_decode", lambda p: _single(p) and p not in (NM(2, 4), NM(2, 4, two_way=True))),
    Row("group_lists", _lists),
)

# Only sizes that follow from the shape can be had without the weights.
_ON_META = (Row("semi_structured", all_but_two), Row("vnm", lambda p: isinstance(p, VNMPattern)))

ORDER: dict[str, tuple[Row, ...]] = {"cpu": _ON_CPU, "cuda": _ON_CUDA, "meta": _ON_META}


def layouts_for(pattern: Pattern, device: str | None = "cpu") -> tuple[str, ...]:
    """The layouts that hold a pattern and have kernels on a kind of device, the default first.

    On the CPU the order follows ``benchmarks/python/bench_groups.py``: row lists for one or two outputs that choose
    together, group lists for 4 and 8 and for blocks, shared lists from 16 on. :func:`sparsecore.plan_` measures
    instead.

    Args:
        pattern: For example ``NM(2, 4)``.
        device: ``"cpu"``, ``"cuda"`` or ``"meta"``; None: every layout that holds the pattern, wherever it runs.
    """
    rows = [row for kind in (ORDER if device is None else (device,)) for row in ORDER.get(kind, ())]
    found = dict.fromkeys(row.layout for row in rows if row.holds(pattern))
    return tuple(layout for layout in found if device is None or LAYOUTS[layout].runs_on(device))


def default_layout(owner: str, pattern: Pattern, device: str) -> str:
    """The first of :func:`layouts_for`.

    Raises:
        ValueError: There is none; the message says what there is.
    """
    choices = layouts_for(pattern, device)
    if choices:
        return choices[0]
    there = ", ".join(
        sorted({row.layout for row in ORDER.get(device, ()) if LAYOUTS[row.layout].runs_on(device)})
    )
    raise ValueError(
        f"{owner}: no kernels for {pattern!r} on {device}; this installation has there: {there or 'none'}. Keep the "
        "layer on the CPU, choose another pattern, or build sparsecore with CUDA."
    )
