"""(2N-2):2N weights as 2:4 ones on lifted inputs: windows of four that begin at the even places of each 2N inputs.

What the windows are and which of them takes which input is specified in csrc/include/sparsecore/window_lift.h. Plain
torch, on any device, without waiting for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_GROUP = 64


def require_group(function: str, group: int) -> None:
    """Raises ValueError unless windows exist for ``group - 2`` of ``group``."""
    if isinstance(group, bool) or not isinstance(group, int) or group % 2 or not 4 <= group <= LARGEST_GROUP:
        raise ValueError(
            f"{function}: group must be an even number from 4 to {LARGEST_GROUP}, of which all but two weights are "
            f"kept, got {group!r}. Use 4 for 2:4, 6 for 4:6, 8 for 6:8."
        )


def lifted_inputs(in_features: int, group: int) -> int:
    """Inputs of the 2:4 weight: four for each of the ``group / 2 - 1`` windows of a group."""
    return (in_features + group - 1) // group * (group // 2 - 1) * 4


def largest_of_group(weight: Tensor, mask: Tensor | None, group: int) -> Tensor:
    """A mask of the ``group - 2`` largest magnitudes of each group, of those that ``mask`` keeps.

    Of equal magnitudes the first stay; a NaN counts as the largest.
    """
    n, k = weight.shape
    groups = (k + group - 1) // group
    score = weight.float().abs().nan_to_num(nan=torch.inf)
    if mask is not None:
        score = torch.where(mask, score, -1.0)
    padded = torch.nn.functional.pad(score, (0, -k % group), value=-1.0).view(n, groups, group)
    smallest = padded.argsort(dim=-1, descending=True, stable=True)[..., group - 2 :]
    kept = (
        torch.ones_like(padded, dtype=torch.bool).scatter_(-1, smallest, False).view(n, groups * group)[:, :k]
    )
    return kept if mask is None else kept & mask


def lift(weight: Tensor, mask: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """The lifted weight and its mask, at most two of four: each kept weight in one of its windows.

    ``mask`` keeps at most ``group - 2`` of each group; what it keeps beyond that is dropped.
    """
    n, k = weight.shape
    pairs = torch.nn.functional.pad(mask, (0, -k % group)).view(n, (k + group - 1) // group, group // 2, 2)
    taken = []
    rest = pairs[:, :, 0]  # of the window's first pair, what the window before left
    for window in range(group // 2 - 1):
        room = 2 - rest.sum(-1)
        second = pairs[:, :, window + 1]
        takes = second & (second.cumsum(-1) <= room.unsqueeze(-1))
        taken.append(torch.cat((rest, takes), -1))
        rest = second & ~takes
    lifted_mask = torch.stack(taken, 2)
    return spread(weight, group), lifted_mask.view(n, lifted_inputs(k, group))


def spread(weight: Tensor, group: int) -> Tensor:
    """The inputs of all windows, one after another: ``(out_features, lifted inputs)``."""
    n, k = weight.shape
    bits = {1: torch.int8, 2: torch.int16}.get(
        weight.element_size(), weight.dtype
    )  # pads eight-bit floats too
    padded = torch.nn.functional.pad(weight.view(bits), (0, -k % group))
    pairs = padded.view(n, (k + group - 1) // group, group // 2, 2)
    windows = torch.cat((pairs[:, :, :-1], pairs[:, :, 1:]), -1)
    return windows.reshape(n, lifted_inputs(k, group)).view(weight.dtype)


def fold(lifted: Tensor, in_features: int, group: int) -> Tensor:
    """The weight ``(out_features, in_features)`` of a lifted one: an input weighs what its windows hold together."""
    windows = lifted.view(lifted.shape[0], (in_features + group - 1) // group, group // 2 - 1, 4)
    # one of two summands is zero
    low = torch.nn.functional.pad(windows[..., :2], (0, 0, 0, 1))
    high = torch.nn.functional.pad(windows[..., 2:], (0, 0, 1, 0))
    return (low + high).flatten(1)[:, :in_features].contiguous()
