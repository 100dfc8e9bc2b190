"""Passes over a graph: constants into weights, activations and residuals into the step that produces their operand.

Each pass is exact up to the rounding of float32 and needs only that nobody else reads what it removes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore.export.graph import ACTIVATED, Graph, Step

# A convolution of so few channels that reads the image itself is dense and has a kernel of its own.
STEM_CHANNELS = 4


def simplify(graph: Graph) -> None:
    """All passes, in an order in which none hides what another looks for."""
    graph.remove_unread()
    fold_affine(graph)
    lower_affine(graph)
    fuse_activations(graph, ("conv", "depthwise", "linear"))
    fuse_squeeze_excite(graph)
    fuse_activations(graph, ACTIVATED)
    fuse_residuals(graph)
    mark_stems(graph)


def fold_affine(graph: Graph) -> None:
    """``scale * (W x + b) + shift = (scale W) x + (scale b + shift)``, in float64."""
    for step in list(graph.steps):
        producer = graph.producer(step.reads[0]) if step.op == "affine" else None
        if producer is None or graph.only_reader(producer.writes) is not step:
            continue
        if producer.op == "affine":
            weight, bias = producer.tensors["scale"], producer.tensors["shift"]
            names = ("scale", "shift")
        elif producer.op in ("conv", "depthwise", "linear"):
            weight = producer.tensors["weight"]
            bias = producer.tensors.get("bias", torch.zeros(len(weight)))
            names = ("weight", "bias")
        else:
            continue
        scale, shift = step.tensors["scale"].double(), step.tensors["shift"].double()
        shaped = scale.reshape(-1, *(1 for _ in weight.shape[1:]))
        folded: tuple[Tensor, Tensor] = (
            (weight.double() * shaped).float(),
            (bias.double() * scale + shift).float(),
        )
        # a product may read the same parameter elsewhere: this one gets tensors of its own
        producer.tensors = dict(zip(names, folded, strict=True))
        _replace(graph, step, producer)
    for step in list(graph.steps):
        if step.op == "affine" and not step.tensors["shift"].any() and (step.tensors["scale"] == 1).all():
            producer = graph.producer(step.reads[0])
            if producer is not None and graph.only_reader(producer.writes) is step:
                _replace(graph, step, producer)


def lower_affine(graph: Graph) -> None:
    """What no weight took in: a depthwise convolution of one tap for planes, a diagonal matrix for vectors."""
    for step in graph.steps:
        if step.op != "affine":
            continue
        scale, shift = step.tensors["scale"], step.tensors["shift"]
        if len(step.writes.shape) == 3:
            step.op, step.groups = "depthwise", len(scale)
            step.options = {"kernel": [1, 1], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}
            step.tensors = {"weight": scale.reshape(-1, 1, 1, 1), "bias": shift}
        else:
            step.op, step.block = "linear", (1, 1)
            step.tensors = {"weight": torch.diag(scale), "bias": shift}


def fuse_activations(graph: Graph, ops: tuple[str, ...], names: tuple[str, ...] | None = None) -> None:
    """An activation (None: any, else one of ``names``) becomes the last thing that its producer does."""
    for step in list(graph.steps):
        producer = graph.producer(step.reads[0]) if step.op == "activation" else None
        if producer is None or producer.op not in ops or producer.activation != "none":
            continue
        if graph.only_reader(producer.writes) is step and (names is None or step.activation in names):
            producer.options["activation"] = step.activation
            _replace(graph, step, producer)


def fuse_squeeze_excite(graph: Graph) -> None:
    """``x * gate(W2 act(W1 mean(x) + b1) + b2)``: four steps become one."""
    for step in list(graph.steps):
        chain = _squeeze_excite(graph, step)
        if chain is None:
            continue
        first, second = chain[1:]
        step.op, step.weight = "squeeze_excite", first.weight
        step.reads = step.reads[:1]
        step.options = {"inner": first.activation, "gate": second.activation}
        for suffix, product in (("1", first), ("2", second)):
            weight = product.tensors["weight"]
            step.tensors[f"weight{suffix}"] = weight
            step.tensors[f"bias{suffix}"] = product.tensors.get("bias", torch.zeros(len(weight)))
        graph.remove(chain)


def _squeeze_excite(graph: Graph, step: Step) -> tuple[Step, Step, Step] | None:
    """The mean and both products that lead to the gate of a ``scale`` step, if nobody else reads them."""
    if step.op != "scale" or step.activation != "none":
        return None
    chain: list[Step] = []
    reader, value = step, step.reads[1]
    for op in ("linear", "linear", "global_average_pool"):
        producer = graph.producer(value)
        if producer is None or producer.op != op or graph.only_reader(value) is not reader:
            return None
        chain.append(producer)
        reader, value = producer, producer.reads[0]
    second, first, mean = chain
    return (mean, first, second) if value is step.reads[0] else None


def fuse_residuals(graph: Graph) -> None:
    """``conv + x`` becomes a convolution with a residual, run where the sum was: by then ``x`` is there."""
    for step in list(graph.steps):
        if step.op != "add" or len(step.writes.shape) != 3:
            continue
        for own, other in ((1, 0), (0, 1)):
            conv = graph.producer(step.reads[own])
            if conv is None or conv.op != "conv" or conv.activation != "none" or len(conv.reads) > 1:
                continue
            if graph.only_reader(conv.writes) is not step or step.reads[0] is step.reads[1]:
                continue
            graph.remove([conv])
            step.op, step.reads = "conv", [conv.reads[0], step.reads[other]]
            step.options = conv.options | {"activation": step.activation}
            step.tensors, step.weight = conv.tensors, conv.weight
            step.groups, step.block = conv.groups, conv.block
            break


def mark_stems(graph: Graph) -> None:
    """Dense convolutions of the image itself."""
    images = [value for _, value in graph.inputs]
    for step in graph.steps:
        reads_image = any(step.reads[0] is image for image in images)
        dense = step.op == "conv" and step.groups == 1 and len(step.reads) == 1
        if dense and reads_image and step.reads[0].shape[0] <= STEM_CHANNELS:
            step.op = "stem"


def _replace(graph: Graph, step: Step, producer: Step) -> None:
    """Takes ``step`` out: who read its result reads its producer's, which nobody else did."""
    graph.remove([step])
    producer.writes = step.writes
