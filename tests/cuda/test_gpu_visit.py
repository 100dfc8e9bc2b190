"""A visit to a GPU, gone through on the emulator: every line that would run there has run before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cuda.conftest import EMULATED

ROOT = Path(__file__).resolve().parents[2]
VISIT = [sys.executable, "-m", "benchmarks.gpu.visit"]

pytestmark = pytest.mark.skipif(EMULATED is None, reason="needs SPARSECORE_CUDA_EMULATED (make test-cuda)")


def dry_run(record: Path, *options: str) -> subprocess.CompletedProcess[str]:
    build = next(path for path in Path(str(EMULATED)).resolve().parents if (path / "CMakeCache.txt").exists())
    command = [*VISIT, "--dry-run", "--record", str(record), "--emulated", str(build), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_dry_run(tmp_path: Path) -> None:
    record, copy = tmp_path / "visit.json", tmp_path / "copy" / "visit.json"
    # As if a call had ended while one question was asked, and another had failed.
    record.write_text(
        json.dumps(
            {
                "dry": True,
                "stages": {"questions": {"mma.bf16.warps8": {"ok": True, "kept": 1}}},
                "running": {"stage": "questions", "item": "bulk.runs4", "since": 0, "limit": 1},
            }
        )
    )
    done = dry_run(record, "--copy", str(copy))
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(record.read_text())
    assert json.loads(copy.read_text()) == data
    stages = data["stages"]
    assert list(stages) == [
        "questions",
        "machine",
        "conformance",
        "correctness",
        "sanitizer",
        "timings",
        "tests",
    ]
    assert all(result["ok"] for items in stages.values() for result in items.values() if "ok" in result)
    assert stages["questions"]["mma.bf16.warps8"] == {"ok": True, "kept": 1}  # not asked again
    assert stages["questions"]["bulk.runs4"]["emulated"]
    assert stages["conformance"]["wrappers"]["passed"] > 50
    assert len(stages["correctness"]) > 20
    for name, row in stages["timings"].items():
        assert row["ratios"] and set(row["us"]) == set(row["us_graph"]), (name, row)
        assert not [
            note for note in row["notes"].values() if note != "stand-in: dense torch" and "bias" not in note
        ]
    assert "cuBLAS" not in stages["timings"]["2:4 bfloat16, 72 x 136, 40 tokens"]["notes"]
    assert stages["tests"]["tests/cuda"]["skipped"] >= 8 and not stages["tests"]["tests/cuda"]["failed"]

    refused = subprocess.run(
        [*VISIT, "--collect", str(record)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0 and "dry run" in refused.stderr


def test_a_call_without_time_goes_on_later(tmp_path: Path) -> None:
    record = tmp_path / "visit.json"
    done = dry_run(record, "--minutes", "0.01", "--stages", "conformance")
    assert done.returncode == 4 and "goes on" in done.stdout
    assert json.loads(record.read_text())["stages"] == {}


def test_records_of_two_builds_are_not_mixed(tmp_path: Path) -> None:
    record = tmp_path / "visit.json"
    record.write_text(json.dumps({"dry": False, "commit": "another"}))
    done = dry_run(record)
    assert done.returncode != 0 and "was begun with" in done.stderr
