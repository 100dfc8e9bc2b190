"""``compile`` and ``export_network``: from a torch model to a network that runs without torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, fx, nn

from sparsecore.export.fuse import simplify
from sparsecore.export.graph import Graph, Step, Value
from sparsecore.export.segments import Segment, SplitNetwork, levels_of, torch_segment
from sparsecore.export.trace import Program, describe, trace
from sparsecore.export.translate import Constant, Translator, Unsupported
from sparsecore.export.write import network_bytes, write_whole
from sparsecore.network import Network

_DTYPES = {
    None: torch.float32,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
}


def compile(
    model: nn.Module,
    example: Tensor | Sequence[Tensor],
    *,
    layout: str = "chw",
    dtype: str | torch.dtype | None = None,
    fallback: bool = False,
) -> Network | SplitNetwork:
    """Compiles a model to a flat list of sparse and dense operators over one arena of memory.

    Exact zeros decide what is left out, so a model pruned by anybody compiles as it is: by ``torch.nn.utils.prune``, by
    :mod:`sparsecore.sparsify`, or with layers of :mod:`sparsecore.nn`. Batch norm goes into the weights, activations
    and residual sums into the product before them. Batches of any size run, image by image.

    Args:
        model: In eval mode, float32. It is not changed.
        example: ``(batch, channels, height, width)`` or ``(batch, features)`` float32, or a sequence of those where
            the model takes several arguments. Only shapes matter; height and width are fixed by it.
        layout: Of image inputs when the network is called: ``"chw"``, or ``"hwc"`` for ``(batch, height, width,
            channels)``, as cameras and image files have them.
        dtype: Of stored weights: None or ``"float32"``, ``"float16"``, ``"bfloat16"``, ``"int8"`` (a scale per output
            channel). Activations and sums stay float32.
        fallback: Leave operators that no network step stands for to torch, instead of refusing the model. The result
            is then a :class:`SplitNetwork` for batches of the size of the example.

    Returns:
        A :class:`sparsecore.Network`; where the fallback was needed, a :class:`SplitNetwork`. Means over whole planes
        come back as ``(batch, channels)``.

    Raises:
        TypeError: Something else than a module and tensors.
        ValueError: The model is in training mode, cannot be traced, or has an operator that is unknown here; the
            message names the operator, its module and its source line.
    """
    stored = _check_options("compile", layout, dtype)
    program = trace("compile", model, example)
    left = _left_to_torch(program) if fallback else set()
    if not left:
        return Network(_file(translated("compile", program), layout, stored))
    if layout != "chw":
        raise ValueError(
            'compile: layout="hwc" needs a model without operators of torch. Permute outside instead.'
        )
    return _split(program, left, stored)


def export_network(
    model: nn.Module,
    example: Tensor | Sequence[Tensor],
    path: str | os.PathLike[str],
    *,
    layout: str = "chw",
    dtype: str | torch.dtype | None = None,
) -> None:
    """Writes the network of a model to one file, which Python, C++ without torch, and JavaScript run.

    The file is safetensors with a JSON description. It is written beside ``path`` and renamed at the end.

    Args:
        model: See :func:`compile`.
        example: See :func:`compile`.
        path: Of the file.
        layout: See :func:`compile`.
        dtype: See :func:`compile`.

    Raises:
        TypeError: See :func:`compile`.
        ValueError: See :func:`compile`.
    """
    stored = _check_options("export_network", layout, dtype)
    program = trace("export_network", model, example)
    write_whole(path, _file(translated("export_network", program), layout, stored))


def _check_options(owner: str, layout: str, dtype: str | torch.dtype | None) -> torch.dtype:
    if layout not in ("chw", "hwc"):
        raise ValueError(f'{owner}: layout must be "chw" or "hwc", got {layout!r}.')
    stored = dtype if isinstance(dtype, torch.dtype) else _DTYPES.get(dtype)
    if stored is None or stored not in _DTYPES.values():
        raise ValueError(f'{owner}: dtype must be None, "float16", "bfloat16" or "int8", got {dtype!r}.')
    return stored


def translated(owner: str, program: Program) -> Graph:
    """The steps of a program that has one for everything, before any of them is fused.

    Raises:
        ValueError: Something has none; the message says what and where.
    """
    translator = Translator(program.constants, program.blocks, program.batch)
    where = None
    try:
        for where in program.inputs:
            translator.add_input(where, where.name)
        for where in program.nodes:
            translator.translate(where)
        for number, where in enumerate(program.outputs):
            translator.graph.outputs.append((f"output{number or ''}", translator.either(where)))
    except Unsupported as error:
        assert where is not None
        raise ValueError(
            f"{owner}: cannot translate {describe(where)}: {error}. Replace this part of the model, or use "
            "sparsecore.compile(..., fallback=True), which leaves it to torch."
        ) from error
    return translator.graph


def _file(graph: Graph, layout: str, dtype: torch.dtype) -> bytes:
    for number, (name, value) in enumerate(graph.outputs):
        if any(value is given for _, given in graph.inputs):  # a network writes every output
            copy = Step("activation", [value], Value(value.shape), {"activation": "none"})
            graph.steps.append(copy)
            graph.outputs[number] = (name, copy.writes)
    simplify(graph)
    return network_bytes(graph, layout, dtype)


def _left_to_torch(program: Program) -> set[fx.Node]:
    """The nodes that no step stands for, and those whose result only torch can hand over.

    What torch computes is an input to the networks after it, which may change what can be translated there.
    """
    left: set[fx.Node] = set()
    while True:
        translator, failed = _dry_run(program, left)
        found = left | failed
        levels = levels_of(program.nodes, found)
        for node in program.nodes:
            crosses = node in program.outputs or any(levels.get(user) != levels[node] for user in node.users)
            if node not in found and crosses and not _is_value(translator, node):
                found.add(node)
        if found == left:
            return left
        left = found


def _dry_run(program: Program, left: set[fx.Node]) -> tuple[Translator, set[fx.Node]]:
    """Translates what is not left to torch; returns what failed besides."""
    translator = Translator(program.constants, program.blocks, program.batch)
    failed: set[fx.Node] = set()
    for node in (*program.inputs, *program.nodes):
        if node not in left and node not in program.inputs:
            try:
                translator.translate(node)
                continue
            except Unsupported:
                failed.add(node)
        with suppress(Unsupported):
            translator.add_input(node, node.name)
    return translator, failed


def _is_value(translator: Translator, node: fx.Node) -> bool:
    """Whether a network can write what a node computes, or need not: padded planes and tuples are none."""
    try:
        return isinstance(translator.known[node], Constant) or bool(translator.either(node))
    except Unsupported:
        return False


def _split(program: Program, left: set[fx.Node], dtype: torch.dtype) -> SplitNetwork:
    """Networks and torch in turns."""
    folded = _fold_constants(program, left)
    nodes = [node for node in program.nodes if node not in folded]
    constants = {**program.constants, **folded}
    levels = levels_of(nodes, left)
    segments: list[Segment] = []
    for level in range(max(levels.values(), default=0) + 1):
        members = [node for node in nodes if levels[node] == level]
        if not members:
            continue
        inside = set(members)
        operands = dict.fromkeys(each for node in members for each in node.all_input_nodes)
        reads = [each for each in operands if each not in inside and each not in constants]
        writes = [
            node
            for node in members
            if node in program.outputs or any(user not in inside for user in node.users)
        ]
        names = tuple(node.name for node in reads), tuple(node.name for node in writes)
        if level % 2:
            tensors = {node: constant.tensor for node, constant in constants.items()}
            run = torch_segment(members, tensors, reads, writes)
            segments.append(Segment("torch", *names, None, run, len(members)))
            continue
        translator = Translator(constants, program.blocks, program.batch)
        for node in reads:
            translator.add_input(node, node.name)
        for node in members:
            translator.translate(node)
        translator.graph.outputs = [(node.name, translator.either(node)) for node in writes]
        shapes = tuple(translator.shape(node) for node in writes)
        segments.append(
            Segment("network", *names, shapes, Network(_file(translator.graph, "chw", dtype)), len(members))
        )
    inputs, outputs = ([node.name for node in each] for each in (program.inputs, program.outputs))
    returned = {node.name: constants[node].tensor for node in program.outputs if node in constants}
    return SplitNetwork(segments, inputs, outputs, returned, program.batch)


def _fold_constants(program: Program, left: set[fx.Node]) -> dict[fx.Node, Constant]:
    """What can be computed without the input."""
    known = _dry_run(program, left)[0].known
    return {node: each for node in program.nodes if isinstance(each := known.get(node), Constant)}
