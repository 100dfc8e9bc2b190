"""Operators of the CPU, given CUDA tensors: those of load time run on the host, the others say what to do.

Packing, unpacking, validating and transposing lists is work of load time. Each such operator moves its tensors to the
host, which waits for the device, and what comes out goes back. A product that moved everything would be slower than a
dense one, so those of the CPU's layouts refuse.
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


CPU_ONLY = {
    **dict.fromkeys(
        ("row_lists_linear", "row_lists_weight_grad", "nm_decode_linear", "variable_nm_linear"),
        "This layout is the CPU's. A layer that moves by .to('cuda') is packed anew where its pattern has a layout "
        "there; sparsecore.formats.placed(weight, 'cuda') does it to a packed weight",
    ),
    **dict.fromkeys(
        (
            "row_lists_linear_out",
            "shared_lists_linear_out",
            "group_lists_linear_out",
            "nm_decode_linear_out",
            "bitmap_decode_linear_out",
            "variable_nm_linear_out",
        ),
        "Outputs given by the caller are for whole networks on a CPU. Call the operator without _out; a CUDA graph "
        "keeps its output in place",
    ),
    **dict.fromkeys(
        (
            "group_lists_conv2d",
            "group_lists_conv2d_out",
            "group_lists_conv2d_bind",
            "group_lists_conv2d_weight_grad",
            "depthwise_conv2d",
            "stem_conv2d",
            "squeeze_excite",
        ),
        "Convolutions have kernels on the CPU alone. Keep the model there, or sparsecore.densify_ it",
    ),
}
"""Operators that have kernels for the CPU and none for CUDA, and the way out."""


def refusal(name: str, way_out: str) -> Callable[..., Any]:
    """What stands for a kernel that there is not."""

    def refuse(*arguments: Any) -> Any:
        raise RuntimeError(f"{name}: has no kernel for CUDA tensors. {way_out}.")

    return refuse


for _name, _way_out in CPU_ONLY.items():
    if not has_kernel(_name, "cuda"):
        registrations.impl(_name, refusal(_name, _way_out), "CUDA")

for _name in (f"{family}_{step}" for family in _FAMILIES for step in _STEPS):
    if hasattr(torch.ops.sparsecore, _name) and not has_kernel(_name, "cuda"):
        registrations.impl(_name, through_host(getattr(torch.ops.sparsecore, _name)), "CUDA")
