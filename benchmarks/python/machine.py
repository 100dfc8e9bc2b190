"""What a result was measured on, and where results are kept."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import torch

import sparsecore as sc
from sparsecore._library import introspection

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
SHAPES = json.loads((ROOT / "benchmarks" / "shapes" / "linear.json").read_text())


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(rf"^{field}\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return found[1].strip() if found else ""


def processor() -> str:
    """The name the system gives, with family and model, which tell generations of one name apart."""
    name = _cpuinfo("model name") or platform.processor() or "unknown"
    family, model = _cpuinfo("cpu family"), _cpuinfo("model")
    return f"{name} (family {family}, model {model})" if family else name


def slug() -> str:
    """The processor's part of a result file's name."""
    text = processor().lower().replace("family", "").replace("model", "")
    return re.sub(r"[^a-z0-9]+", "_", text).strip("_")


def git_commit() -> str:
    """The commit of the working tree; a plus sign says that compiled or Python sources differ from it."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "csrc", "python", "cmake")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def describe(command: str, roofs: dict[str, Any]) -> dict[str, Any]:
    """The header of a result file."""
    built = introspection.build_info() if introspection else {}
    return {
        "processor": processor(),
        "cores": torch.get_num_threads(),
        "isa": sc.cpu.isa(),
        "torch_cpu": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "compiler": f"{built.get('compiler', 'unknown')} {built.get('build_type', '')}".strip(),
        "flags": built.get("flags", ""),
        "commit": git_commit(),
        "date": date.today().isoformat(),
        "command": command,
        "roofs": roofs,
    }


def write(name: str, header: dict[str, Any], rows: list[dict[str, Any]]) -> Path:
    """Stores rows as ``benchmarks/results/<name>_<machine>.json``, a row a line."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}_{slug()}.json"
    body = ",\n  ".join(json.dumps(row) for row in rows)
    path.write_text(
        f'{{"name": {json.dumps(name)},\n"machine": {json.dumps(header, indent=1)},\n"rows": [\n  {body}\n]}}\n'
    )
    return path
