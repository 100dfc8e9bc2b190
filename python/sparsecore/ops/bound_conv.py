"""A convolution bound to its tensors, for loops in which the cost of a call counts.

Reading twenty arguments and finding an operator takes torch longer than a small layer takes the kernel. A bound
convolution reads them once.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sparsecore._library import operator_library
from sparsecore.formats.base import ACTIVATIONS, COMPUTE
from sparsecore.ops.group_lists_conv import checked_scale

_MOVED = -1  # of csrc/torch/bound_conv.h


class BoundConv2d:
    """``out`` becomes ``activation(conv2d(input, W) + bias + residual)`` of what the tensors hold when it is called.

    The arguments are those of :func:`~sparsecore.ops.group_lists_conv2d`, checked here once; nothing is copied or
    allocated later, and there are no gradients. The tensors must keep their memory: after ``resize_``, ``set_`` or
    another move of any of them a call raises.

    Args:
        input: ``(N, C, H, W)``, contiguous, channels_last or a slice of channels of either.
        values: See :func:`~sparsecore.ops.group_lists_conv2d`, and so for all that follows.
        index: See there.
        order: See there.
        starts: See there.
        scale: See there.
        bias: See there.
        residual: Lies like ``out``, and may be ``out`` itself.
        out: ``(N, out_channels, H_out, W_out)`` in the dtype of ``input``, contiguous or channels_last.
        kernel_size: See there.
        depth: See there.
        window: See there.
        stride: See there.
        padding: See there.
        dilation: See there.
        activation: See there.
        compute: See there.
        input_scale: See there.

    Raises:
        RuntimeError: Arrays that do not belong together, or a tensor that lies so that it would have to be copied.
        ValueError: An ``input_scale`` out of range.
    """

    def __init__(
        self,
        input: Tensor,
        values: Tensor,
        index: Tensor,
        order: Tensor,
        starts: Tensor,
        scale: Tensor | None = None,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        *,
        out: Tensor,
        kernel_size: Sequence[int],
        depth: int,
        window: int,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
        activation: str = "none",
        compute: str = "float32",
        input_scale: float | None = None,
    ) -> None:
        self.out = out
        self._arguments = (
            input,
            *(values, index, order, starts, scale, bias, residual, out.shape[1]),
            *(list(kernel_size), list(stride), list(padding), list(dilation), depth, window),
            *(ACTIVATIONS[activation], COMPUTE[compute], out),
            checked_scale("BoundConv2d", input_scale, compute),
        )
        address = torch.ops.sparsecore.group_lists_conv2d_bind(*self._arguments)
        self._run, free = _functions()
        self._address = ctypes.c_void_p(address)
        weakref.finalize(self, free, self._address)

    def __call__(self) -> Tensor:
        """Computes ``out`` and returns it.

        Raises:
            RuntimeError: The packed weight was damaged since, memory ran out, or a tensor has moved.
        """
        status = self._run(self._address)
        if status == _MOVED:
            raise RuntimeError("BoundConv2d: one of the tensors has moved in memory. Bind them again.")
        if status:
            torch.ops.sparsecore.group_lists_conv2d_out(*self._arguments)  # says what is wrong
        return self.out


@cache
def _functions() -> tuple[Any, Any]:
    """Run and free, C functions of csrc/torch/bound_conv.cpp."""
    library = ctypes.CDLL(str(operator_library()))
    run, free = library.sparsecore_bound_conv_run, library.sparsecore_bound_conv_free
    run.restype, run.argtypes = ctypes.c_int32, [ctypes.c_void_p]
    free.restype, free.argtypes = None, [ctypes.c_void_p]
    return run, free
