"""Finds and loads the compiled libraries: the one place that knows their file names."""

from __future__ import annotations

import importlib
import logging
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import torch

logger = logging.getLogger("sparsecore")


def _operator_library() -> Path:
    names = ("libsparsecore_torch.so", "libsparsecore_torch.dylib", "sparsecore_torch.dll")
    for name in names:
        found = files("sparsecore").joinpath("lib", name)
        if found.is_file():
            return Path(str(found))
    raise ImportError(
        "sparsecore: the compiled operators (sparsecore/lib/libsparsecore_torch) are missing from this installation. "
        "Reinstall the wheel, or build from source with: pip install --no-build-isolation ."
    )


def load_operators() -> None:
    """Registers ``torch.ops.sparsecore``; a second call does nothing."""
    if not hasattr(torch.ops.sparsecore, "row_lists_linear"):
        torch.ops.load_library(str(_operator_library()))


def load_introspection() -> ModuleType | None:
    """The module ``sparsecore._C``, or None where it was not built for this Python; only introspection needs it."""
    try:
        return importlib.import_module("sparsecore._C")
    except ImportError as error:
        logger.info("sparsecore._C cannot be imported (%s): operators work, introspection does not.", error)
        return None


load_operators()
introspection = load_introspection()
