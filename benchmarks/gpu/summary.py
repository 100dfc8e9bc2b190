"""What --run prints at its end: what is wrong, what was reached, what follows, what is left."""

from __future__ import annotations

import json
from typing import Any

from .conclusions import conclude
from .targets import REACHED, all_reached, line

Result = dict[str, Any]
MOST_WRONG = 12  # lines for each stage


def wrong_of(items: dict[str, Result]) -> dict[str, Result]:
    return {item: result for item, result in items.items() if not result.get("ok", True)}


def summarize(data: Result) -> tuple[str, int]:
    """The text, and how many items are wrong."""
    lines, count = [], 0
    if data.get("dry"):
        lines.append("dry run: times below count how often the clock was asked, and mean nothing")
    for name, items in data["stages"].items():
        wrong = wrong_of(items)
        count += len(wrong)
        seconds = sum(result.get("seconds", 0) for result in items.values())
        lines.append(f"{name}: {len(items)} done in {seconds:.0f} s, {len(wrong)} wrong")
        for item, result in list(wrong.items())[:MOST_WRONG]:
            why = result.get("failed") or result.get("wrong") or result.get("why") or result
            lines.append(f"  {item}: {json.dumps(why)[:300]}")
        if len(wrong) > MOST_WRONG:
            lines.append(f"  and {len(wrong) - MOST_WRONG} more")
        not_run = {
            result["why"] for result in items.values() if result.get("ran") is False and "why" in result
        }
        lines += [f"  not run: {why}" for why in sorted(not_run)]
    for peer, why in data.get("peers", {}).items():
        lines.append(f"{peer} is left out since it hung or crashed: {why[:200]}")
    for name, groups in data.get("left_out", {}).items():
        for group, items in groups.items():
            lines.append(
                f"{name}: {items} more of {group} are left out, since two hung or crashed; --retry asks again"
            )
    for name, left in data.get("left", {}).items():
        lines.append(f"{name}: {left['items']} left, about {left['seconds']:.0f} s")
    lines += target_lines(data["stages"].get("timings", {}))
    lines += [f"{name}: {answer}" for name, answer in conclude(data["stages"])]
    return "\n".join(lines), count


def target_lines(timings: dict[str, Result]) -> list[str]:
    """A line for each target of the rows that were timed: must, stretch, measured."""
    targets = all_reached(timings.items())
    if not targets:
        return []
    counts = {verdict: sum(target.verdict == verdict for target in targets) for verdict in REACHED}
    lines = ["targets: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)]
    for target in targets:
        what, must, stretch, measured, verdict = line(target)
        lines.append(f"  {what}: must {must}, stretch {stretch}, measured {measured or 'nothing'}: {verdict}")
    return lines
