"""Stages of a visit in which everything goes wrong that may: tests give them to ``benchmarks.gpu.visit --stages-of``.

What an item has done is in the folder of the record, which ``FAULTS_FOLDER`` names.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.programs import Place
from benchmarks.gpu.stages import Item, Stage, Watch

Result = dict[str, Any]


class OutOfMemoryError(RuntimeError):
    """As torch's."""


def note(name: str) -> int:
    """Counts how often an item has begun."""
    path = Path(os.environ["FAULTS_FOLDER"]) / f"{name}.count"
    count = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(count))
    return count


def good(name: str) -> Callable[[Watch], Result]:
    def run(watch: Watch) -> Result:
        note(name)
        return {"ok": True}

    return run


def crash(watch: Watch) -> Result:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def hang(watch: Watch) -> Result:
    time.sleep(600)
    raise AssertionError


def broken_context(watch: Watch) -> Result:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def mistaken(watch: Watch) -> Result:
    raise ValueError("a shape")


def too_large(watch: Watch) -> Result:
    note("too large")
    raise OutOfMemoryError("CUDA out of memory")


def peer_that(fails: Callable[[Watch], Result], name: str) -> Callable[[Watch], Result]:
    """A row of which one peer hangs or crashes: it is done again without that peer."""

    def run(watch: Watch) -> Result:
        note(name)
        part = f"peer {fails.__name__}"
        if watch.left_out(part):
            return {"ok": True, "left_out": part}
        watch.at(part)
        return fails(watch)

    return run


def rows(place: Place) -> Iterator[Item]:
    yield Item("good", good("good"), 60, 0.1, "a")
    yield Item("crash", crash, 60, 0.1, "a")
    yield Item("wrong", lambda watch: {"ok": False, "wrong": "a value"}, 60, 0.1, "b")
    yield Item("mistaken", mistaken, 60, 0.1, "b")
    yield Item("too large", too_large, 60, 0.1, "b")
    yield Item("broken context", broken_context, 60, 0.1, "b")
    yield Item("with crashing peer", peer_that(crash, "with crashing peer"), 60, 0.1, "c")
    yield Item("with hanging peer", peer_that(hang, "with hanging peer"), 0.5, 0.1, "c")
    yield Item("both peers again", peer_that(hang, "both peers again"), 60, 0.1, "c")
    yield Item("hang", hang, 0.5, 0.1, "a")
    yield Item("left out", good("left out"), 60, 0.1, "a")
    yield Item("last", good("last"), 60, 0.1, "d")


def slow_rows(place: Place) -> Iterator[Item]:
    """Of which the second is still going on when the visit is killed, for the first time."""

    def second(watch: Watch) -> Result:
        if note("second") == 1:
            (Path(os.environ["FAULTS_FOLDER"]) / "process").write_text(str(os.getpid()))
            return hang(watch)
        return {"ok": True}

    yield Item("first", good("first"), 60, 0.1)
    yield Item("second", second, 600, 0.1)
    yield Item("third", good("third"), 60, 0.1)


def dear_rows(place: Place) -> Iterator[Item]:
    yield Item("cheap", good("cheap"), 60, 0.1)
    yield Item("dear", good("dear"), 60, 1e5)
    yield Item("cheap as well", good("cheap as well"), 60, 0.1)


def breaks(place: Place) -> Iterator[Item]:
    raise ImportError("a library that is missing")
    yield


STAGES = {
    stage.name: stage
    for stage in (
        Stage("machine", 60, lambda place: iter([Item("machine", lambda watch: {"gpu": "none"}, 60)])),
        Stage("conformance", 60, breaks),
        Stage("timings", 60, rows),
        Stage("questions", 60, slow_rows),
        Stage("tests", 60, dear_rows),
    )
}
