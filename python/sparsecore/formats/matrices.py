"""Weights as matrices: output channels by what one of them sees.

A linear weight is one already. A convolution ``(out, in, *kernel)`` becomes ``(out, kernel * in)`` with the input
channels innermost, so that N:M groups lie along input channels and never cross a kernel position's border unless the
channels run out.
"""

from __future__ import annotations

from torch import Tensor


def to_matrix(weight: Tensor) -> Tensor:
    """``(out, ...)`` as ``(out, in)``; a view where the layout allows."""
    return weight if weight.dim() == 2 else weight.movedim(1, -1).flatten(1)


def from_matrix(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of :func:`to_matrix`, in the shape of ``like``."""
    if like.dim() == 2:
        return matrix
    shape = (like.shape[0], *like.shape[2:], like.shape[1])
    return matrix.reshape(shape).movedim(-1, 1).contiguous()
