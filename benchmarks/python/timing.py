"""Interleaved timing: every candidate once per round, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles

SHORTEST = (
    200e-6  # seconds of one sample; shorter calls are repeated inside it, so that the clock does not count
)


@dataclass(frozen=True)
class Timing:
    """Seconds per call: the median of the rounds, the first and the third quartile, and how many rounds."""

    median: float
    low: float
    high: float
    rounds: int

    def microseconds(self) -> list[float]:
        """Median and quartiles as a result file keeps them."""
        return [round(1e6 * seconds, 2) for seconds in (self.median, self.low, self.high)]


def interleaved(
    candidates: Mapping[str, Callable[[], object]],
    seconds: float,
    least: int = 7,
    shortest: float = SHORTEST,
) -> dict[str, Timing]:
    """Times candidates in turns until ``seconds`` have passed and ``least`` rounds are done, after a warm-up.

    A sample is as many calls in a row as take ``shortest`` seconds: the more, the warmer the caches.
    """
    repeats = {}
    for name, call in candidates.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, min(100, int(shortest / max(time.perf_counter() - start, 1e-7))))
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    end, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or rounds < least:
        rounds += 1
        for name, call in candidates.items():
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            samples[name].append((time.perf_counter() - start) / repeats[name])
    timings = {}
    for name, values in samples.items():
        low, _, high = quantiles(values, n=4)
        timings[name] = Timing(median(values), low, high, rounds)
    return timings


def in_turns(
    candidates: Mapping[str, Callable[[], object]],
    seconds: float,
    pause: float = 0.02,
    burst: int = 3,
    least: int = 5,
) -> dict[str, Timing]:
    """Like :func:`interleaved`, for calls of milliseconds by engines with threads of their own.

    Before each turn there is a pause, in which the pool that ran before goes to sleep instead of spinning on a core
    that the next candidate needs, and a call that is not counted, which wakes the own pool and fills the caches.
    """
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        call()
    end, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or rounds < least:
        rounds += 1
        for name, call in candidates.items():
            time.sleep(pause)
            call()
            for _ in range(burst):
                start = time.perf_counter()
                call()
                samples[name].append(time.perf_counter() - start)
    timings = {}
    for name, values in samples.items():
        low, _, high = quantiles(values, n=4)
        timings[name] = Timing(median(values), low, high, len(values))
    return timings


def geometric(values: Iterable[float]) -> float:
    """The geometric mean."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs))
