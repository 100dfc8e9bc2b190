"""Stages that run other programs: conformance, microbenchmark questions, compute-sanitizer, pytest."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

Result = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Place:
    """Where the compiled programs are.

    Attributes:
        conformance, questions: Executables.
        emulated: The operator library for the emulator, in a dry run.
    """

    conformance: Path
    questions: Path
    emulated: Path | None = None

    @property
    def dry(self) -> bool:
        return self.emulated is not None


def gathered(folder: Path) -> Place:
    """What ``--prepare`` has put into a folder; a copy may have lost the right to run."""
    place = Place(folder / "bin" / "cuda_conformance", folder / "bin" / "cuda_questions")
    for program in (place.conformance, place.questions):
        if not os.access(program, os.X_OK):
            program.chmod(0o755)
    return place


def on_emulator(build: Path) -> Place:
    """What the preset ``cuda`` has built.

    Raises:
        FileNotFoundError: It has not been built, and how to build it.
    """
    names = ("cuda_conformance_emulated", "cuda_questions_emulated", "libsparsecore_torch_cuda_emulated.so")
    found = [next((path for path in build.rglob(name) if path.is_file()), None) for name in names]
    if None in found:
        raise FileNotFoundError(
            f"a dry run needs {', '.join(names)} in {build}. Build them: cmake --preset cuda -DSPARSECORE_TORCH=ON && "
            "cmake --build --preset cuda --target sparsecore_torch_cuda_emulated cuda_conformance_emulated "
            "cuda_questions_emulated"
        )
    conformance, questions, library = (path for path in found if path is not None)
    return Place(conformance, questions, library)


_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """For ``preexec_fn``: who kills a visit by its one process ends what it has started as well."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True)
class Run:
    """What a program printed and how it ended; ``status`` is None where its time was over."""

    status: int | None
    output: str


def run(command: list[str | Path], seconds: float, **environment: str) -> Run:
    """Runs a program with everything it starts, and ends all of it when the time is over."""
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        lines.extend(process.stdout)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    status: int | None = None
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    reader.join(5)
    assert process.stdout is not None
    process.stdout.close()
    return Run(status, "".join(lines))


def json_lines(output: str) -> Iterator[Result]:
    """The lines that are JSON objects."""
    for line in output.splitlines():
        if line.startswith("{"):
            with contextlib.suppress(json.JSONDecodeError):
                yield json.loads(line)


def conformance(place: Place, seconds: float) -> Result:
    """Every wrapper: the checks that failed by name, the others as counts."""
    done = run([place.conformance, str(int(seconds))], seconds + 15)
    lines = list(json_lines(done.output))
    checks = [line for line in lines if "check" in line]
    summary = next((line for line in lines if "checks" in line), {})
    return {
        "ok": done.status == 0,
        "complete": summary.get("ran") == summary.get("checks") and bool(summary),
        "passed": sum(check["result"] == "pass" for check in checks),
        "skipped": [check["check"] for check in checks if check["result"] == "skip"],
        "failed": {check["check"]: check.get("what", "") for check in checks if check["result"] == "fail"},
        "of": summary.get("checks", 0),
        **({} if checks else {"output": done.output[-2000:]}),
    }


def question_names(place: Place) -> list[str]:
    """In the order of their value."""
    return [line["question"] for line in json_lines(run([place.questions, "--list"], 60).output)]


def question(place: Place, name: str, seconds: float) -> Result:
    """One answer."""
    done = run([place.questions, name], seconds)
    answer = next(json_lines(done.output), {})
    if not answer:
        ended = "does not return" if done.status is None else f"exit status {done.status}"
        return {"ok": False, "wrong": f"{ended}: {done.output[-500:]}"}
    return {"ok": done.status == 0, **answer}


SUMMARY = re.compile(r"ERROR SUMMARY: (\d+) error")


def find_sanitizer() -> str | None:
    """On the path, or where toolkits are installed."""
    if found := shutil.which("compute-sanitizer"):
        return found
    homes = [
        os.environ.get("CUDA_HOME", ""),
        *sorted(map(str, Path("/usr/local").glob("cuda*")), reverse=True),
    ]
    for home in filter(None, homes):
        for name in ("bin/compute-sanitizer", "compute-sanitizer/compute-sanitizer"):
            if os.access(Path(home) / name, os.X_OK):
                return str(Path(home) / name)
    return None


def sanitize(place: Place, tool: str, what: str, seconds: float) -> Result:
    """``what``: conformance, or a family. Each tensor has an allocation of its own, so that a step past it is seen."""
    sanitizer = find_sanitizer()
    if sanitizer is None and not place.dry:
        return {"ok": True, "ran": False, "why": "there is no compute-sanitizer"}
    command: list[str | Path]
    if what == "conformance":
        command = [place.conformance, str(int(seconds)), "60"]
    else:
        command = [sys.executable, "-m", "benchmarks.gpu.correctness", what]
    prefix: list[str | Path] = []
    if sanitizer is not None and not place.dry:
        prefix = [sanitizer, "--tool", tool, "--target-processes", "all", "--error-exitcode", "9"]
    emulated = {"SPARSECORE_CUDA_EMULATED": str(place.emulated)} if place.dry else {}
    done = run([*prefix, *command], seconds, PYTORCH_NO_CUDA_MEMORY_CACHING="1", **emulated)
    errors = [int(match[1]) for match in SUMMARY.finditer(done.output)]
    result: Result = {"ok": done.status == 0 and not any(errors), "ran": bool(errors), "errors": sum(errors)}
    if not result["ok"]:
        result["why"] = "its time was over" if done.status is None else f"exit status {done.status}"
        complaints = [line for line in done.output.splitlines() if line.startswith("=========")]
        result["output"] = "\n".join(complaints[:60]) or done.output[-3000:]
    return result


def test_files(place: Place) -> list[str]:
    """Of tests/cuda, the one that only a GPU can run first. A dry run has it collected, to say why it is skipped."""
    first = "tests/cuda/test_on_gpu.py"
    others = sorted(f"tests/cuda/{path.name}" for path in (ROOT / "tests/cuda").glob("test_*.py"))
    return [first] if place.dry else [first, *(path for path in others if path != first)]


def tests(place: Place, path: str, seconds: float) -> Result:
    """A file under pytest: counts, and what failed with its last lines."""
    if importlib.util.find_spec("pytest") is None:
        return {"ok": True, "ran": False, "why": "pytest is not installed"}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider"]
        emulated = {"SPARSECORE_CUDA_EMULATED": str(place.emulated)} if place.dry else {}
        done = run([*command, f"--junit-xml={report}", path], seconds, **emulated)
        if not report.exists():
            ended = "its time was over" if done.status is None else f"exit status {done.status}"
            return {"ok": False, "wrong": f"{ended}: {done.output[-2000:]}"}
        # 5: everything in the file is skipped.
        return {"ok": done.status in (0, 5), **read_junit(report)}


def read_junit(report: Path) -> Result:
    """Counts of a report, and the failures by name."""
    counts = {"passed": 0, "skipped": 0}
    failed: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        problem = case.find("failure")
        problem = case.find("error") if problem is None else problem
        if problem is not None:
            failed[f"{case.get('classname')}.{case.get('name')}"] = (problem.text or "")[-1500:]
        else:
            counts["skipped" if case.find("skipped") is not None else "passed"] += 1
    return {**counts, "failed": failed}
