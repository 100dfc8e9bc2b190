"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
import sys


def give_back_freed() -> None:
    """Lets the C library return free pages; glibc keeps those that lie between memory in use.

    A conversion frees each dense weight right after it made the packed one, so nearly all that it frees lies so.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(ctypes.c_size_t(0))
