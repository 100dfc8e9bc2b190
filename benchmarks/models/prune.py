"""Zeros by magnitude, without training: what a network of some sparsity costs, not what it can still tell."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def prunable(model: nn.Module) -> list[tuple[str, nn.Conv2d | nn.Linear]]:
    """What a pruned network has sparse: convolutions but depthwise ones, gates and the stem, and the classifier."""
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        or (
            isinstance(module, nn.Conv2d)
            and module.groups == 1
            and module.in_channels > 4
            and module.bias is None  # squeeze-and-excitation layers have one, and see one pixel
        )
    ]


def prune_(model: nn.Module, sparsity: float, rows: int = 1, cols: int = 1) -> nn.Module:
    """Sets the blocks of least magnitude to zero, in every prunable layer the same fraction, in place.

    Args:
        model: One of the networks here.
        sparsity: Fraction of blocks to zero, 0 to 1.
        rows: Neighbouring output channels of a block.
        cols: Neighbouring inputs of a block; inputs are ordered by tap of the kernel, then by channel.
    """
    with torch.no_grad():
        for _, module in prunable(model):
            if isinstance(module, nn.Linear):
                module.weight.mul_(kept_blocks(module.weight, sparsity, rows, cols))
                continue
            weight = module.weight.permute(0, 2, 3, 1)
            mask = kept_blocks(weight.flatten(1), sparsity, rows, cols)
            module.weight.mul_(mask.reshape(weight.shape).permute(0, 3, 1, 2))
    return model


def kept_blocks(matrix: Tensor, sparsity: float, rows: int, cols: int) -> Tensor:
    """The mask ``(n, k)`` that keeps the blocks of largest magnitude; blocks at the edge may be short."""
    n, k = matrix.shape
    padded = functional.pad(matrix.abs(), (0, -k % cols, 0, -n % rows))
    scores = padded.reshape(-1, rows, padded.shape[1] // cols, cols).sum((1, 3))
    dropped = scores.flatten().argsort()[: round(sparsity * scores.numel())]
    kept = torch.ones(scores.numel(), dtype=torch.bool)
    kept[dropped] = False
    whole = kept.reshape(scores.shape).repeat_interleave(rows, 0).repeat_interleave(cols, 1)
    return whole[:n, :k]
