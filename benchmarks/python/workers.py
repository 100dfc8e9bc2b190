"""Timing in turns by processes: each engine lives in one of its own, and while it is timed all others sleep.

The threads of an engine go on spinning for a while after a call. In one process they would take cores from whoever is
timed next, and an engine that is told not to spin is slower than its users know it. So every engine keeps the settings
that suit it, and a turn begins only when the others use no processor any more. Turns in which the others did use one,
or in which threads of the engine stood ready and had none because of whatever else runs on the machine, are left out.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median, quantiles
from types import TracebackType
from typing import Any

import torch
from typing_extensions import Self

from timing import Timing

Call = Callable[[], Any]
WINDOW = (
    0.012  # seconds without work after which a process counts as asleep: three ticks of a kernel of 250 Hz
)
SHARE = 0.02  # of a processor: what workers may use in a window and still be asleep, for the odd wake-up
LOST = 0.05  # of a processor: what may be lost to others in a turn


class Worker:
    """A process with calls, made by ``make(*arguments)``: a function of a module, arguments that can be pickled."""

    def __init__(self, make: Callable[..., Mapping[str, Call]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def names(self) -> list[str]:
        """What can be timed, once everything is made.

        Raises:
            RuntimeError: ``make`` failed, with its reason.
        """
        answer = self._answer()
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return list(answer)

    def times(self, name: str, seconds: float) -> list[float]:
        """Seconds of calls one after the other, at least three, after one that is not counted."""
        self._pipe.send((name, seconds))
        return list(self._answer())

    def used(self) -> tuple[int, int]:
        """Nanoseconds that all threads have had a processor, and waited for one; zeros where the system is silent."""
        ran = waited = 0
        for path in Path(f"/proc/{self._process.pid}/task").glob("*/schedstat"):
            try:
                values = path.read_text().split()
            except OSError:  # a thread that has just ended
                continue
            ran, waited = ran + int(values[0]), waited + int(values[1])
        return ran, waited

    def close(self) -> None:
        """Ends the process: it stops by itself when its pipe is closed, unless it is busy."""
        self._pipe.close()
        self._process.join(5)
        self._process.terminate()
        self._process.join()

    def _answer(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"the process ended with {self._process.exitcode}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _serve(pipe: Any, make: Callable[..., Mapping[str, Call]], arguments: tuple[Any, ...]) -> None:
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # else torch.compile leaves processes behind
    torch.set_flush_denormal(True)
    with torch.no_grad():
        try:
            calls = make(*arguments)
        except Exception as problem:  # whatever an engine raises is its reason to be absent
            pipe.send(f"{type(problem).__name__}: {problem}".splitlines()[0][:200])
            return
        pipe.send(list(calls))
        while True:
            try:
                name, seconds = pipe.recv()
            except EOFError:
                return
            call = calls[name]
            call()
            found: list[float] = []
            while sum(found) < seconds or len(found) < 3:
                start = time.perf_counter()
                call()
                found.append(time.perf_counter() - start)
            pipe.send(found)


def wait_asleep(workers: Iterable[Worker], patience: float = 5.0) -> None:
    """Returns once the workers have used no processor for a window.

    Raises:
        RuntimeError: They still do when the patience is over.
    """
    end = time.perf_counter() + patience
    while time.perf_counter() < end:
        before = _ran(workers)
        time.sleep(WINDOW)
        if _ran(workers) - before <= 1e9 * SHARE * WINDOW:
            return
    raise RuntimeError(f"workers: threads of engines that nobody asked are still busy after {patience:g} s")


def _ran(workers: Iterable[Worker]) -> int:
    return sum(worker.used()[0] for worker in workers)


def in_turns(
    calls: Mapping[str, Worker], seconds: float, turn: float = 0.03, least: int = 5
) -> tuple[dict[str, Timing], dict[str, int]]:
    """Times calls by name, round after round, and how many turns of each were left out as disturbed.

    At least the better half of the turns is kept, so that an engine with more threads than processors is timed too.

    Args:
        calls: Which process holds the call of a name.
        seconds: Rounds begin until so much time has passed.
        turn: Seconds of calls in a turn.
        least: Rounds that are made in any case.
    """
    turns: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in calls}
    workers = set(calls.values())
    end, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or rounds < least:
        rounds += 1
        for name, worker in calls.items():
            others = workers - {worker}
            wait_asleep(others)
            before = _ran(others) + worker.used()[1]
            found = worker.times(name, turn)
            lost = _ran(others) + worker.used()[1] - before
            turns[name].append((1e-9 * lost / sum(found), found))
    timings, left_out = {}, {}
    for name, found in turns.items():
        found.sort(key=lambda pair: pair[0])
        kept = max(sum(lost <= LOST for lost, _ in found), (len(found) + 1) // 2)
        values = [seconds for _, part in found[:kept] for seconds in part]
        low, _, high = quantiles(values, n=4)
        timings[name] = Timing(median(values), low, high, len(values))
        left_out[name] = len(found) - kept
    return timings, left_out
