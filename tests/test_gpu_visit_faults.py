"""A visit in which things crash, hang, break the device's context or are killed: it goes on, and its record says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpu import programs

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A record's folder, and what a dry run looks for before it begins."""
    for name in (
        "cuda_conformance_emulated",
        "cuda_questions_emulated",
        "libsparsecore_torch_cuda_emulated.so",
    ):
        (tmp_path / name).touch()
    return tmp_path


def command(folder: Path, *options: str) -> list[str]:
    record = ["--record", str(folder / "visit.json"), "--copy", str(folder / "copy.json")]
    faulty = ["--emulated", str(folder), "--stages-of", "tests.faulty_stages"]
    return [sys.executable, "-m", "benchmarks.gpu.visit", "--dry-run", *record, *faulty, *options]


def visit(folder: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    environment = {**os.environ, "FAULTS_FOLDER": str(folder)}
    done = subprocess.run(
        command(folder, *options), cwd=ROOT, env=environment, capture_output=True, text=True
    )
    data = json.loads((folder / "visit.json").read_text())
    assert json.loads((folder / "copy.json").read_text()) == data
    assert not (folder / "visit.running").exists()
    return done, data


def count(folder: Path, name: str) -> int:
    path = folder / f"{name}.count"
    return int(path.read_text()) if path.exists() else 0


def test_each_fault_costs_itself_alone(folder: Path) -> None:
    done, data = visit(folder, "--stages", "machine", "timings")
    assert done.returncode == 1, done.stderr
    rows = data["stages"]["timings"]
    wrong = {name: row["wrong"] for name, row in rows.items() if not row["ok"]}
    assert wrong == {
        "crash": "the process ended with status -11",
        "wrong": "a value",
        "mistaken": "ValueError: a shape",
        "too large": "not enough memory on the device",
        "broken context": "RuntimeError: CUDA error: an illegal memory access was encountered",
        "hang": "does not return",
    }
    assert count(folder, "too large") == 2  # again, once memory was given back
    # Two of group a were lost: what is left of it is left out, and said to be.
    assert [name for name, row in rows.items() if row["ok"]] == [
        "good",
        "with crashing peer",
        "with hanging peer",
        "both peers again",
        "last",
    ]
    assert data["left_out"] == {"timings": {"a": 1}} and "left out" not in rows
    assert rows["both peers again"]["left_out"] == "peer hang" and count(folder, "both peers again") == 1
    assert set(data["peers"]) == {"peer crash", "peer hang"}
    assert "timings: 1 more of a are left out" in done.stdout and "peer hang is left out" in done.stdout

    # What has failed is not done again, unless it is asked for.
    visit(folder, "--stages", "timings")
    assert count(folder, "good") == 1 and count(folder, "too large") == 2
    _, data = visit(folder, "--stages", "timings", "--retry")
    assert count(folder, "good") == 1 and count(folder, "too large") == 4
    assert data["left_out"] == {"timings": {"a": 1}}


def alive(process: int) -> bool:
    """Whether it runs; one that has ended may wait for somebody to ask how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_visit_that_is_killed_goes_on_later(folder: Path) -> None:
    environment = {**os.environ, "FAULTS_FOLDER": str(folder)}
    process = subprocess.Popen(
        command(folder, "--stages", "questions"), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
    )
    while not (folder / "process").exists():
        assert process.poll() is None
        time.sleep(0.05)
    stage = int((folder / "process").read_text())
    refused = subprocess.run(command(folder), cwd=ROOT, env=environment, capture_output=True, text=True)
    assert refused.returncode != 0 and "another visit is writing" in refused.stderr
    process.send_signal(signal.SIGKILL)
    process.wait()
    patience = time.monotonic() + 60
    while alive(stage) and time.monotonic() < patience:
        time.sleep(0.05)
    assert not alive(stage)
    assert list(json.loads((folder / "visit.json").read_text())["stages"]["questions"]) == ["first"]
    done, data = visit(folder, "--stages", "questions")
    assert done.returncode == 0 and list(data["stages"]["questions"]) == ["first", "second", "third"]
    assert count(folder, "first") == 1 and count(folder, "second") == 2


def test_what_does_not_fit_is_passed_over(folder: Path) -> None:
    done, data = visit(folder, "--stages", "tests")
    assert done.returncode == 4 and "not all stages are done (tests)" in done.stdout
    assert list(data["stages"]["tests"]) == ["cheap", "cheap as well"]
    assert data["left"] == {"tests": {"items": 1, "seconds": 1e5}}
    assert "tests: 1 left, about 100000 s" in done.stdout


def test_a_stage_that_cannot_begin_costs_no_other(folder: Path) -> None:
    done, data = visit(folder, "--stages", "conformance", "machine")
    assert done.returncode == 1
    assert "a library that is missing" in data["stages"]["conformance"]["between items"]["wrong"]
    assert data["stages"]["machine"]["machine"]["gpu"] == "none"


def test_what_a_program_has_started_ends_with_it(tmp_path: Path) -> None:
    """A stage's process that is killed takes its programs with it."""
    script = (
        "import sys; sys.path.insert(0, 'benchmarks'); from gpu import programs\n"
        f"programs.run(['sh', '-c', 'echo $$ > {tmp_path}/inner; exec sleep 600'], 600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    while not (tmp_path / "inner").exists() or not (tmp_path / "inner").read_text():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    inner, patience = int((tmp_path / "inner").read_text()), time.monotonic() + 60
    while alive(inner) and time.monotonic() < patience:
        time.sleep(0.05)
    assert not alive(inner)


def test_programs_that_are_missing_are_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = programs.Place(tmp_path, tmp_path)
    monkeypatch.setattr(programs, "find_sanitizer", lambda: None)
    assert programs.sanitize(place, "memcheck", "operators", 1)["why"] == "there is no compute-sanitizer"
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda name: None)
    assert programs.tests(place, "tests/cuda", 1)["why"] == "pytest is not installed"


def test_the_sanitizer_of_a_toolkit_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "compute-sanitizer/compute-sanitizer"
    tool.parent.mkdir()
    tool.touch(0o755)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert programs.find_sanitizer() == str(tool)
