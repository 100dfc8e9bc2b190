"""Operators that rearrange or check a weight once run on the host for CUDA tensors, where no kernel was registered.

Packing, unpacking, validating and transposing lists is work of load time. Each such operator moves its tensors to the
host, which waits for the device, and what comes out goes back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparsecore._library import has_kernel
from sparsecore.ops._common import registrations

_FAMILIES = ("row_lists", "shared_lists", "group_lists", "nm_decode", "bitmap_decode", "variable_nm")
_STEPS = ("pack", "unpack", "validate", "transpose")


def through_host(op: Callable[..., Any]) -> Callable[..., Any]:
    """The operator with its tensors on the host; tensors that it returns are on the device of the first argument."""

    def run(*arguments: Any) -> Any:
        device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
        found = op(*(value.cpu() if isinstance(value, Tensor) else value for value in arguments))
        if isinstance(found, Tensor):
            return found.to(device)
        if isinstance(found, (tuple, list)):
            return type(found)(value.to(device) if isinstance(value, Tensor) else value for value in found)
        return found

    return run


for _name in (f"{family}_{step}" for family in _FAMILIES for step in _STEPS):
    if hasattr(torch.ops.sparsecore, _name) and not has_kernel(_name, "cuda"):
        registrations.impl(_name, through_host(getattr(torch.ops.sparsecore, _name)), "CUDA")
