"""Zeros that stay zero in anybody's training loop, whatever the optimizer does, and through a LoRA merge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


def zero_masks(model: nn.Module) -> dict[str, Tensor]:
    """Masks of the exact zeros of a model's matrices, by parameter name, True where a weight is kept.

    Only parameters of two or more dimensions that hold a zero are listed: biases and norms start at zero without
    meaning it.
    """
    return {
        name: parameter.detach() != 0
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1 and parameter.is_floating_point() and bool((parameter == 0).any())
    }


def _by_parameter(owner: str, model: nn.Module, masks: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Masks by parameter name; a layer's name stands for its weight."""
    if masks is None:
        return zero_masks(model)
    parameters = dict(model.named_parameters())
    found: dict[str, Tensor] = {}
    for name, mask in masks.items():
        key = name if name in parameters else f"{name}.weight" if name else "weight"
        if key not in parameters:
            raise ValueError(f"{owner}: the model has no parameter or layer {name!r}.")
        if mask.dtype != torch.bool or mask.shape != parameters[key].shape:
            raise ValueError(
                f"{owner}: the mask of {name!r} must be bool of shape {tuple(parameters[key].shape)}, got "
                f"{mask.dtype} of shape {tuple(mask.shape)}."
            )
        found[key] = mask
    return found


def mask_parameters_(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> list[RemovableHandle]:
    """Zeroes the masked weights and from now on their gradients, in place.

    That is enough for every optimizer that treats weights one by one and starts from this moment (SGD, Adam, AdamW and
    their like). :class:`MaskedOptimizer` holds for all of them. Copies of the model do not inherit it.

    Args:
        model: Any module.
        masks: By layer or parameter name, True where kept; None: its exact zeros stay.

    Returns:
        Handles; ``handle.remove()`` frees a gradient again.
    """
    found = _by_parameter("mask_parameters_", model, masks)
    parameters = dict(model.named_parameters())
    handles = []
    for name, mask in found.items():
        parameter = parameters[name]
        with torch.no_grad():
            parameter.masked_fill_(~mask, 0.0)
        if parameter.requires_grad:
            kept = mask.clone()
            handles.append(parameter.register_hook(lambda grad, kept=kept: grad * kept))
    return handles


def keep_zeros_(optimizer: Optimizer, parameter: Tensor, mask: Tensor) -> None:
    """Zeroes a parameter, and everything of its shape an optimizer remembers of it, outside of a mask."""
    with torch.no_grad():
        parameter.masked_fill_(~mask, 0.0)
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                value.masked_fill_(~mask, 0.0)


class MaskedOptimizer(Optimizer):
    """Any optimizer, with zeros that stay zero.

    After each step the masked weights and what the optimizer remembers of them are zeroed: weight decay, momentum and
    moments cannot revive them. Schedulers, gradient scalers, closures, parameter groups, ``state_dict`` and pickling
    are those of the optimizer inside.

    Args:
        optimizer: To wrap.
        model: Whose parameters it holds.
        masks: By layer or parameter name, True where kept; None: the model's exact zeros stay.

    Raises:
        ValueError: A mask that does not fit, or of a parameter the optimizer does not hold.
    """

    def __init__(
        self, optimizer: Optimizer, model: nn.Module, masks: Mapping[str, Tensor] | None = None
    ) -> None:
        # Not Optimizer.__init__: groups and state are those of the optimizer inside.
        found = _by_parameter("MaskedOptimizer", model, masks)
        parameters = dict(model.named_parameters())
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        missing = [name for name in found if id(parameters[name]) not in held]
        if missing:
            raise ValueError(
                f"MaskedOptimizer: the optimizer does not hold {missing[0]!r}. Make it from model.parameters()."
            )
        self.optimizer = optimizer
        self._masked = [(parameters[name], mask.clone()) for name, mask in found.items()]
        self._apply_masks()

    def _apply_masks(self) -> None:
        for parameter, mask in self._masked:
            keep_zeros_(self.optimizer, parameter, mask)

    def __getattr__(self, name: str) -> Any:
        if name == "optimizer":  # while unpickling
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer, "_masked": self._masked}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        return f"MaskedOptimizer({self.optimizer!r})"

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of the optimizer inside, then the zeros."""
        loss = self.optimizer.step() if closure is None else self.optimizer.step(closure)
        self._apply_masks()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As the optimizer inside."""
        self.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Of the optimizer inside; it loads into a bare one too."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Into the optimizer inside; the zeros are put back."""
        self.optimizer.load_state_dict(state_dict)
        self._apply_masks()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """To the optimizer inside; what it adds is not masked."""
        self.optimizer.add_param_group(param_group)


def merge_lora(
    weight: Tensor, lora_a: Tensor, lora_b: Tensor, scale: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """``weight + scale * lora_b @ lora_a`` where ``weight`` is kept, zero elsewhere.

    Args:
        weight: ``(out, in)``.
        lora_a: ``(rank, in)``.
        lora_b: ``(out, rank)``.
        scale: Of the product, ``alpha / rank`` as a rule.
        mask: ``(out, in)`` bool, True where kept; None: the exact zeros of ``weight`` stay.

    Raises:
        ValueError: Shapes that do not fit.
    """
    rank = lora_a.shape[0] if lora_a.dim() == 2 else -1
    if lora_a.shape != (rank, weight.shape[1]) or lora_b.shape != (weight.shape[0], rank):
        raise ValueError(
            f"merge_lora: for a weight of {tuple(weight.shape)} lora_a must be (rank, {weight.shape[1]}) and lora_b "
            f"({weight.shape[0]}, rank), got {tuple(lora_a.shape)} and {tuple(lora_b.shape)}."
        )
    mask = weight != 0 if mask is None else mask
    if mask.shape != weight.shape or mask.dtype != torch.bool:
        raise ValueError(f"merge_lora: mask must be bool of shape {tuple(weight.shape)}.")
    merged = weight + scale * (lora_b @ lora_a).to(weight.dtype)
    return merged.masked_fill(~mask, 0.0)


@torch.no_grad()
def merge_lora_(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> list[str]:
    """Merges every adapter that looks like peft's into its base layer, in place, zeros staying zero.

    A module counts if it has ``base_layer`` with a weight, ``lora_A`` and ``lora_B`` (mappings of adapter name to
    ``nn.Linear``) and ``scaling``. The base layer then takes the module's place.

    Args:
        model: Any module.
        masks: By the name the layer has afterwards, True where kept; None: the exact zeros of the base weight stay.

    Returns:
        Names of the merged layers.
    """
    merged = []
    for name, module in list(model.named_modules()):
        base = getattr(module, "base_layer", None)
        parts = [getattr(module, part, None) for part in ("lora_A", "lora_B", "scaling")]
        if not isinstance(base, nn.Linear) or any(part is None for part in parts):
            continue
        lora_a, lora_b, scaling = parts
        mask = base.weight != 0 if masks is None or name not in masks else masks[name]
        weight = base.weight
        for adapter in lora_a:  # type: ignore[union-attr]
            scale = scaling[adapter]  # type: ignore[index]
            weight = merge_lora(weight, lora_a[adapter].weight, lora_b[adapter].weight, scale, mask)  # type: ignore[index]
        base.weight.copy_(weight)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, base)
        merged.append(name)
    return merged
