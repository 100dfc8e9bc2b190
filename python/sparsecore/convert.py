"""Whole models: every chosen ``nn.Linear`` becomes a ``SparseLinear``, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from sparsecore._memory import give_back_freed
from sparsecore._sharding import refuse_sharded
from sparsecore.nn.linear import SparseLinear
from sparsecore.patterns import Pattern
from sparsecore.patterns import pattern as parse_pattern

Filter = Callable[[nn.Module, str], bool]


def _replace(model: nn.Module, name: str, replacement: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, replacement)


def _replace_all(model: nn.Module, replacements: Mapping[str, nn.Module]) -> nn.Module:
    """Puts the layers in and lets the memory of those they replace go."""
    if "" in replacements:
        return replacements[""]
    for name, replacement in replacements.items():
        _replace(model, name, replacement)
    give_back_freed()
    return model


def sparsify_(
    model: nn.Module,
    pattern: Pattern | str,
    filter_fn: Filter | None = None,
    *,
    sparsity: float | None = None,
    masks: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
    compute_dtype: torch.dtype | None = None,
) -> nn.Module:
    """Replaces the chosen linear layers by packed ones, in place.

    Args:
        model: Any module; a bare ``nn.Linear`` is returned converted.
        pattern: For example ``NM(2, 4)`` or ``"2:4"``.
        filter_fn: ``(module, name) -> bool``, which ``nn.Linear`` layers; None: all.
        sparsity: Fraction of zeros, for patterns that leave it open; None keeps exactly the non-zero weights.
        masks: Masks by layer name, True where kept, as ``sparsecore.sparsify`` returns them; layers without one keep
            their largest magnitudes.
        dtype: Of the stored values; ``torch.int8`` quantises.
        compute_dtype: See :class:`~sparsecore.nn.SparseLinear`.

    Returns:
        The model. Every layer is packed before the first is replaced, so an error leaves the model as it was.
    """
    pattern = parse_pattern(pattern)
    refuse_sharded("sparsify_", model)
    chosen = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if type(module) is nn.Linear and (filter_fn is None or filter_fn(module, name))
    }
    unknown = set(masks or ()) - set(chosen)
    if unknown:
        raise ValueError(
            f"sparsify_: masks name layers that are not converted: {', '.join(sorted(unknown))}."
        )
    converted: dict[int, SparseLinear] = {}

    def convert(name: str, linear: nn.Linear) -> SparseLinear:
        if id(linear) not in converted:  # a layer used twice stays one layer
            try:
                converted[id(linear)] = SparseLinear.from_dense(
                    linear,
                    pattern,
                    (masks or {}).get(name),
                    sparsity=None if masks and name in masks else sparsity,
                    dtype=dtype,
                    compute_dtype=compute_dtype,
                )
            except ValueError as error:
                raise ValueError(f"sparsify_: layer {name or 'model'!r}: {error}") from error
        return converted[id(linear)]

    replacements: dict[str, nn.Module] = {name: convert(name, linear) for name, linear in chosen.items()}
    chosen.clear()
    return _replace_all(model, replacements)


def densify_(model: nn.Module) -> nn.Module:
    """Replaces every :class:`~sparsecore.nn.SparseLinear` by an ``nn.Linear`` with exact zeros, in place.

    Raises:
        ValueError: A layer has a fused activation, which an ``nn.Linear`` cannot hold.
    """
    chosen = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, SparseLinear)
    }
    fused = {name: module.activation for name, module in chosen.items() if module.activation != "none"}
    for name, activation in fused.items():
        raise ValueError(
            f"densify_: layer {name!r} has the fused activation {activation!r}. "
            "Set layer.activation = 'none' and put the activation back into the model first."
        )
    dense = {id(module): module.to_dense() for module in chosen.values()}
    replacements: dict[str, nn.Module] = {name: dense[id(module)] for name, module in chosen.items()}
    chosen.clear()
    return _replace_all(model, replacements)
