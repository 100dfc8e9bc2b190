"""Where the numbers come from: machine, compiler, versions, commit."""

from __future__ import annotations

import importlib.metadata
import subprocess
import time
from pathlib import Path
from typing import Any

from sparsecore.env import collect_env

_PACKAGES = ("torch", "transformers", "onnxruntime", "openvino", "numpy")


def describe() -> dict[str, Any]:
    """Facts for the results file."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": _commit(),
        "versions": versions,
        "details": collect_env().splitlines(),
    }


def _commit() -> str | None:
    """The commit of the source tree this package is used from, if it is one."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
