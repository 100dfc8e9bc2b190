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
from collections.abc import Callable, Mapping, Sequence
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

    def used(self) -> dict[str, tuple[int, int]]:
        """Nanoseconds that each thread has had a processor, and waited for one; empty where the system is silent."""
        found = {}
        for path in Path(f"/proc/{self._process.pid}/task").glob("*/schedstat"):
            try:
                ran, waited, _ = path.read_text().split()
            except OSError:  # a thread that has just ended
                continue
            found[path.parent.name] = (int(ran), int(waited))
        return found

    def runnable(self) -> bool:
        """Whether a thread has a processor or stands ready for one."""
        for path in Path(f"/proc/{self._process.pid}/task").glob("*/stat"):
            try:
                if path.read_text().rpartition(")")[2].split()[0] == "R":
                    return True
            except OSError:
                continue
        return False

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


def wait_asleep(workers: Sequence[Worker], patience: float = 5.0) -> None:
    """Returns once the workers have used no processor for a window.

    Raises:
        RuntimeError: They still do when the patience is over.
    """
    end = time.perf_counter() + patience
    while time.perf_counter() < end:
        before = [worker.used() for worker in workers]
        time.sleep(WINDOW)
        busy = any(worker.runnable() for worker in workers)
        if not busy and _since(workers, before)[0] <= SHARE * WINDOW:
            return
    raise RuntimeError(f"workers: threads of engines that nobody asked are still busy after {patience:g} s")


def _since(workers: Sequence[Worker], before: list[dict[str, tuple[int, int]]]) -> tuple[float, float]:
    """Seconds that threads of the workers have had a processor, and waited for one."""
    ran = waited = 0
    for worker, threads in zip(workers, before, strict=True):
        for name, (now_ran, now_waited) in worker.used().items():
            then_ran, then_waited = threads.get(name, (0, 0))
            ran, waited = ran + now_ran - then_ran, waited + now_waited - then_waited
    return 1e-9 * ran, 1e-9 * waited


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
            others = [other for other in workers if other is not worker]
            wait_asleep(others)
            before, own = [other.used() for other in others], worker.used()
            found = worker.times(name, turn)
            lost = _since(others, before)[0] + _since([worker], [own])[1]
            turns[name].append((lost / sum(found), found))
    timings, left_out = {}, {}
    for name, found in turns.items():
        found.sort(key=lambda pair: pair[0])
        kept = max(sum(lost <= LOST for lost, _ in found), (len(found) + 1) // 2)
        values = [seconds for _, part in found[:kept] for seconds in part]
        low, _, high = quantiles(values, n=4)
        timings[name] = Timing(median(values), low, high, len(values))
        left_out[name] = len(found) - kept
    return timings, left_out
