"""One visit to a GPU: what is right and what is fast, in the order of its value. docs/gpu_visit.md says how.

python -m benchmarks.gpu.visit --prepare [FOLDER]   builds with nvcc and gathers all that a GPU machine needs
python -m benchmarks.gpu.visit --run                there, in that folder; again to go on where it stopped
python -m benchmarks.gpu.visit --collect [RECORD]   the record becomes benchmarks/results/gpu_*.json
python -m benchmarks.gpu.visit --dry-run            every stage on the emulator; nothing is measured or kept
"""

from __future__ import annotations

import argparse
import fcntl
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from . import programs
from .programs import ROOT, Place
from .record import Record, Result
from .stages import STAGES, Stage
from .summary import summarize
from .supervision import run_stage, supervise

PREPARED = ROOT / "prepared.json"  # what --prepare writes beside what it gathers
SHORTEST = 8.0  # seconds; a stage needs as many to begin at all


@contextmanager
def alone(record_path: Path) -> Iterator[None]:
    """Two visits at once would disturb each other's timings and record."""
    record_path.parent.mkdir(parents=True, exist_ok=True)
    with record_path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(
                f"gpu.visit: another visit is writing {record_path}. Wait for its end, or name another --record."
            )
        yield


def begin_record(arguments: argparse.Namespace, place: Place, record_path: Path) -> str:
    """Checks that the record belongs to this build, and forgets what may go well this time; returns the commit."""
    record = Record(record_path, arguments.copy)
    prepared = json.loads(PREPARED.read_text("utf-8")) if PREPARED.exists() else {"commit": "dry run"}
    for key, value in {"dry": place.dry, **prepared}.items():
        if record.data.setdefault(key, value) != value and key in ("dry", "commit"):
            sys.exit(
                f"gpu.visit: {record_path} was begun with {key} = {record.data[key]!r}, and this is {value!r}. "
                "Results of one build belong together: move the record away to begin another."
            )
    stages = record.data["stages"]
    for items in stages.values():
        items.pop("between items", None)
    if arguments.retry:
        record.data["strikes"].clear()
        record.data.pop("peers", None)
        for name, items in stages.items():
            stages[name] = {item: result for item, result in items.items() if result.get("ok", True)}
    # The stage machine runs in every call: it may be another one.
    if "gpu" in (found := stages.pop("machine", {}).get("machine", {})):
        record.data.setdefault("gpu", found["gpu"])
    record.write()
    record.end()
    return str(record.data["commit"])


def check_machine(record_path: Path, dry: bool) -> None:
    """Without a GPU, or on another one than the record is of, nothing more is done."""
    record = Record(record_path)
    found: Result = record.data["stages"].get("machine", {}).get("machine", {})
    if dry:
        return
    if "gpu" not in found:
        between = record.data["stages"].get("machine", {}).get("between items", {})
        why = found.get("wrong") or between.get("wrong") or "the stage machine has to run first"
        sys.exit(f"gpu.visit: {why}. Nothing was measured.")
    if record.data.get("gpu", found["gpu"]) != found["gpu"]:
        sys.exit(
            f"gpu.visit: {record_path} is of a {record.data['gpu']}, and this is a {found['gpu']}. "
            "Name another --record."
        )


def run(arguments: argparse.Namespace, place: Place, stages: Mapping[str, Stage], record_path: Path) -> int:
    """All stages, each within its share of ``--minutes``, and then what is left of them within what is left of it."""
    begin = time.time()
    # Nothing waits for a dry run, and the machine may be busy.
    end = begin + 60 * (arguments.minutes or (120 if place.dry else 8))
    commit = begin_record(arguments, place, record_path)
    command = [sys.executable, "-m", "benchmarks.gpu.visit", "--record", str(record_path)]
    command += ["--dry-run", "--emulated", str(arguments.emulated)] if place.dry else ["--run"]
    command += ["--copy", str(arguments.copy)] if arguments.copy else []
    command += ["--stages-of", arguments.stages_of]
    if PREPARED.exists():
        os.environ["PYTHONPATH"] = str(ROOT / "python")
        os.environ["SPARSECORE_VISIT_LAYERS"] = str(ROOT / f"layers-{commit}")
    names = list(arguments.stages)
    if not place.dry and "machine" not in names:
        names.insert(0, "machine")
    left = names
    for whole in (False, True):
        for name in list(left):
            now = time.time()
            until = end - 5
            if not (whole or arguments.whole_stages or place.dry):
                until = min(until, now + stages[name].seconds)
            if now + SHORTEST > until and not place.dry:
                continue
            done = supervise(name, command, record_path, arguments.copy, until, end)
            left = [other for other in left if not (done and other == name)]
            print(
                f"{time.time() - begin:4.0f} s  {name}: {'done' if done else 'to be gone on with'}",
                flush=True,
            )
            if name == "machine":
                check_machine(record_path, place.dry)
    record = Record(record_path, arguments.copy)
    text, wrong = summarize(record.data)
    print(text)
    print(
        f"not all stages are done ({', '.join(left)}): the same command goes on where this one stopped"
        if left
        else "all stages are done"
    )
    if place.dry and wrong:
        return 1
    return 4 if left else 0


def run_one(arguments: argparse.Namespace, place: Place, stages: Mapping[str, Stage]) -> int:
    """A stage's own process."""
    record = Record(arguments.record, arguments.copy)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return run_stage(stages[arguments.stage], place, record, arguments.until)
    except Exception:
        wrong = traceback.format_exc()[-2000:]
        record.put(arguments.stage, "between items", {"ok": False, "wrong": wrong})
        raise


def absolute(path: str) -> Path:
    """Stages run in another folder."""
    return Path(path).absolute()


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
    parser.add_argument("--minutes", type=float, help="of this call (default 8; of a dry run 120)")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument(
        "--whole-stages", action="store_true", help="a stage may take all the time that is left"
    )
    parser.add_argument(
        "--retry", action="store_true", help="do again what has failed, hung or crashed in earlier calls"
    )
    parser.add_argument("--record", type=absolute, default=ROOT / "gpu_visit.json")
    parser.add_argument("--copy", type=absolute, help="a second file that always holds the same record")
    parser.add_argument(
        "--emulated",
        type=absolute,
        default=ROOT / "build" / "cuda",
        help="for --dry-run: the preset's folder",
    )
    parser.add_argument("--stage", choices=list(STAGES), help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    # A module with other STAGES, for the tests.
    parser.add_argument("--stages-of", default="benchmarks.gpu.stages", help=argparse.SUPPRESS)
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
    stages: Mapping[str, Stage] = importlib.import_module(arguments.stages_of).STAGES
    if arguments.stage:
        sys.exit(run_one(arguments, place, stages))
    if arguments.dry_run and arguments.record == ROOT / "gpu_visit.json":
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(run(arguments, place, stages, Path(folder) / "gpu_visit.json"))
    with alone(arguments.record):
        sys.exit(run(arguments, place, stages, arguments.record))


if __name__ == "__main__":
    main()
