"""What a visit ran on."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from .programs import find_sanitizer

SECONDS = 15.0  # for a program that says what there is


def first_line(*command: str) -> str:
    """Of a program's output; empty where there is no such program, or where it does not answer."""
    if not shutil.which(command[0]):
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""


def version(find: Callable[[], Any]) -> Any:
    """Of a part of torch that may be missing: None where it is, or does not say."""
    try:
        return find()
    except Exception:
        return None


def cusparselt() -> int | None:
    import torch

    backend = torch.backends.cusparselt
    return backend.version() if backend.is_available() else None


def triton() -> str:
    import triton

    return str(triton.__version__)


def describe(dry: bool) -> dict[str, Any]:
    """Device, driver and the versions of everything that is compared with."""
    import torch

    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "date": date.today().isoformat(),
        "compute_sanitizer": find_sanitizer() is not None,
        "cusparselt": version(cusparselt),
        "triton": version(triton),
        "driver": first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    }
    return found | ({"gpu": "none (dry run)"} if dry else of_gpu())


def of_gpu() -> dict[str, Any]:
    """The device, and whether the operators load beside this torch: ``import sparsecore`` would go on without them."""
    import torch

    import sparsecore

    if torch.version.cuda is None:
        return {"ok": False, "wrong": f"torch {torch.__version__} was built without CUDA"}
    try:
        torch.cuda.init()
    except Exception as error:
        return {"ok": False, "wrong": f"torch sees no GPU: {error}"}
    properties = torch.cuda.get_device_properties(0)
    if properties.major < 8:
        name, capability = properties.name, f"sm_{properties.major}{properties.minor}"
        return {"ok": False, "wrong": f"the kernels need sm_80 or later, and {name} is {capability}"}
    found: dict[str, Any] = {
        "gpu": properties.name,
        "capability": 10 * properties.major + properties.minor,
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": version(lambda: properties.L2_cache_size),
        "memory_bytes": properties.total_memory,
    }
    library = Path(sparsecore.__file__).parent / "lib" / "libsparsecore_torch_cuda.so"
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        found |= {"ok": False, "wrong": f"{library.name} does not load: {error}"}
    return found
