"""Gathers into one folder all that a GPU machine without network and compiler needs.

python/sparsecore   the package, its operator libraries in lib/: they use torch's stable ABI and no Python symbol,
so that one build serves every Python from 3.10 and every torch from 2.11 on
bin/                cuda_conformance and cuda_questions, the CUDA runtime inside
benchmarks/gpu      the visit itself; tests/cuda, the page that they run and pyproject.toml for pytest
prepared.json       commit, compilers, date
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

from .machine import first_line
from .programs import ROOT

TARGETS = ("sparsecore", "sparsecore_torch", "sparsecore_torch_cuda", "cuda_conformance", "cuda_questions")
PROGRAMS = ("cuda_conformance", "cuda_questions")
LARGEST = 64 << 20  # bytes


def build() -> Path:
    """The preset ``nvcc`` with operators; returns its folder."""
    if not shutil.which("nvcc"):
        sys.exit("gpu.visit --prepare: needs nvcc 13.0 or later on the path; a GPU is not needed.")
    subprocess.run(["cmake", "--preset", "nvcc", "-DSPARSECORE_TORCH=ON"], cwd=ROOT, check=True)
    subprocess.run(["cmake", "--build", "--preset", "nvcc", "--target", *TARGETS], cwd=ROOT, check=True)
    return ROOT / "build" / "nvcc"


def commit() -> str:
    """Of the working tree; a plus sign says that sources differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "csrc", "python", "cmake", "benchmarks/gpu")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


def sources(folder: str) -> list[Path]:
    """Files of a folder that git would carry."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [Path(name) for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def prepare(folder: Path) -> None:
    """Builds, then writes the folder anew; a record in it stays."""
    built = build()
    for name in ("python", "bin", "benchmarks", "docs", "tests"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for path in (
        *sources("python/sparsecore"),
        *(path for path in sources("benchmarks/gpu") if path.suffix == ".py"),
        *sources("tests/cuda"),
        Path("tests/__init__.py"),
        Path("docs/cuda.md"),
        Path("pyproject.toml"),
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / path)
    # Installed, not copied: only then do the libraries look for each other where they lie.
    subprocess.run(["cmake", "--install", built, "--prefix", folder / "python", "--strip"], check=True)
    (folder / "bin").mkdir(parents=True)
    for name in PROGRAMS:
        found = next(path for path in built.rglob(name) if path.is_file())
        shutil.copy(found, folder / "bin" / name)
        subprocess.run(["strip", "--strip-unneeded", folder / "bin" / name], check=True)
    compilers = f"{first_line('c++', '--version')}; nvcc {nvcc_release()}"
    facts = {"commit": commit(), "compiler": compilers, "prepared": date.today().isoformat()}
    (folder / "prepared.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB, commit {facts['commit']}")
    print(f"there: cd {folder.name} && python3 -m benchmarks.gpu.visit --run")
    if size > LARGEST:
        sys.exit(f"gpu.visit --prepare: the folder should stay below {LARGEST >> 20} MiB.")


def nvcc_release() -> str:
    """As ``13.0.88``."""
    done = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True)
    return done.stdout.rpartition("V")[2].split()[0]
