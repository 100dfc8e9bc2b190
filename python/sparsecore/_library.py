"""Finds and loads the compiled libraries: the one place that knows their file names."""

from __future__ import annotations

import importlib
import logging
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import torch

logger = logging.getLogger("sparsecore")


def _compiled(stem: str) -> Path:
    for name in (f"lib{stem}.so", f"lib{stem}.dylib", f"{stem}.dll"):
        found = files("sparsecore").joinpath("lib", name)
        if found.is_file():
            return Path(str(found))
    raise ImportError(
        f"sparsecore: the compiled library sparsecore/lib/lib{stem} is missing from this installation. "
        "Reinstall the wheel, or build from source with: pip install --no-build-isolation ."
    )


def kernel_library() -> Path:
    """The kernels alone, which the operators use: its C functions are for :mod:`ctypes`."""
    return _compiled("sparsecore")


def operator_library() -> Path:
    """The torch operators; their library has a few C functions for :mod:`ctypes` as well."""
    return _compiled("sparsecore_torch")


def load_operators() -> None:
    """Registers ``torch.ops.sparsecore``; a second call does nothing."""
    if not hasattr(torch.ops.sparsecore, "row_lists_linear"):
        torch.ops.load_library(str(operator_library()))


def load_cuda_operators() -> None:
    """The operators on CUDA tensors, where this installation has them and torch was built with CUDA."""
    if torch.version.cuda is None:
        return
    try:
        torch.ops.load_library(str(_compiled("sparsecore_torch_cuda")))
    except (ImportError, OSError) as error:
        logger.info("The CUDA operators are not available (%s).", error)


def has_kernel(operator: str, device: str) -> bool:
    """Whether ``torch.ops.sparsecore.<operator>`` has a kernel for tensors of a kind of device, for example "cuda"."""
    key = torch._C._dispatch_key_for_device(device)
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"sparsecore::{operator}", key)


def load_introspection() -> ModuleType | None:
    """The module ``sparsecore._C``, or None where it was not built for this Python; only introspection needs it."""
    try:
        return importlib.import_module("sparsecore._C")
    except ImportError as error:
        logger.info("sparsecore._C cannot be imported (%s): operators work, introspection does not.", error)
        return None


load_operators()
load_cuda_operators()
introspection = load_introspection()
