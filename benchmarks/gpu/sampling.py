"""Interleaved timing on a device: every candidate once per round, each after the L2 cache was flushed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median, quantiles

from .device import Call, Device


def interleaved(
    device: Device, calls: Mapping[str, Call], rounds: int, at: Callable[[str], None] = lambda name: None
) -> dict[str, list[float]]:
    """Seconds of every round, after two calls to warm up, of which ``at`` is told."""
    for name, call in calls.items():
        at(name)
        call()
        call()
        device.finish()
    at("")
    marks: dict[str, list] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            device.flush()
            start = device.mark()
            call()
            marks[name].append((start, device.mark()))
    device.finish()
    return {name: [device.seconds(*pair) for pair in pairs] for name, pairs in marks.items()}


def microseconds(samples: list[float]) -> list[float]:
    """Median, first and third quartile."""
    low, _, high = quantiles(samples, n=4)
    return [round(1e6 * seconds, 2) for seconds in (median(samples), low, high)]
