"""What a visit ran on."""

from __future__ import annotations

import platform
import shutil
import subprocess
from datetime import date
from pathlib import Path
from typing import Any


def first_line(*command: str) -> str:
    """Of a program's output; empty where there is no such program."""
    if not shutil.which(command[0]):
        return ""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""


def describe(dry: bool) -> dict[str, Any]:
    """Device, driver and the versions of everything that is compared with."""
    import torch

    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "date": date.today().isoformat(),
        "compute_sanitizer": shutil.which("compute-sanitizer") is not None,
        "cusparselt": torch.backends.cusparselt.version()
        if torch.backends.cusparselt.is_available()
        else None,
        "driver": first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    }
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = None
    return found | ({"gpu": "none (dry run)"} if dry else of_gpu())


def of_gpu() -> dict[str, Any]:
    """The device, and whether the operators load beside this torch: ``import sparsecore`` would go on without them."""
    import torch

    import sparsecore

    if not torch.cuda.is_available():
        return {"ok": False, "wrong": "torch sees no GPU"}
    properties = torch.cuda.get_device_properties(0)
    found: dict[str, Any] = {
        "gpu": properties.name,
        "capability": 10 * properties.major + properties.minor,
        "multiprocessors": properties.multi_processor_count,
        "l2_bytes": properties.L2_cache_size,
        "memory_bytes": properties.total_memory,
    }
    library = Path(sparsecore.__file__).parent / "lib" / "libsparsecore_torch_cuda.so"
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        found |= {"ok": False, "wrong": f"{library.name} does not load: {error}"}
    return found
