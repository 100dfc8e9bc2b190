"""Stages in processes of their own: what hangs, crashes or breaks the device's context costs itself and nothing else.

A stage's process goes through its items and writes down each result. It is replaced by another when an item hangs,
when it ends without a word, and when CUDA no longer works in it. A peer that did this is left out from then on, and
the item is done again without it; a group of items of which two did this is left out of the call.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from pathlib import Path

from .programs import ROOT, Place, die_with_parent
from .record import Record, Result, running, running_file
from .stages import Item, Stage, Watch

STRIKES = 2  # after which a group is left out
DONE, BROKEN, TIME_IS_OVER = 0, 3, 4  # how a stage's process ends


class BrokenContext(RuntimeError):
    """CUDA does not work any more in this process; whose doing it was, the watch knows."""


class Watched(Watch):
    """Tells the record what an item is at."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.now = ""

    def at(self, part: str) -> None:
        self.now = part
        self._record.at(part)

    def left_out(self, peer: str) -> bool:
        return self._record.data["strikes"].get(peer, 0) > 0


def context_is_broken() -> bool:
    """Whether CUDA gives nothing but errors from now on."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except Exception:
        return True
    return False


def release_memory() -> None:
    """Gives the device's memory back, kept layers included."""
    if families := sys.modules.get(f"{__package__}.families.base"):
        families.LAYERS.clear()
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def attempt(item: Item, watch: Watched) -> tuple[Result, bool]:
    """An item's result, and whether the process has to be replaced."""
    for again in (True, False):
        try:
            return item.run(watch), False
        except Exception as error:
            result = {"ok": False, "wrong": f"{type(error).__name__}: {error}"[:2000]}
            if type(error).__name__ != "OutOfMemoryError" or context_is_broken():
                broken = isinstance(error, BrokenContext) or "CUDA error" in str(error) or context_is_broken()
                return result, broken
        # Outside of the handler, which keeps the frames and so the tensors alive.
        release_memory()
        if not again:
            result["wrong"] = "not enough memory on the device"
    return result, False


def run_stage(stage: Stage, place: Place, record: Record, until: float) -> int:
    """What is left of a stage, in the order of its items; those that do not fit into the time are passed over."""
    left = {"items": 0, "seconds": 0.0}
    left_out: dict[str, int] = {}
    for item in stage.items(place):
        if record.has(stage.name, item.name):
            continue
        if record.data["strikes"].get(f"{stage.name}, {item.group}", 0) >= STRIKES:
            left_out[item.group] = left_out.get(item.group, 0) + 1
            continue
        expected = record.expected(stage.name, item.group, item.estimate)
        if time.time() + expected > until:
            left["items"] += 1
            left["seconds"] += expected
            continue
        watch = Watched(record)
        record.begin(stage.name, item.name, item.limit, item.group)
        start = time.monotonic()
        result, broken = attempt(item, watch)
        result |= {"seconds": round(time.monotonic() - start, 3)}
        if item.group:
            result["group"] = item.group
        if broken:
            blame(record, running(record.path) or {}, result)
            return BROKEN
        record.put(stage.name, item.name, result)
    for key, found in (("left", left if left["items"] else None), ("left_out", left_out)):
        record.data[key].pop(stage.name, None)
        if found:
            record.data[key][stage.name] = found
    record.write()
    return TIME_IS_OVER if left["items"] else DONE


def blame(record: Record, what: Result, result: Result) -> None:
    """A peer that broke something is left out from now on; else the item has failed, and its group has a strike."""
    if what.get("at"):
        record.data.setdefault("peers", {})[what["at"]] = f"{what['item']}: {result['wrong']}"
        record.strike(what["at"])
        record.end()
        return
    record.put(what["stage"], what["item"], result)
    if what["group"]:
        record.strike(f"{what['stage']}, {what['group']}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a stage's process; it ends the programs that it runs when it is asked to."""
    for end in (process.terminate, process.kill):
        end()
        try:
            process.wait(10)
            return
        except subprocess.TimeoutExpired:
            continue
    print(f"gpu.visit: process {process.pid} cannot be ended; the driver may hang", file=sys.stderr)


def watch_over(process: subprocess.Popen[bytes], record: Path, end: float) -> str:
    """Until it ends: "" where it does so by itself, "hung" or "over" where it was stopped."""
    seen, changed = None, 0
    while process.poll() is None:
        time.sleep(0.05)
        try:
            stamp = running_file(record).stat().st_mtime_ns
        except OSError:
            seen, stamp = None, 0
        if stamp != changed:
            seen, changed = running(record), stamp
        now = time.time()
        if (seen is not None and now > seen["since"] + seen["limit"]) or now > end:
            stop(process)
            return "over" if now > end else "hung"
    return ""


def supervise(
    stage: str, command: list[str], record_path: Path, copy: Path | None, until: float, end: float
) -> bool:
    """Runs a stage in processes of its own.

    Nothing begins that would take longer than ``until``; what still runs at ``end`` is stopped, and begins anew in
    another call.

    Returns:
        Whether the stage is done.
    """
    while time.time() < until:
        running_file(record_path).unlink(missing_ok=True)
        process = subprocess.Popen(
            [*command, "--stage", stage, "--until", str(until)], cwd=ROOT, preexec_fn=die_with_parent
        )
        stopped = watch_over(process, record_path, end)
        record, what = Record(record_path, copy), running(record_path)
        record.end()
        if not stopped and process.returncode in (DONE, TIME_IS_OVER):
            return process.returncode == DONE
        if stopped == "over":
            return False
        if not stopped and process.returncode == BROKEN:
            continue
        ended = "does not return" if stopped else f"the process ended with status {process.returncode}"
        if what is not None:
            blame(record, what, {"ok": False, "wrong": ended, "group": what["group"]})
        else:
            if not record.has(stage, "between items"):
                record.put(stage, "between items", {"ok": False, "wrong": ended})
            return False
    return False
