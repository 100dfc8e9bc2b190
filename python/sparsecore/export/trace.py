"""A model as torch's functional graph, with its constants, and where each node came from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from sparsecore.export.translate import Constant
from sparsecore.patterns import Group, Unstructured
from sparsecore.reference.linear import activate

# What torch notes about shapes and types while it traces; they cannot differ when a network runs.
CHECKS = (torch.ops.aten._assert_tensor_metadata.default, torch.ops.aten._assert_async.msg)


@dataclass
class Program:
    """What :func:`trace` found.

    Attributes:
        nodes: Calls, in order.
        inputs: Placeholders of the model's arguments.
        outputs: Nodes of its results.
        constants: Parameters, buffers and other tensors by node.
        blocks: ``(rows, cols)`` of the weights whose layer says its pattern, by name.
        batch: Images of the example.
    """

    nodes: list[fx.Node]
    inputs: list[fx.Node]
    outputs: list[fx.Node]
    constants: dict[fx.Node, Constant]
    blocks: dict[str, tuple[int, int]]
    batch: int


def trace(owner: str, model: nn.Module, example: Tensor | Sequence[Tensor]) -> Program:
    """Exports an eval-mode model with torch.export.

    Raises:
        TypeError: The model is no module, or the example not made of tensors.
        ValueError: The model is in training mode, or torch cannot export it.
    """
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    if not isinstance(model, nn.Module):
        raise TypeError(f"{owner}: needs a torch module, got {type(model).__name__}.")
    if not inputs or not all(isinstance(each, Tensor) for each in inputs):
        raise TypeError(
            f"{owner}: example must be a tensor, or a sequence of tensors, as the model is called with."
        )
    if any(each.dim() == 0 or each.shape[0] != inputs[0].shape[0] or each.shape[0] == 0 for each in inputs):
        raise ValueError(
            f"{owner}: the first dimension of every example is the batch and must be the same and not 0, got shapes "
            f"{[tuple(each.shape) for each in inputs]}."
        )
    if model.training:
        raise ValueError(f"{owner}: the model is in training mode. Call model.eval() first.")
    model, blocks = with_dense_layers(model)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(model, inputs, strict=False).run_decompositions({})
    except Exception as error:
        raise ValueError(
            f"{owner}: torch.export cannot trace the model: {error}\n"
            "Networks are traced once: the model's control flow may not depend on values of its input."
        ) from error
    signature = exported.graph_signature
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
        raise ValueError(
            f"{owner}: the model changes {[*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate]} "
            "when it is called; networks keep nothing between calls."
        )
    lifted = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    tensors = {**dict(exported.constants), **dict(exported.state_dict)}
    nodes = list(exported.graph.nodes)
    placeholders = [node for node in nodes if node.op == "placeholder"]
    constants = {
        node: Constant(tensors[lifted[node.name]], lifted[node.name])
        for node in placeholders
        if node.name in lifted
    }
    outputs = next(node for node in nodes if node.op == "output").args[0]
    flat = [each for each in outputs if each is not None] if isinstance(outputs, (tuple, list)) else [outputs]
    if not all(isinstance(each, fx.Node) for each in flat):
        raise ValueError(f"{owner}: the model returns something else than tensors.")
    return Program(
        nodes=[node for node in nodes if node.op == "call_function" and node.target not in CHECKS],
        inputs=[node for node in placeholders if node.name in signature.user_inputs],
        outputs=flat,
        constants=constants,
        blocks=blocks,
        batch=inputs[0].shape[0],
    )


class _Activated(nn.Module):
    """A dense layer and the activation that its packed twin fuses."""

    def __init__(self, layer: nn.Module, activation: str) -> None:
        super().__init__()
        self.layer, self.activation = layer, activation

    def forward(self, input: Tensor) -> Tensor:
        return activate(self.layer(input), self.activation)


def with_dense_layers(model: nn.Module) -> tuple[nn.Module, dict[str, tuple[int, int]]]:
    """A model without packed layers, and the blocks that these kept, by the name of the dense weight.

    The model itself where it has none, else a copy: packed layers become dense ones with exact zeros.
    """
    if not any(_is_packed(module) for module in model.modules()):
        return model, {}
    model = copy.deepcopy(model)
    blocks: dict[str, tuple[int, int]] = {}
    replaced: dict[int, nn.Module] = {}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if not _is_packed(module):
            continue
        if id(module) not in replaced:
            dense: nn.Module = module.to_dense().float().eval()
            activation = str(getattr(module, "activation", "none"))
            replaced[id(module)] = dense if activation == "none" else _Activated(dense, activation)
        layer = replaced[id(module)]
        kept = module.pattern
        if isinstance(kept, (Group, Unstructured)):
            inner = "layer.weight" if isinstance(layer, _Activated) else "weight"
            shape = (kept.rows, kept.cols) if isinstance(kept, Group) else (1, 1)
            if max(shape) <= 32:
                blocks[f"{name}.{inner}".lstrip(".")] = shape
        if not name:
            return layer, blocks
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
    return model, blocks


def _is_packed(module: nn.Module) -> Any:
    return hasattr(module, "to_dense") and hasattr(module, "pattern")


def describe(node: fx.Node) -> str:
    """Where a node came from: operator, module and source line."""
    operator = getattr(node.target, "__name__", str(node.target))
    if isinstance(node.target, torch._ops.OpOverload):
        operator = f"{node.target.namespace}.{operator}"
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    module = stack[-1][0] if stack else ""
    lines = [line.strip() for line in (node.meta.get("stack_trace") or "").splitlines()]
    files = [
        number for number, line in enumerate(lines) if line.startswith("File ") and "/torch/" not in line
    ]
    place = ""
    if files:
        place = (
            lines[files[-1]].removeprefix("File ").replace('"', "").replace(", line ", ":").split(", in ")[0]
        )
        if files[-1] + 1 < len(lines):
            place += f", `{lines[files[-1] + 1]}`"
    where = ", ".join(part for part in (f"in module {module}" if module else "", place) if part)
    return f"{operator} (node {node.name}{', ' + where if where else ''})"
