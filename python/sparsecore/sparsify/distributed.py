"""Sums over processes, so that every one of them chooses the same zeros."""

from __future__ import annotations

import torch
from torch import Tensor


def is_parallel() -> bool:
    """Whether ``torch.distributed`` runs with more than one process."""
    found = torch.distributed
    return found.is_available() and found.is_initialized() and found.get_world_size() > 1


def total(value: Tensor) -> Tensor:
    """The sum of ``value`` over all processes, with the same bits on each; ``value`` itself is left alone."""
    if not is_parallel():
        return value
    value = value.contiguous().clone()
    torch.distributed.all_reduce(value)
    return value


def mean(value: Tensor) -> Tensor:
    """The mean of ``value`` over all processes."""
    return total(value) / torch.distributed.get_world_size() if is_parallel() else value
