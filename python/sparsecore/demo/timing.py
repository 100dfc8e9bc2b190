"""Interleaved timing: every engine once per round, so a change of the machine's speed meets all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

PAUSE = 0.01  # seconds before each engine: the spinning threads of the one before go to sleep


def interleave(
    calls: Mapping[str, Callable[[], object]], rounds: int, repeats: int, advance: Callable[[], object]
) -> dict[str, list[float]]:
    """Seconds of each call, a list of ``rounds`` medians of ``repeats`` calls, by engine.

    With ``repeats`` > 1 each visit starts with a call that is not counted, which brings the engine's own
    weights back into the cache: batch 1 measures a server that does nothing else.

    Args:
        calls: The engines, ready to be called.
        rounds: Visits to every engine; the order is turned by one each time.
        repeats: Counted calls of a visit.
        advance: Called after every visit.
    """
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            time.sleep(PAUSE)
            if repeats > 1:
                calls[name]()
            visit = []
            for _ in range(repeats):
                begin = time.perf_counter()
                calls[name]()
                visit.append(time.perf_counter() - begin)
            seconds[name].append(statistics.median(visit))
            advance()
    return seconds


def summary(seconds: Sequence[float], baseline: Sequence[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds, and the median over rounds of the speed against ``baseline``."""
    milliseconds = sorted(1e3 * value for value in seconds)
    low, middle, high = (
        statistics.quantiles(milliseconds, n=4, method="inclusive")
        if len(milliseconds) > 1
        else (milliseconds * 3)
    )
    ratios = [b / s for s, b in zip(seconds, baseline, strict=True)]
    return {
        "median_ms": middle,
        "q1_ms": low,
        "q3_ms": high,
        "min_ms": milliseconds[0],
        "speedup": statistics.median(ratios),
    }
