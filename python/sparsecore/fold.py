"""Batch norms folded into the layer in front of them.

In evaluation a batch norm is a factor and an offset per channel, ``y = (x - mean) / sqrt(var + eps) * weight + bias``,
and so is part of the layer whose output ``x`` is: its rows are multiplied by the factor, its bias becomes
``(bias - mean) * factor + offset``.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

from sparsecore.formats.pack import pack
from sparsecore.nn._packed import PackedLayer
from sparsecore.nn.conv import SparseConv2d
from sparsecore.nn.linear import SparseLinear

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_log = logging.getLogger("sparsecore")


class _Tracer(fx.Tracer):
    """Layers are looked at from outside."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, PackedLayer) or super().is_leaf_module(m, module_qualified_name)


def _in_graph(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of layers and norms where the norm, and nothing else, reads what the layer makes; each called once."""
    graph = _Tracer().trace(model)
    names = {id(module): name for name, module in model.named_modules()}
    calls = [node for node in graph.nodes if node.op == "call_module"]
    modules = {node: model.get_submodule(str(node.target)) for node in calls}
    used = Counter(id(module) for module in modules.values())
    for node in calls:
        source = node.args[0] if node.args else None
        if not isinstance(modules[node], _NORMS) or not isinstance(source, fx.Node) or source not in modules:
            continue
        layer = modules[source]
        if len(source.users) == 1 and used[id(layer)] == used[id(modules[node])] == 1:
            yield names[id(layer)], names[id(modules[node])]


def _in_sequences(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Neighbours inside ``nn.Sequential`` containers, for models that cannot be traced."""
    owners = Counter(id(child) for module in model.modules() for child in module.children())
    for name, module in model.named_modules():
        if type(module) is not nn.Sequential:
            continue
        parts = list(module.named_children())
        for (first, layer), (second, norm) in pairwise(parts):
            if isinstance(norm, _NORMS) and owners[id(layer)] == owners[id(norm)] == 1:
                prefix = f"{name}." if name else ""
                yield f"{prefix}{first}", f"{prefix}{second}"


def _fits(layer: nn.Module, norm: nn.Module) -> bool:
    """Whether the norm is one over the output channels of the layer."""
    if isinstance(norm, nn.BatchNorm2d):
        return isinstance(layer, (nn.Conv2d, SparseConv2d)) and layer.out_channels == norm.num_features
    assert isinstance(norm, nn.BatchNorm1d)
    if isinstance(layer, nn.Conv1d):
        return layer.out_channels == norm.num_features
    return isinstance(layer, (nn.Linear, SparseLinear)) and layer.out_features == norm.num_features


def fold_batch_norm_(model: nn.Module) -> nn.Module:
    """Folds every batch norm into the linear layer or convolution it follows, in place; exact up to rounding.

    The layer is found by tracing the model with ``torch.fx``; of a model that cannot be traced only neighbours inside
    ``nn.Sequential`` are folded. A norm stays where more than itself reads the output of the layer, where one of the
    two is called more than once, where the layer has a fused activation, and where nothing foldable is in front of it;
    why, is logged at level info. What is folded leaves an ``nn.Identity`` behind.

    Args:
        model: In evaluation mode. Linear layers (whose batch norm sees ``(N, features)``) and convolutions of one and
            two dimensions, depthwise too, dense or packed.

    Returns:
        The model.

    Raises:
        ValueError: A norm is in training mode or keeps no statistics, so that it is no fixed factor; or a layer shares
            its weight with another one.
    """
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _NORMS)}
    for name, norm in norms.items():
        if norm.training or norm.running_mean is None or norm.running_var is None:
            raise ValueError(
                f"fold_batch_norm_: {name!r} normalises by the batch it gets, which nothing can replace. Call "
                f"model.eval() first, and use track_running_stats=True."
            )
    try:
        pairs = list(_in_graph(model))
    except Exception as error:  # whatever a model's code raises when it meets proxies instead of tensors
        _log.info(
            "fold_batch_norm_: torch.fx cannot trace the model (%s); only nn.Sequential is looked at.", error
        )
        pairs = list(_in_sequences(model))
    modules = dict(model.named_modules())
    foldable = {}
    for name, norm_name in pairs:
        layer, norm = modules[name], norms[norm_name]
        if not _fits(layer, norm) or getattr(layer, "activation", "none") != "none":
            continue
        _refuse_shared(model, name, layer)
        foldable[norm_name] = (layer, norm)
    for norm_name in norms.keys() - foldable.keys():
        _log.info("fold_batch_norm_: %r stays: no layer is in front of it that it alone reads.", norm_name)
    for norm_name, (layer, norm) in foldable.items():
        _fold(layer, norm)
        parent, _, child = norm_name.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    return model


def _refuse_shared(model: nn.Module, name: str, layer: nn.Module) -> None:
    mine = {id(parameter) for parameter in layer.parameters(recurse=False)}
    for other_name, other in model.named_modules():
        if other is not layer and mine & {id(p) for p in other.parameters(recurse=False)}:
            raise ValueError(
                f"fold_batch_norm_: {name!r} shares a parameter with {other_name!r}; folding a norm into one would "
                f"change the other. Give each its own copy first."
            )


@torch.no_grad()
def _fold(layer: nn.Module, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = 1.0 / torch.sqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        factor = factor * norm.weight.double()
    offset = torch.zeros_like(factor) if norm.bias is None else norm.bias.double()
    bias: Any = layer.bias
    shift = -norm.running_mean.double() if bias is None else bias.double() - norm.running_mean.double()
    _scale_rows(layer, factor)
    weight: Any = layer.weight
    folded = (shift * factor + offset).to(torch.float32 if weight.dtype == torch.int8 else weight.dtype)
    if bias is None:
        trained = any(parameter.requires_grad for parameter in layer.parameters(recurse=False))
        layer.bias = nn.Parameter(folded, requires_grad=trained)
    else:
        bias.copy_(folded)


def _scale_rows(layer: nn.Module, factor: Tensor) -> None:
    """Multiplies each output channel of the weight by its factor."""
    if not isinstance(layer, PackedLayer):
        weight: Any = layer.weight
        weight.mul_(factor.view(-1, *[1] * (weight.dim() - 1)).to(weight.dtype))
        return
    packed = layer.weight
    if packed.scale is not None:
        assert layer.weight_scale is not None
        layer.weight_scale.mul_(factor.to(torch.float32))
        layer._forget_derived()
        return
    dense = packed.to_dense() * factor.unsqueeze(1).to(packed.dtype)
    layer.replace_weight(pack(dense, packed.pattern, packed.mask(), layout=packed.layout))
