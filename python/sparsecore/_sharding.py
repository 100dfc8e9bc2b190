"""Weights that are spread over processes, refused by whoever needs to see a whole one."""

from __future__ import annotations

from torch import nn


def refuse_sharded(owner: str, model: nn.Module) -> None:
    """Raises where parameters are spread over processes: a mask needs to see the whole weight.

    Raises:
        TypeError: A parameter is a ``DTensor``, or a module is wrapped in ``FullyShardedDataParallel``.
    """
    # By name: importing these classes starts more of torch.distributed than a program without it should pay for.
    for name, module in model.named_modules():
        if type(module).__name__ == "FullyShardedDataParallel":
            raise TypeError(
                f"{owner}: {name or 'the model'!r} is wrapped in FullyShardedDataParallel, whose processes each hold "
                "a part of a weight. Prune the plain model, then wrap it and keep the zeros with MaskedOptimizer."
            )
    for name, parameter in model.named_parameters():
        if type(parameter.data).__name__ == "DTensor":
            raise TypeError(
                f"{owner}: {name!r} is a DTensor, spread over processes by fully_shard or a parallel plan. Prune the "
                "plain model before it is sharded."
            )
