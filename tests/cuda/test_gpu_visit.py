"""A visit to a GPU, gone through on the emulator: every line that would run there has run before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.gpu.conclusions import BURDENS, TILES

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
            }
        )
    )
    running = {"stage": "questions", "item": "bulk.runs4", "group": "", "at": "", "since": 0, "limit": 1}
    record.with_suffix(".running").write_text(json.dumps(running))
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
        "timings",
        "sanitizer",
        "tests",
    ]
    assert all(result["ok"] for items in stages.values() for result in items.values() if "ok" in result)
    assert stages["questions"]["mma.bf16.warps8"] == {"ok": True, "kept": 1}  # not asked again
    assert stages["questions"]["bulk.runs4"]["emulated"]
    # Whatever conclusions are drawn from is asked.
    for way in ("registers", *BURDENS):
        assert all(f"wgmma_sparse.{tile}.{way}" in stages["questions"] for tile in TILES)
    for start in ("wgmma.", "mma.bf16.", "mma_sparse.bf16.", "loads.", "reduction.none", "reduction.cluster"):
        assert any(name.startswith(start) for name in stages["questions"])
    assert stages["conformance"]["wrappers"]["passed"] > 50
    assert len(stages["correctness"]) > 100
    for family in {row["family"] for row in stages["timings"].values()}:
        assert [row for row in stages["correctness"].values() if row["group"] == family]
    steps = [name for name in stages["timings"] if "forward and backward" in name]
    assert len(steps) >= 5
    for name, row in stages["timings"].items():
        assert row["ratios"] and set(row["us"]) == set(row["us_graph"]), (name, row)
        assert not [
            note for note in row["notes"].values() if note != "stand-in: dense torch" and "bias" not in note
        ]
    assert "cuBLAS" not in stages["timings"]["2:4 bfloat16, 72 x 136, 40 tokens"]["notes"]
    on_gpu = stages["tests"]["tests/cuda/test_on_gpu.py"]
    assert on_gpu["skipped"] >= 8 and not on_gpu["failed"]
    assert data["left"] == data["left_out"] == data["strikes"] == {}

    refused = subprocess.run(
        [*VISIT, "--collect", str(record)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert refused.returncode != 0 and "dry run" in refused.stderr


def test_faulty_kernels_and_peers(tmp_path: Path) -> None:
    """Wrong products of one family, a crashing kernel of another, a crashing peer: the rest is checked and timed."""
    record = tmp_path / "visit.json"
    options = ("--stages-of", "tests.cuda.faulty_kernels", "--stages", "correctness", "timings")
    done = dry_run(record, *options)
    assert done.returncode == 1, done.stdout + done.stderr
    data = json.loads(record.read_text())
    checked, timed = data["stages"]["correctness"], data["stages"]["timings"]
    wrong = {name for name, result in checked.items() if not result["ok"]}
    assert wrong and all(name.startswith(("64:2:8", "bitmap")) for name in wrong)
    assert all(checked[name]["wrong_elements"] > 0 for name in wrong if name.startswith("64:2:8"))
    assert [checked[name]["wrong"] for name in wrong if name.startswith("bitmap")] == [
        "the process ended with status -11",
    ] * 2
    assert data["left_out"]["correctness"]["bitmap decode"] > 0
    assert all(result["ok"] for name, result in checked.items() if name.startswith(("2:4", "blocks")))
    assert "wrong result" in timed["64:2:8 bfloat16, 136 x 200, 40 tokens"]["wrong"]
    blocks = [row for name, row in timed.items() if name.startswith("blocks")]
    assert len(blocks) == 2 and set(data["peers"]) == {"peer Triton BSR"}
    for row in blocks:
        assert row["notes"]["Triton BSR"] == "left out: it hung or crashed before"
        assert {"ours", "cuBLAS", "torch BSR"} == set(row["us_graph"])
    assert timed["2:4 bfloat16, 72 x 136, 40 tokens"]["ratios"]


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
