"""The GPU as the stages see it, and what stands in for it in a dry run."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, Protocol

import torch

from .programs import die_with_parent

Call = Callable[[], object]


class Device(Protocol):
    """Where tensors live and how time is taken."""

    name: str
    dry: bool

    def flush(self) -> None:
        """Leaves nothing of any operand in the L2 cache."""

    def mark(self) -> Any:
        """A moment in the stream."""

    def seconds(self, start: Any, end: Any) -> float:
        """Between two moments, after :meth:`finish`."""

    def finish(self) -> None:
        """Waits for everything."""

    def graph(self, call: Call) -> Call:
        """The same work as one CUDA graph."""


class Gpu:
    """The current CUDA device. The flushed buffer is larger than any L2, and long enough to write that the host is
    far ahead of the device when the timed call is enqueued.
    """

    name, dry = "cuda", False
    FLUSHED = 512 << 20

    def __init__(self) -> None:
        self._buffer = torch.empty(self.FLUSHED, dtype=torch.int8, device=self.name)

    def flush(self) -> None:
        self._buffer.zero_()

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return 1e-3 * start.elapsed_time(end)

    def finish(self) -> None:
        torch.cuda.synchronize()

    def graph(self, call: Call) -> Call:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay


class Rehearsal:
    """CPU tensors, kernels on the emulator, and a clock that counts how often it was asked."""

    name, dry = "cpu", True

    def __init__(self) -> None:
        self._ticks = 0
        self._buffer = torch.empty(1 << 10, dtype=torch.int8)

    def flush(self) -> None:
        self._buffer.zero_()

    def mark(self) -> int:
        self._ticks += 1
        return self._ticks

    def seconds(self, start: int, end: int) -> float:
        return 1e-6 * (end - start)

    def finish(self) -> None:
        pass

    def graph(self, call: Call) -> Call:
        return call


GAUGES = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu")


class Gauges:
    """What nvidia-smi says of clocks and power while something runs; nothing where there is no nvidia-smi."""

    def __init__(self, milliseconds: int = 200) -> None:
        self._lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        if shutil.which("nvidia-smi") is None:
            return
        with contextlib.suppress(OSError):
            self._process = subprocess.Popen(
                [
                    "nvidia-smi",
                    f"--query-gpu={','.join(GAUGES)}",
                    "--format=csv,noheader,nounits",
                    f"--loop-ms={milliseconds}",
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                preexec_fn=die_with_parent,
            )
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)

    @contextlib.contextmanager
    def during(self, result: dict[str, Any]) -> Iterator[None]:
        """Adds ``gauges`` to a result: medians over the block, or the last reading where none fell in."""
        before = len(self._lines)
        yield
        if read := summarize(self._lines[before:] or self._lines[-1:]):
            result["gauges"] = read

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
                self._reader.join(5)
                assert self._process.stdout is not None
                self._process.stdout.close()


def summarize(lines: list[str]) -> dict[str, float]:
    """Medians of nvidia-smi's columns; a column that a device does not have is left out."""
    columns: dict[str, list[float]] = {}
    for line in lines:
        for name, text in zip(GAUGES, line.split(","), strict=False):
            with contextlib.suppress(ValueError):
                columns.setdefault(name, []).append(float(text))
    return {name: median(values) for name, values in columns.items()}
