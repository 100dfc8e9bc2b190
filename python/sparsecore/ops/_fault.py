"""Whether the arrays of a weight belong together: asked where they lie, or on the host where a device cannot tell."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecore._library import has_kernel
from sparsecore.ops._common import fake_kernel

ON_DEVICES = ("shared_lists", "group_lists", "bitmap_decode")
"""Families that have an operator ``<family>_fault``."""


def first_fault(family: str, *arguments: Any) -> tuple[int, int]:
    """Status and place of the first fault in the arrays of a weight, 0 where there is none. Waits for the device.

    Args:
        family: A layout that has an operator ``<family>_validate``.
        arguments: Those of the operator. Where their device has no kernel for it they are copied to the host.

    Raises:
        RuntimeError: Arrays of a wrong type or size, or on several devices.
    """
    device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
    if family in ON_DEVICES and has_kernel(f"{family}_fault", device.type):
        return fault_on_device(family, *arguments)
    validate: Any = getattr(torch.ops.sparsecore, f"{family}_validate")
    found = validate(*(value.cpu() if isinstance(value, Tensor) else value for value in arguments))
    return found if isinstance(found, tuple) else (found, -1)


def fault_on_device(family: str, *arguments: Any) -> tuple[int, int]:
    """The same by the kernel of a family of ``ON_DEVICES``; two numbers come to the host, and no index."""
    status, place = getattr(torch.ops.sparsecore, f"{family}_fault")(*arguments).tolist()
    return status, place


def _fake(first: Tensor, *rest: Any) -> Tensor:
    return first.new_empty((2,), dtype=torch.int64)


for _family in ON_DEVICES:
    fake_kernel(f"{_family}_fault")(_fake)
