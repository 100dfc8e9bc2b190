"""Whole models: chosen ``nn.Linear`` and ``nn.Conv2d`` layers become packed ones, and back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from sparsecore._memory import give_back_freed
from sparsecore._sharding import refuse_sharded
from sparsecore.nn._packed import PackedLayer
from sparsecore.nn.conv import SparseConv2d, why_dense
from sparsecore.nn.linear import SparseLinear
from sparsecore.patterns import Channel, Pattern, VariableNM
from sparsecore.patterns import pattern as parse_pattern

Filter = Callable[[nn.Module, str], bool]

STEM_CHANNELS = (
    4  # a convolution that sees no more is the first one of an image network: small, and dear to lose
)
_log = logging.getLogger("sparsecore")


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


def can_pack(module: nn.Module, pattern: Pattern) -> bool:
    """Whether :func:`sparsify_` can convert a layer."""
    if type(module) is nn.Conv2d:
        return (why_dense(module) or _why_not(pattern)) is None
    return type(module) is nn.Linear


def _why_not(pattern: Pattern) -> str | None:
    """Why convolutions stay dense under a pattern; None where they need not."""
    if isinstance(pattern, Channel):
        return "cannot leave out whole channels yet"
    if isinstance(pattern, VariableNM):
        return "cannot have blocks with an N of their own"
    return None


def _bring_up_to_date(layer: nn.Module) -> None:
    """Computes the weight of a layer under ``torch.nn.utils.prune``, ``weight_norm`` or ``spectral_norm``.

    They do so when the layer is called: after a step of an optimizer or ``load_state_dict`` it is still the one before.
    """
    for hook in layer._forward_pre_hooks.values():
        if getattr(hook, "name", getattr(hook, "_tensor_name", None)) == "weight":
            hook(layer, ())


def _chosen(model: nn.Module, pattern: Pattern, filter_fn: Filter | None) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers to convert, by name; why a convolution is not among them is logged."""
    found: dict[str, nn.Linear | nn.Conv2d] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if type(module) is nn.Linear:
            if filter_fn is None or filter_fn(module, name):
                found[name] = module
        elif type(module) is nn.Conv2d:
            reason = why_dense(module) or _why_not(pattern)
            if filter_fn is None and module.in_channels <= STEM_CHANNELS:
                reason = (
                    reason
                    or f"sees only {module.in_channels} channels; choose it with filter_fn to convert it"
                )
            if reason is not None:
                _log.debug("sparsify_: convolution %r stays dense: it %s.", name, reason)
            elif filter_fn is None or filter_fn(module, name):
                found[name] = module
    return found


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
    """Replaces the chosen linear layers and convolutions by packed ones, in place.

    Depthwise and grouped convolutions, those that pad with something else than zeros, and all convolutions under
    ``Channel`` and ``VariableNM`` stay dense. So does, unless ``filter_fn`` chooses it, a convolution with at most 4
    input channels: the first layer of an image network. Why, is logged at level debug. ``nn.MultiheadAttention`` and
    recurrent layers hold matrices of their own and stay dense, as do subclasses of ``nn.Linear`` and ``nn.Conv2d``,
    parametrized layers among them (``torch.nn.utils.parametrize.remove_parametrizations`` makes plain ones of them).
    A packed layer is a new module: hooks registered on the dense one are not carried over, so register them afterwards.

    Args:
        model: Any module; a bare ``nn.Linear`` or ``nn.Conv2d`` is returned converted.
        pattern: For example ``NM(2, 4)``, ``"2:4"`` or ``"4x1"``; of a convolution it holds for the matrix
            ``(out_channels, kernel positions * in_channels)``, input channels innermost.
        filter_fn: ``(module, name) -> bool``, which ``nn.Linear`` and ``nn.Conv2d`` layers, asked about those that can
            be packed; None: all but a first convolution.
        sparsity: Fraction of zeros, for patterns that leave it open; None keeps exactly the non-zero weights.
        masks: Masks by layer name, True where kept, as ``sparsecore.sparsify`` returns them; layers without one keep
            their largest magnitudes.
        dtype: Of the stored values; ``torch.int8`` quantises.
        compute_dtype: See :class:`~sparsecore.nn.SparseLinear` and :class:`~sparsecore.nn.SparseConv2d`.

    Returns:
        The model. Every layer is packed before the first is replaced, so an error leaves the model as it was.

    Raises:
        ValueError: A mask or option that does not fit, or masks of layers that are not converted.
    """
    pattern = parse_pattern(pattern)
    refuse_sharded("sparsify_", model)
    chosen = _chosen(model, pattern, filter_fn)
    unknown = set(masks or ()) - set(chosen)
    if unknown:
        raise ValueError(
            f"sparsify_: masks name layers that are not converted: {', '.join(sorted(unknown))}."
        )
    converted: dict[int, PackedLayer] = {}

    def convert(name: str, layer: nn.Linear | nn.Conv2d) -> PackedLayer:
        if id(layer) not in converted:  # a layer used twice stays one layer
            mask = (masks or {}).get(name)
            share = None if masks and name in masks else sparsity
            _bring_up_to_date(layer)
            try:
                if isinstance(layer, nn.Linear):
                    converted[id(layer)] = SparseLinear.from_dense(
                        layer, pattern, mask, sparsity=share, dtype=dtype, compute_dtype=compute_dtype
                    )
                else:
                    converted[id(layer)] = SparseConv2d.from_dense(
                        layer, pattern, mask, sparsity=share, dtype=dtype, compute_dtype=compute_dtype
                    )
            except ValueError as error:
                raise ValueError(f"sparsify_: layer {name or 'model'!r}: {error}") from error
        return converted[id(layer)]

    replacements: dict[str, nn.Module] = {name: convert(name, layer) for name, layer in chosen.items()}
    chosen.clear()
    return _replace_all(model, replacements)


def densify_(model: nn.Module) -> nn.Module:
    """Replaces every packed layer by an ``nn.Linear`` or ``nn.Conv2d`` with exact zeros, in place.

    Raises:
        ValueError: A layer has a fused activation, which a layer of torch cannot hold.
    """
    chosen = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, PackedLayer)
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
