"""One visit to a GPU: what is right and what is fast, in the order of its value. docs/gpu_visit.md says how.

python -m benchmarks.gpu.visit --prepare [FOLDER]   builds with nvcc and gathers all that a GPU machine needs
python -m benchmarks.gpu.visit --run                there, in that folder; again to go on where it stopped
python -m benchmarks.gpu.visit --collect [RECORD]   the record becomes benchmarks/results/gpu_*.json
python -m benchmarks.gpu.visit --dry-run            every stage on the emulator; nothing is measured or kept
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import programs
from .programs import ROOT, Place
from .record import Record

Result = dict[str, Any]
PREPARED = ROOT / "prepared.json"  # what --prepare writes beside what it gathers


@dataclass(frozen=True)
class Item:
    """One thing to find out; ``limit`` seconds after its start it counts as hung."""

    name: str
    run: Callable[[], Result]
    limit: float


@dataclass(frozen=True)
class Stage:
    """``seconds`` of one call's time, and its items, made when the stage runs."""

    name: str
    seconds: float
    items: Callable[[Place], Iterator[Item]]


def machine_items(place: Place) -> Iterator[Item]:
    from .machine import describe

    yield Item("machine", lambda: describe(place.dry), 60)


def conformance_items(place: Place) -> Iterator[Item]:
    yield Item("wrappers", lambda: programs.conformance(place, 45), 70)


def correctness_items(place: Place) -> Iterator[Item]:
    from .correctness import cases

    device = load_operators(place)
    for case in cases(device, small=place.dry):
        yield Item(case.name, case.run, 60)


def sanitizer_items(place: Place) -> Iterator[Item]:
    for what in ("operators", "conformance"):
        # Without the tool both would be one run of the same program.
        for tool in ("memcheck",) if place.dry else ("memcheck", "synccheck"):
            yield Item(
                f"{what}, {tool}",
                lambda what=what, tool=tool: programs.sanitize(place, tool, what, 100),
                120,
            )


def question_items(place: Place) -> Iterator[Item]:
    for name in programs.question_names(place):
        yield Item(name, lambda name=name: programs.question(place, name, 30), 40)


def timing_items(place: Place) -> Iterator[Item]:
    from .device import Device, Gauges, Gpu, Rehearsal
    from .timings import rows, time_row

    load_operators(place)
    device: Device = Rehearsal() if place.dry else Gpu()
    gauges = Gauges()
    try:
        for row in rows(device):
            yield Item(row.name, lambda row=row: time_row(row, device, gauges), 60)
    finally:
        gauges.close()


def test_items(place: Place) -> Iterator[Item]:
    yield Item("tests/cuda", lambda: programs.tests(place, 150), 170)


STAGES = {
    stage.name: stage
    for stage in (
        Stage("machine", 30, machine_items),
        Stage("conformance", 60, conformance_items),
        Stage("correctness", 90, correctness_items),
        Stage("sanitizer", 90, sanitizer_items),
        Stage("questions", 60, question_items),
        Stage("timings", 150, timing_items),
        Stage("tests", 60, test_items),
    )
}


def load_operators(place: Place) -> str:
    """Loads the operators; returns the name of the device that their tensors live on."""
    import torch

    import sparsecore  # noqa: F401  (defines the operators)

    if place.emulated is None:
        return "cuda"
    torch.ops.load_library(str(place.emulated))
    return "cpu"


def run_stage(stage: Stage, place: Place, record: Record, until: float) -> int:
    """What is left of a stage. 0: all of it is done; 3: a new process has to go on, because CUDA broke in this one;
    4: the time is over.
    """
    for item in stage.items(place):
        if record.has(stage.name, item.name):
            continue
        if time.time() > until:
            return 4
        record.begin(stage.name, item.name, item.limit)
        start = time.monotonic()
        broken = False
        try:
            result = item.run()
        except Exception as error:
            result = {"ok": False, "wrong": f"{type(error).__name__}: {error}"[:2000]}
            broken = "CUDA error" in str(error)
        result["seconds"] = round(time.monotonic() - start, 3)
        record.put(stage.name, item.name, result)
        if broken:
            return 3
    return 0


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a stage's process; it ends the programs that it runs when it is asked to."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def supervise(
    stage: Stage, command: list[str], record_path: Path, copy: Path | None, until: float, end: float
) -> bool:
    """Runs a stage in processes of its own; one that ends without a word or hangs costs its item and no other.

    No item begins after ``until``; what still runs at ``end`` is stopped, and begins anew in another call.

    Returns:
        Whether the stage is done.
    """
    while time.time() < until:
        process = subprocess.Popen([*command, "--stage", stage.name, "--until", str(until)], cwd=ROOT)
        hung = over = False
        while process.poll() is None and not (hung or over):
            time.sleep(0.1)
            running = Record(record_path).data["running"]
            hung = bool(running) and time.time() > running["since"] + running["limit"]
            over = time.time() > end
        if hung or over:
            stop(process)
        record = Record(record_path, copy)
        running = record.data["running"]
        if process.returncode in (0, 4):
            return process.returncode == 0
        if over and not hung:
            record.data["running"] = None
            record.write()
            return False
        wrong = "does not return" if hung else f"the process ended with status {process.returncode}"
        if running:
            record.put(running["stage"], running["item"], {"ok": False, "wrong": wrong})
        elif process.returncode != 3:
            if not record.has(stage.name, "between items"):
                record.put(stage.name, "between items", {"ok": False, "wrong": wrong})
            return False
    return False


def summarize(record: Record) -> tuple[str, int]:
    """A line per stage, and everything that is wrong; and how much is."""
    lines, count = [], 0
    for name, items in record.data["stages"].items():
        wrong = {item: result for item, result in items.items() if not result.get("ok", True)}
        seconds = sum(result.get("seconds", 0) for result in items.values())
        count += len(wrong)
        lines.append(f"{name}: {len(items)} done in {seconds:.0f} s, {len(wrong)} wrong")
        lines += [
            f"  {item}: {json.dumps(result.get('failed') or result.get('wrong') or result)[:300]}"
            for item, result in wrong.items()
        ]
    return "\n".join(lines), count


def run(arguments: argparse.Namespace, place: Place, record_path: Path) -> int:
    """All stages, each within its time and within ``--minutes`` together."""
    record = Record(record_path, arguments.copy)
    prepared = json.loads(PREPARED.read_text("utf-8")) if PREPARED.exists() else {"commit": "dry run"}
    for key, value in {"dry": place.dry, **prepared}.items():
        if record.data.setdefault(key, value) != value and key in ("dry", "commit"):
            sys.exit(
                f"gpu.visit: {record_path} was begun with {key} = {record.data[key]!r}, and this is {value!r}. "
                "Results of one build belong together: move the record away to begin another."
            )
    record.data["running"] = None
    record.write()
    begin = time.time()
    last = begin + 60 * arguments.minutes - 20  # nothing begins after it
    command = [sys.executable, "-m", "benchmarks.gpu.visit", "--record", str(record_path)]
    command += ["--dry-run", "--emulated", str(arguments.emulated)] if place.dry else ["--run"]
    command += ["--copy", str(arguments.copy)] if arguments.copy else []
    done = True
    for name in arguments.stages:
        stage = STAGES[name]
        until = last if arguments.whole_stages else min(last, time.time() + stage.seconds)
        whole = begin + 60 * arguments.minutes
        record = Record(record_path, arguments.copy)
        # These may go well this time.
        record.data["stages"].get(name, {}).pop("between items", None)
        if "gpu" not in record.data["stages"].get("machine", {}).get("machine", {}):
            record.data["stages"].pop("machine", None)
        record.write()
        done = supervise(stage, command, record_path, arguments.copy, until, whole) and done
        found = Record(record_path).data["stages"].get("machine", {}).get("machine", {})
        if not place.dry and "gpu" not in found:
            sys.exit(
                f"gpu.visit: {found.get('wrong', 'the stage machine has to run first')}. Nothing was measured."
            )
    text, wrong = summarize(Record(record_path))
    print(text)
    print(
        "all stages are done"
        if done
        else "not all stages are done: the same command goes on where this one stopped"
    )
    if place.dry and wrong:
        return 1
    return 0 if done else 4


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks.gpu.visit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--prepare", nargs="?", type=Path, const=ROOT / "build" / "gpu_visit", metavar="FOLDER")
    what.add_argument("--run", action="store_true")
    what.add_argument(
        "--collect",
        nargs="?",
        type=Path,
        const=ROOT / "build" / "gpu_visit" / "gpu_visit.json",
        metavar="RECORD",
    )
    what.add_argument("--dry-run", action="store_true")
    parser.add_argument("--minutes", type=float, default=8.0, help="of this call (default 8)")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument(
        "--whole-stages", action="store_true", help="a stage may take all the time that is left"
    )
    parser.add_argument("--record", type=Path, default=ROOT / "gpu_visit.json")
    parser.add_argument("--copy", type=Path, help="a second file that always holds the same record")
    parser.add_argument(
        "--emulated", type=Path, default=ROOT / "build" / "cuda", help="for --dry-run: the preset's folder"
    )
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        from .prepare import prepare

        prepare(arguments.prepare)
        return
    if arguments.collect:
        from .collect import collect

        collect(arguments.collect)
        return
    if arguments.run and not PREPARED.exists():
        sys.exit(
            f"gpu.visit: --run belongs into a folder that --prepare has made, and {PREPARED} is missing."
        )
    place = programs.on_emulator(arguments.emulated) if arguments.dry_run else programs.gathered(ROOT)
    if arguments.stage:
        record = Record(arguments.record, arguments.copy)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            sys.exit(run_stage(STAGES[arguments.stage], place, record, arguments.until))
        except Exception:
            record.put(
                arguments.stage, "between items", {"ok": False, "wrong": traceback.format_exc()[-2000:]}
            )
            raise
    if PREPARED.exists():
        os.environ["PYTHONPATH"] = str(ROOT / "python")
    if arguments.dry_run and arguments.record == ROOT / "gpu_visit.json":
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(run(arguments, place, Path(folder) / "gpu_visit.json"))
    sys.exit(run(arguments, place, arguments.record))


if __name__ == "__main__":
    main()
