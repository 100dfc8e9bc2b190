"""What was to be reached beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Result = dict[str, Any]
REACHED = ("stretch", "must", "missed", "no comparison")


@dataclass(frozen=True)
class Reached:
    """One target of one row.

    Attributes:
        ratio: The peer's time over ours; None where one of the two was not timed.
        verdict: One of :data:`REACHED`.
    """

    item: str
    ours: str
    against: str
    must: float
    stretch: float
    ratio: float | None
    verdict: str


def times_of(row: Result) -> dict[str, list[float]]:
    """Median and quartiles by candidate: of the graphs, where ours could be captured."""
    return row["us_graph"] if "ours" in row.get("us_graph", {}) else row.get("us", {})


def reached(item: str, row: Result) -> list[Reached]:
    """The targets of a row of timings."""
    found = []
    for target in row.get("targets", []):
        times, ours = times_of(row), target.get("ours", "ours")
        ratio, verdict = None, "no comparison"
        if ours in times and target["against"] in times:
            ratio = times[target["against"]][0] / times[ours][0]
            verdict = (
                "stretch" if ratio >= target["stretch"] else "must" if ratio >= target["must"] else "missed"
            )
        found.append(
            Reached(item, ours, target["against"], target["must"], target["stretch"], ratio, verdict)
        )
    return found


def all_reached(rows: Iterable[tuple[str, Result]]) -> list[Reached]:
    """Of all rows, the worst verdicts first within each peer's."""
    return [target for item, row in rows for target in reached(item, row)]


def line(target: Reached) -> list[str]:
    """What, must, stretch, measured, verdict."""
    what = target.item if target.ours == "ours" else f"{target.item}, {target.ours}"
    measured = "" if target.ratio is None else f"{target.ratio:.2f}"
    return [
        f"{what}, x {target.against}",
        f"{target.must:g}",
        f"{target.stretch:g}",
        measured,
        target.verdict,
    ]
