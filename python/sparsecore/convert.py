"""Whole models: every chosen ``nn.Linear`` becomes a ``SparseLinear``, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from sparsecore.nn.linear import SparseLinear
from sparsecore.patterns import Pattern
from sparsecore.patterns import pattern as parse_pattern

Filter = Callable[[nn.Module, str], bool]


def _replace(model: nn.Module, name: str, replacement: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, replacement)


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
    packed: dict[int, SparseLinear] = {}
    for name, module in chosen.items():
        if id(module) not in packed:  # a layer used twice stays one layer
            try:
                packed[id(module)] = SparseLinear.from_dense(
                    module,
                    pattern,
                    (masks or {}).get(name),
                    sparsity=None if masks and name in masks else sparsity,
                    dtype=dtype,
                    compute_dtype=compute_dtype,
                )
            except ValueError as error:
                raise ValueError(f"sparsify_: layer {name or 'model'!r}: {error}") from error
    if "" in chosen:
        return packed[id(model)]
    for name, module in chosen.items():
        _replace(model, name, packed[id(module)])
    return model


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
    for name, module in chosen.items():
        if module.activation != "none":
            raise ValueError(
                f"densify_: layer {name!r} has the fused activation {module.activation!r}. "
                "Set layer.activation = 'none' and put the activation back into the model first."
            )
    dense = {id(module): module.to_dense() for module in chosen.values()}
    if "" in chosen:
        return dense[id(model)]
    for name, module in chosen.items():
        _replace(model, name, dense[id(module)])
    return model
