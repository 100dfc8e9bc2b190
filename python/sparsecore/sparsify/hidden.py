"""Which hidden units of a model have no order of their own, read from its torch.fx graph.

Values that are computed from each other unit by unit form a class. A class can be reordered if linear layers make all
of it and linear layers alone read it. Residual streams fall out by themselves: every layer that adds to one is a maker,
and a stream that starts at the model's input, or ends at its output, stays.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from sparsecore.sparsify.permute import Pair, tied_parameters, units_of

_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid,
    nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Dropout, nn.Identity,
)  # fmt: skip
_FUNCTIONS = {
    torch.relu, torch.tanh, torch.sigmoid, torch.abs, torch.square, torch.add, torch.sub, torch.mul,
    operator.add, operator.sub, operator.mul, operator.neg, operator.iadd, operator.imul,
    functional.relu, functional.relu6, functional.leaky_relu, functional.elu, functional.selu, functional.gelu,
    functional.silu, functional.mish, functional.tanh, functional.sigmoid, functional.softplus,
    functional.hardtanh, functional.hardswish, functional.dropout,
}  # fmt: skip
_METHODS = {
    "relu",
    "relu_",
    "tanh",
    "sigmoid",
    "abs",
    "square",
    "add",
    "add_",
    "sub",
    "mul",
    "mul_",
    "contiguous",
}


class _Classes:
    """Union-find over the nodes of a graph."""

    def __init__(self) -> None:
        self.parent: dict[fx.Node, fx.Node] = {}

    def root(self, node: fx.Node) -> fx.Node:
        self.parent.setdefault(node, node)
        while self.parent[node] is not node:
            node = self.parent[node]
        return node

    def join(self, first: fx.Node, second: fx.Node) -> None:
        self.parent[self.root(first)] = self.root(second)


def find_pairs(model: nn.Module) -> list[Pair]:
    """Pairs for :func:`~sparsecore.sparsify.order_hidden_`: layers and norms that make units, layers that read them.

    Attention heads are not found, since reshapes hide them, nor what passes through a batch norm, whose units are the
    last dimension of some inputs only: name such pairs yourself.

    Args:
        model: A module torch.fx can trace.

    Returns:
        ``[((makers...), (readers...)), ...]`` in the order of the model; empty where nothing can be reordered.

    Raises:
        ValueError: The model cannot be traced.
    """
    try:
        graph = fx.symbolic_trace(model).graph
    except Exception as error:
        raise ValueError(
            f"find_pairs: torch.fx cannot trace {type(model).__name__} ({error}). Name the pairs yourself: "
            f'[("fc1", "fc2")].'
        ) from error
    modules: dict[Any, nn.Module] = dict(model.named_modules())
    classes, fixed = _Classes(), set[fx.Node]()
    made: dict[fx.Node, str] = {}
    reads: list[tuple[fx.Node, str]] = []
    calls: dict[str, int] = {}
    for node in graph.nodes:
        module = modules.get(node.target) if node.op == "call_module" else None
        if module is not None:
            calls[node.target] = calls.get(node.target, 0) + 1
        if isinstance(module, nn.Linear):
            made[node] = node.target
            reads += [(source, node.target) for source in node.all_input_nodes]
        elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and units_of(module) > 0:
            made[node] = node.target
            for source in node.all_input_nodes:
                classes.join(node, source)
        elif _each_unit_alike(node, module):
            for source in node.all_input_nodes:
                classes.join(node, source)
        else:
            fixed |= {node, *node.all_input_nodes}
    shared = tied_parameters(model)
    used_by_name = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    barred = {classes.root(node) for node in fixed}
    found: dict[fx.Node, tuple[list[str], list[str]]] = {}
    for node in graph.nodes:
        found.setdefault(classes.root(node), ([], []))
    for node, name in made.items():
        found[classes.root(node)][0].append(name)
    for node, name in reads:
        found[classes.root(node)][1].append(name)
    pairs: list[Pair] = []
    for root, (makers, readers) in found.items():
        if root in barred or not readers or not any(isinstance(modules[name], nn.Linear) for name in makers):
            continue
        layers = [modules[name] for name in (*makers, *readers)]
        sizes = {units_of(modules[name]) for name in makers}
        sizes |= {layer.in_features for layer in layers[len(makers) :] if isinstance(layer, nn.Linear)}
        names = {*makers, *readers}
        alone = all(calls[name] == 1 for name in names) and not names & used_by_name
        if len(sizes) == 1 and alone and not shared & {id(p) for layer in layers for p in layer.parameters()}:
            pairs.append((tuple(makers), tuple(readers)))
    return pairs


def _each_unit_alike(node: fx.Node, module: nn.Module | None) -> bool:
    if node.op == "call_module":
        return isinstance(module, _MODULES)
    if node.op == "call_function":
        return node.target in _FUNCTIONS
    return node.op == "call_method" and node.target in _METHODS
