"""Axes of tensors, cut into classes of channels that share one order.

An axis is a row of segments. A segment ``(channels, repeat)`` covers ``channels.size * repeat`` places, channel by
channel: flattening ``(C, H, W)`` gives one segment with ``repeat = H * W``, concatenating two tensors two segments.
Joining two axes makes their channels the same ones. Where the cuts do not agree, the larger class is split; where one
axis moves single places and the other runs of k, the first is bound to runs of k; where neither fits, both are frozen:
they keep their order. Every step only ever takes freedom away, so whatever is left over is safe to reorder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor


class Channels:
    """Places that are reordered together, wherever they occur.

    Attributes:
        size: How many.
        frozen: Whether they have to keep their order.
        parts: What the class turned out to consist of; None while it is whole.
    """

    def __init__(self, size: int, frozen: bool = False) -> None:
        self.size = size
        self.frozen = frozen
        self.parts: Axis | None = None

    def become(self, parts: Axis) -> None:
        """Replaces the class, wherever it occurs, by others."""
        if self.frozen:
            freeze(parts)
        self.parts = parts


class Segment(NamedTuple):
    """A run of an axis: every channel covers ``repeat`` neighbouring places."""

    channels: Channels
    repeat: int

    @property
    def extent(self) -> int:
        """Places covered."""
        return self.channels.size * self.repeat


Axis: TypeAlias = tuple[Segment, ...]


def fresh(size: int, frozen: bool = False) -> Axis:
    """An axis with an order of its own."""
    return (Segment(Channels(size, frozen), 1),) if size else ()


def leaves(axis: Iterable[Segment]) -> Iterator[Segment]:
    """The segments of an axis as they are cut by now."""
    for channels, repeat in axis:
        if channels.parts is None:
            yield Segment(channels, repeat)
        else:
            yield from leaves(Segment(part.channels, part.repeat * repeat) for part in channels.parts)


def extent(axis: Axis) -> int:
    """Places of an axis."""
    return sum(segment.extent for segment in axis)


def freeze(axis: Axis) -> None:
    """Has an axis keep its order."""
    for segment in leaves(axis):
        segment.channels.frozen = True


def repeated(axis: Axis, count: int) -> Axis:
    """An axis whose every place has become ``count`` neighbouring ones."""
    return tuple(Segment(channels, repeat * count) for channels, repeat in axis)


def split(channels: Channels, at: int) -> None:
    """Cuts a whole class into its first ``at`` channels and the others."""
    channels.become((Segment(Channels(at), 1), Segment(Channels(channels.size - at), 1)))


def join(first: Axis, second: Axis) -> None:
    """Makes the channels of two axes of one length the same.

    Raises:
        ValueError: The axes differ in length.
    """
    if extent(first) != extent(second):
        raise ValueError(f"join: axes of {extent(first)} and {extent(second)} places.")
    mine, theirs = first, second
    while mine and theirs:
        mine, theirs = tuple(leaves(mine)), tuple(leaves(theirs))
        a, b = mine[0], theirs[0]
        if a == b:
            mine, theirs = mine[1:], theirs[1:]
        elif not _agree(a, b) and not _agree(b, a):
            freeze(mine)
            freeze(theirs)
            return


def _agree(a: Segment, b: Segment) -> bool:
    """One step towards two equal segments: splits or binds a class; False where ``b`` is not the finer one."""
    if a.channels is b.channels or a.repeat % b.repeat:
        return False
    run = a.repeat // b.repeat  # b's channels have to move in runs of this length
    if b.channels.size == a.channels.size * run:
        b.channels.become((Segment(a.channels, run),))
    elif b.channels.size > a.channels.size * run:
        split(b.channels, a.channels.size * run)
    elif b.channels.size % run == 0:
        split(a.channels, b.channels.size // run)
    else:
        return False
    return True


def between(axis: Axis, start: int, stop: int) -> Axis:
    """The places ``start`` to ``stop`` of an axis; a class is split where it has to be, or frozen inside a run."""
    for at in (start, stop):
        _cut(axis, at)
    found: list[Segment] = []
    place = 0
    for segment in leaves(axis):
        low, high = max(place, start), min(place + segment.extent, stop)
        if low < high:
            whole = high - low == segment.extent
            found += [segment] if whole else fresh(high - low, frozen=True)
        place += segment.extent
    return tuple(found)


def _cut(axis: Axis, at: int) -> None:
    place = 0
    for segment in tuple(leaves(axis)):
        inside = at - place
        if 0 < inside < segment.extent:
            if inside % segment.repeat:
                segment.channels.frozen = True
            else:
                split(segment.channels, inside // segment.repeat)
            return
        place += segment.extent


def places(axis: Axis, orders: Mapping[Channels, Tensor]) -> Tensor:
    """Where each place of a reordered axis was before.

    Args:
        axis: Any.
        orders: A permutation of each reordered class: channel ``order[i]`` comes to place i.

    Returns:
        ``(extent,)`` int64, to index the axis by.
    """
    parts, start = [torch.empty(0, dtype=torch.int64)], 0
    for segment in leaves(axis):
        order = orders.get(segment.channels, torch.arange(segment.channels.size))
        parts.append((start + order[:, None] * segment.repeat + torch.arange(segment.repeat)).flatten())
        start += segment.extent
    return torch.cat(parts)
