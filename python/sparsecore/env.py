"""What is installed and what it can do, for people and for bug reports."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import torch

from sparsecore._library import introspection


@dataclass(frozen=True)
class Backend:
    """One row of the dispatch tables.

    Attributes:
        op: The operator.
        kernel: Its implementation.
        isa: The instruction set it needs.
        weights: Storage types it takes.
        usable: Whether this machine can run it under the current cap.
    """

    op: str
    kernel: str
    isa: str
    weights: str
    usable: bool


def backends() -> tuple[Backend, ...]:
    """Every kernel of this build, best first within each operator."""
    if introspection is None:
        raise ImportError("backends: needs the module sparsecore._C, which was not built for this Python.")
    return tuple(Backend(*row) for row in introspection.backends())


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def collect_env() -> str:
    """One text with everything a bug report needs."""
    facts = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": f"{_processor()}, {os.cpu_count()} logical",
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}",
    }
    if introspection is None:
        facts["sparsecore"] = "operators only (sparsecore._C was not built for this Python)"
    else:
        built = introspection.build_info()
        facts["sparsecore"] = (
            f"{built['version']} ({built['commit']}), {built['build_type']}, {built['compiler']}"
        )
        facts["instruction sets"] = (
            f"{', '.join(introspection.available_isas())}; now {introspection.current_isa()}"
        )
    return "\n".join(f"{name + ':':18}{value}" for name, value in facts.items())
