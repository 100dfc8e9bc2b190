"""What operators do with CUDA tensors where the CUDA library has no kernel of that name.

Either the same work is done on the device, by other operators or in plain torch, or the call is refused with the way
out. Nothing goes through the host behind a caller's back: a copy would wait for the device, and a product that moved
everything would be slower than a dense one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparsecore import reference
from sparsecore._library import has_kernel
from sparsecore.ops._common import registrations
from sparsecore.ops._fault import ON_DEVICES, fault_on_device

_OF_THE_CPU = ("row_lists", "nm_decode", "variable_nm")
_PLACED = "sparsecore.formats.placed(weight, 'cuda') packs a weight anew where its pattern has a layout there"

REFUSED = {
    **dict.fromkeys(
        ("row_lists_linear", "row_lists_weight_grad", "nm_decode_linear", "variable_nm_linear"),
        f"This layout is the CPU's. A layer that moves by .to('cuda') is packed anew; {_PLACED}",
    ),
    **dict.fromkeys(
        (f"{family}_pack" for family in (*_OF_THE_CPU, *ON_DEVICES)),
        "Call sparsecore.pack(weight, pattern), which selects and packs where the weight is, or move both with .cpu()",
    ),
    **dict.fromkeys(
        (f"{family}_{step}" for family in _OF_THE_CPU for step in ("unpack", "validate")),
        f"This layout is the CPU's: move its tensors with .cpu(). {_PLACED}",
    ),
    **dict.fromkeys(
        ("row_lists_transpose", "shared_lists_transpose"),
        "Only the CPU's backward pass walks these lists. Leave transposed out, or move the tensors with .cpu()",
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
"""Operators that CUDA tensors are refused by, and the way out."""


def _validate(family: str) -> Callable[..., Any]:
    """The kernel's verdict as numbers of the host, for which the call waits."""

    def validate(*arguments: Any) -> Any:
        if not has_kernel(f"{family}_fault", "cuda"):
            raise RuntimeError(
                f"{family}_validate: has no kernel for CUDA tensors in an installation without CUDA kernels. Move the "
                "tensors with .cpu()."
            )
        status, place = fault_on_device(family, *arguments)
        return status if family == "bitmap_decode" else (status, place)

    return validate


COMPOSED: dict[str, Callable[..., Any]] = {
    **{f"{family}_validate": _validate(family) for family in ON_DEVICES},
    "group_lists_unpack": reference.group_lists_unpack,
    "group_lists_transpose": reference.group_lists_transpose,
}
"""What runs on the device without a kernel of that name."""


def refusal(name: str, way_out: str) -> Callable[..., Any]:
    """What stands for a kernel that there is not."""

    def refuse(*arguments: Any) -> Any:
        raise RuntimeError(f"{name}: has no kernel for CUDA tensors. {way_out}.")

    return refuse


for _name, _function in (
    COMPOSED | {name: refusal(name, way_out) for name, way_out in REFUSED.items()}
).items():
    if not has_kernel(_name, "cuda"):
        registrations.impl(_name, _function, "CUDA")
