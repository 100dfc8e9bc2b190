"""The machine's limits, from the C++ program ``roof`` of benchmarks/cpp: products per second and bytes per second."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import sparsecore as sc
from machine import ROOT


def executable() -> Path | None:
    """``$SPARSECORE_ROOF``, else what ``benchmarks/run.py`` or the release preset built."""
    named = os.environ.get("SPARSECORE_ROOF")
    if named:
        return Path(named)
    built = ROOT / "build" / "release" / "benchmarks" / "cpp" / "roof"
    return built if built.exists() else None


@cache
def measured(threads: int) -> dict[str, float]:
    """GFLOP/s of every product and GB/s of streaming reads with so many threads; empty without the program."""
    path = executable()
    if path is None:
        return {}
    command = [str(path), "--json", f"--threads={threads}", f"--isa={sc.cpu.isa()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {str(name): float(value) for name, value in json.loads(done.stdout).items()}
