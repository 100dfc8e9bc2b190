"""The timing of engines by processes: who may be timed, and when."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks" / "python"))
from workers import Worker, in_turns, wait_asleep

if not Path("/proc/self/schedstat").exists():
    pytest.skip("this system does not say when threads run", allow_module_level=True)


def spin(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def sleepers() -> dict[str, Callable[[], None]]:
    """Calls that take 2 and 6 ms without a processor."""
    return {"short": lambda: time.sleep(2e-3), "long": lambda: time.sleep(6e-3)}


def spinner(seconds: float) -> dict[str, Callable[[], None]]:
    """A call after which a thread spins on."""
    return {"spinner": lambda: threading.Thread(target=spin, args=(seconds,), daemon=True).start()}


def absent() -> dict[str, Callable[[], None]]:
    raise ImportError("no such engine")


@pytest.fixture(scope="module")
def quiet() -> Iterator[Worker]:
    with Worker(sleepers) as worker:
        assert worker.names() == ["short", "long"]
        yield worker


def test_calls_take_turns_and_spinning_threads_are_waited_for(quiet: Worker) -> None:
    with Worker(spinner, 0.1) as other:
        assert other.names() == ["spinner"]
        timings, left_out = in_turns({"short": quiet, "spinner": other, "long": quiet}, 0.0, 0.01, least=3)
        assert 2e-3 < timings["short"].median < timings["long"].median
        assert timings["long"].rounds >= 3 * (3 - left_out["long"])
        # Threads of the next turn spin for a tenth of a second, and nobody is asked before that is over.
        start = time.perf_counter()
        other.times("spinner", 0.0)
        wait_asleep([quiet, other], patience=30)
        assert time.perf_counter() - start > 0.1


def test_an_engine_that_never_sleeps_is_refused(quiet: Worker) -> None:
    with Worker(spinner, 60.0) as other:
        other.names()
        other.times("spinner", 0.0)
        with pytest.raises(RuntimeError, match=r"still busy after 0\.5 s"):
            wait_asleep([quiet, other], patience=0.5)


def test_the_reason_of_a_missing_engine_arrives() -> None:
    with Worker(absent) as worker, pytest.raises(RuntimeError, match="ImportError: no such engine"):
        worker.names()
