"""Result files become Markdown: what all tables share."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
Result = dict[str, Any]


def results(prefix: str) -> list[Result]:
    """Every result file of one benchmark, by name; ``wasm`` are layers, ``wasm_networks`` is a benchmark of its own."""
    paths = sorted(RESULTS.glob(f"{prefix}_*.json"))
    return [
        json.loads(path.read_text())
        for path in paths
        if prefix != "wasm" or not path.name.startswith("wasm_networks")
    ]


def markdown(head: list[str], rows: Iterable[list[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def machine_of(result: Result) -> str:
    """What names the machine in headings."""
    machine = result["machine"]
    where = "WebAssembly in Chromium" if "browser" in machine else "WebAssembly in node"
    return f"{machine['processor']}, {machine.get('isa', where)}"


def origin(found: list[Result]) -> str:
    """How tables came to be, in one sentence."""
    machine = found[0]["machine"]
    commits = sorted({result["machine"]["commit"] for result in found})
    command = re.sub(
        r" --(isa|rows|networks|patterns|variants|engines)( (?!--)('[^']*'|\S+))+", "", machine["command"]
    )
    if "browser" in machine:
        built = machine["browser"]
    elif "node" in machine:
        built = f"node {machine['node']} (V8 {machine['v8']})"
    else:
        built = f"torch {machine['torch']} ({machine['torch_cpu']}); {machine['compiler']}"
    return f"{machine_of(found[0])}; {built}; commit {', '.join(commits)}; {machine['date']}; `{command}`.\n"


def by_machine(found: list[Result]) -> dict[str, list[Result]]:
    """Results grouped by processor and instruction set, the widest first."""
    groups: dict[str, list[Result]] = {}
    for result in found:
        groups.setdefault(machine_of(result), []).append(result)
    return dict(sorted(groups.items(), key=lambda item: "avx512" not in item[0]))


def microseconds(timing: list[float]) -> str:
    """A median with its quartiles."""
    middle, low, high = timing
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"
