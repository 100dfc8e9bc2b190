"""What a visit does, in stages, and what a stage does, item by item."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from . import programs
from .programs import Place

Result = dict[str, Any]


class Watch:
    """What an item may tell of itself, and has to know, while it runs. This one is for items that do neither."""

    def at(self, part: str) -> None:
        """Says whom to blame from now on: a peer, or "" for the item itself."""

    def left_out(self, peer: str) -> bool:
        """Whether a peer has hung or crashed before."""
        return False


@dataclass(frozen=True)
class Item:
    """One thing to find out.

    Attributes:
        limit: Seconds after which one part of it counts as hung.
        estimate: Seconds that it takes as a rule.
        group: Items of a group are left out when several of them have hung or crashed.
    """

    name: str
    run: Callable[[Watch], Result]
    limit: float
    estimate: float = 1.0
    group: str = ""


@dataclass(frozen=True)
class Stage:
    """``seconds`` of a call's time at first, and its items, made when the stage runs, the most valuable first."""

    name: str
    seconds: float
    items: Callable[[Place], Iterator[Item]]


def machine_items(place: Place) -> Iterator[Item]:
    from .machine import describe

    yield Item("machine", lambda watch: describe(place.dry), 60, 5)


def conformance_items(place: Place) -> Iterator[Item]:
    yield Item("wrappers", lambda watch: programs.conformance(place, 45), 70, 15)


def correctness_items(place: Place) -> Iterator[Item]:
    from .correctness import cases

    device = load_operators(place)
    for case in cases(device, small=place.dry):
        yield Item(case.name, lambda watch, case=case: case.run(), 60, 0.5, case.group)


def timing_items(place: Place) -> Iterator[Item]:
    from .device import Device, Gauges, Gpu, Rehearsal
    from .timings import rows, time_row

    load_operators(place)
    device: Device = Rehearsal() if place.dry else Gpu()
    gauges = Gauges()
    try:
        for row in rows(device):
            yield Item(
                row.name, lambda watch, row=row: time_row(row, device, gauges, watch), 60, 1.0, row.group
            )
    finally:
        gauges.close()


def question_items(place: Place) -> Iterator[Item]:
    for name in programs.question_names(place):
        yield Item(name, lambda watch, name=name: programs.question(place, name, 30), 40, 1.5)


def sanitizer_items(place: Place) -> Iterator[Item]:
    from .families import FAMILIES

    # A dry run has just gone through the same cases: one family shows that it could begin.
    families = [family.name for family in FAMILIES][: 1 if place.dry else None]
    for tool in ("memcheck",) if place.dry else ("memcheck", "synccheck"):
        for what in (*families, "conformance"):
            yield Item(
                f"{what}, {tool}",
                lambda watch, what=what, tool=tool: programs.sanitize(place, tool, what, 100),
                120,
                20,
                tool,
            )


def test_items(place: Place) -> Iterator[Item]:
    """A file each: one that breaks the device's context costs no other."""
    for path in programs.test_files(place):
        yield Item(path, lambda watch, path=path: programs.tests(place, path, 100), 120, 15)


STAGES = {
    stage.name: stage
    for stage in (
        Stage("machine", 40, machine_items),
        Stage("conformance", 50, conformance_items),
        Stage("correctness", 90, correctness_items),
        Stage("timings", 140, timing_items),
        Stage("questions", 50, question_items),
        Stage("sanitizer", 60, sanitizer_items),
        Stage("tests", 60, test_items),
    )
}


def load_operators(place: Place) -> str:
    """Loads the operators; returns the name of the device that their tensors live on."""
    import torch

    import sparsecore  # noqa: F401  (defines the operators)

    if place.emulated is None:
        return "cuda"
    torch.ops.load_library(str(place.emulated))
    return "cpu"
