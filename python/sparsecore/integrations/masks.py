"""Masks that other pruners made: those of ``torch.ao.pruning`` (and torchao, its child) and ``torch.nn.utils.prune``.

Both keep the dense weight and a mask beside it, and multiply in every forward pass. Here the masks come out, by layer
name and True where kept, as all of sparsecore has them, and the layers become plain ones with exact zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

_SUFFIX = "weight_mask"


def _as_mask(owner: str, name: str, mask: Any, shape: torch.Size | None) -> Tensor:
    mask = getattr(mask, "mask", mask)  # torch.ao hands out the parametrization in place of its tensor
    if not isinstance(mask, Tensor) or (shape is not None and mask.shape != shape):
        raise ValueError(
            f"{owner}: the mask of layer {name!r} must be a tensor"
            + (f" of the weight's shape {tuple(shape)}" if shape is not None else "")
            + f", got {tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__}."
        )
    kept: Tensor = mask.detach() != 0
    return kept


def _mask_of(name: str, module: nn.Module) -> Tensor | None:
    """The mask over a module's weight, several of one weight combined; None where there is none."""
    found: list[Tensor] = []
    if parametrize.is_parametrized(module, "weight"):
        listed: Any = module.parametrizations
        shape = listed.weight.original.shape if hasattr(listed.weight, "original") else None
        found += [
            _as_mask("read_masks", name, rule.mask, shape) for rule in listed.weight if hasattr(rule, "mask")
        ]
    if _SUFFIX in dict(module.named_buffers(recurse=False)):
        original: Any = module.get_parameter("weight_orig")
        found.append(_as_mask("read_masks", name, module.get_buffer(_SUFFIX), original.shape))
    return torch.stack(found).all(0) if found else None


def read_masks(source: nn.Module | Mapping[str, Any]) -> dict[str, Tensor]:
    """Masks by layer name, True where kept.

    Args:
        source: A model that ``torch.ao.pruning`` or ``torch.nn.utils.prune`` prepared; or the ``state_dict()`` of a
            torch.ao sparsifier, which holds its masks (the model's does not); or the ``state_dict()`` of a model
            under ``torch.nn.utils.prune``.

    Returns:
        A copy of each mask, bool, in the weight's shape.

    Raises:
        ValueError: There is no mask, or one that does not fit its weight.
    """
    if isinstance(source, nn.Module):
        masks = {name: _mask_of(name, module) for name, module in source.named_modules()}
        found = {name: mask for name, mask in masks.items() if mask is not None}
    elif isinstance(source.get("state"), Mapping):
        entries = {name.removesuffix("weight").rstrip("."): entry for name, entry in source["state"].items()}
        found = {
            name: _as_mask("read_masks", name, entry.get("mask"), None) for name, entry in entries.items()
        }
    else:
        found = {}
        for key, mask in source.items():
            if f".{key}".endswith(f".{_SUFFIX}"):
                name = key.removesuffix(_SUFFIX).rstrip(".")
                weight = source.get(key.removesuffix("mask") + "orig")
                found[name] = _as_mask("read_masks", name, mask, None if weight is None else weight.shape)
    if not found:
        raise ValueError(
            "read_masks: found no mask of torch.ao.pruning (parametrizations.weight) or torch.nn.utils.prune "
            "(weight_mask). A model with baked-in zeros needs none: sc.sparsify_(model, pattern) finds them."
        )
    return found


@torch.no_grad()
def take_masks_(model: nn.Module) -> dict[str, Tensor]:
    """Takes the masks out of a model and leaves plain weights with exact zeros, in place.

    After it ``sc.sparsify_(model, pattern, lambda module, name: name in masks, masks=masks)`` packs the layers.

    Args:
        model: As for :func:`read_masks`.

    Returns:
        What :func:`read_masks` gives.

    Raises:
        ValueError: There is no mask; or a weight is under other parametrizations too, which only their owner can
            undo. The model is then as it was.
    """
    masks = read_masks(model)
    modules = dict(model.named_modules())
    for name in masks:
        module = modules[name]
        if not parametrize.is_parametrized(module, "weight"):
            continue
        listed: Any = module.parametrizations
        others = [type(rule).__name__ for rule in listed.weight if not hasattr(rule, "mask")]
        if others:
            raise ValueError(
                f"take_masks_: the weight of layer {name!r} is under {others[0]} too. Remove that first, with "
                "torch.nn.utils.parametrize.remove_parametrizations or its own means."
            )
    for name in masks:
        module = modules[name]
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        if _SUFFIX in dict(module.named_buffers(recurse=False)):
            prune.remove(module, "weight")
    return masks
