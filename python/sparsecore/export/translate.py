"""From torch's graph to ours: one small function per operator of torch, each refusing what it cannot express.

The program is functional and knows every shape. Parameters, buffers and whatever is computed from them alone are
constants here, so that masks (``weight_orig * weight_mask``) and parametrisations are gone before an operator is
translated. The first dimension of every value is the batch, which a network file does not have.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from sparsecore.export.graph import Graph, Step, Value

aten = torch.ops.aten


class Unsupported(Exception):
    """A node that no step of a network file can stand for; the text says why."""


@dataclass(frozen=True)
class Padded:
    """A value with zeros around its planes, for the convolution that reads it."""

    value: Value
    left: int
    right: int
    top: int
    bottom: int


@dataclass
class Constant:
    """A parameter, a buffer, or what was computed from them."""

    tensor: Tensor
    name: str = ""


Known = Value | Padded | Constant | tuple[Any, ...]
Handler = Callable[["Translator", fx.Node, dict[str, Any]], Known]
HANDLERS: dict[Any, Handler] = {}


def handles(*targets: Any) -> Callable[[Handler], Handler]:
    """Registers the translation of some operators of torch."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(targets, handler))
        return handler

    return register


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by name, defaults included; by place where the function has no schema."""
    given = dict(node.kwargs)
    if not isinstance(node.target, torch._ops.OpOverload):
        return given | {str(place): argument for place, argument in enumerate(node.args)}
    known = node.target._schema.arguments
    defaults = {argument.name: argument.default_value for argument in known}
    return defaults | dict(zip(defaults, node.args, strict=False)) | given


def _is_random(node: fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


class Translator:
    """Builds a :class:`Graph` node by node.

    Args:
        constants: Of the program, by node.
        blocks: ``(rows, cols)`` of weights whose layer says its pattern, by name.
        batch: Images of the example.
    """

    def __init__(
        self, constants: dict[fx.Node, Constant], blocks: dict[str, tuple[int, int]], batch: int
    ) -> None:
        self.graph = Graph()
        self.known: dict[fx.Node, Known] = dict(constants)
        self.blocks = blocks
        self.batch = batch

    def add_input(self, node: fx.Node, name: str) -> None:
        """Declares what comes from outside."""
        shape = self.shape(node)
        if node.meta["val"].dtype != torch.float32:
            raise Unsupported(f"it is {node.meta['val'].dtype}, and networks compute in float32")
        if len(shape) not in (1, 3) or not all(shape):
            raise Unsupported(
                f"its shape is {tuple(node.meta['val'].shape)}, and inputs are (batch, channels, height, width) "
                "or (batch, features)"
            )
        value = Value(shape)
        self.known[node] = value
        self.graph.inputs.append((name, value))

    def translate(self, node: fx.Node) -> None:
        """One call of torch.

        Raises:
            Unsupported: There is no step for it.
        """
        operands = node.all_input_nodes
        handler = HANDLERS.get(node.target)
        if not _is_random(node) and all(isinstance(self.known.get(each), Constant) for each in operands):
            self.known[node] = self._fold(node)
        elif handler is None:
            raise Unsupported("no step of a network file computes it")
        else:
            for each in operands:
                if each not in self.known:
                    raise Unsupported(f"it reads {each.name}, which is neither planes nor a vector")
            self.known[node] = handler(self, node, arguments(node))

    def _fold(self, node: fx.Node) -> Constant:
        def constant(each: fx.Node) -> Tensor:
            known = self.known[each]
            assert isinstance(known, Constant)
            return known.tensor

        assert callable(node.target)
        with torch.no_grad():
            result = node.target(*fx.map_arg(node.args, constant), **fx.map_arg(node.kwargs, constant))
        if not isinstance(result, Tensor):
            raise Unsupported("it computes several constants at once")
        names = [
            known.name for each in node.all_input_nodes if isinstance(known := self.known[each], Constant)
        ]
        return Constant(result, names[0] if names else node.name)

    def shape(self, node: Any) -> tuple[int, ...]:
        """Of what a node computes, without the batch."""
        described = node.meta.get("val")
        if not isinstance(described, Tensor):
            raise Unsupported(f"{node.name} is no tensor")
        whole = tuple(described.shape)
        if not whole or whole[0] != self.batch:
            raise Unsupported(f"its shape {whole} does not begin with the batch of {self.batch}")
        return whole[1:]

    def constant(self, node: Any, what: str) -> Constant:
        """A weight, which may not depend on the input."""
        known = self.known.get(node)
        if not isinstance(known, Constant):
            raise Unsupported(f"its {what} is computed from the input")
        if not known.tensor.is_floating_point():
            raise Unsupported(f"its {what} is {known.tensor.dtype}")
        return Constant(known.tensor.detach().float().cpu(), known.name)

    def planes(self, node: Any) -> Value:
        """An operand that is a ``(channels, height, width)`` value."""
        known = self.known[node]
        if not isinstance(known, Value) or len(known.shape) != 3 or known.shape != self.shape(node):
            raise Unsupported(f"it needs planes, and {node.name} is {self._describe(node)}")
        return known

    def vector(self, node: Any) -> Value:
        """An operand that is a ``(features,)`` value; planes of one pixel are flattened."""
        known, shape = self.known[node], self.shape(node)
        if isinstance(known, Value) and len(known.shape) == 1 and shape == (*known.shape, 1, 1)[: len(shape)]:
            return known
        if isinstance(known, Value) and known.shape == shape and shape[1:] == (1, 1):
            return self.emit("flatten", [known], shape[:1])
        raise Unsupported(f"it needs a vector, and {node.name} is {self._describe(node)}")

    def either(self, node: Any) -> Value:
        """Planes or a vector, whichever the operand is."""
        known = self.known[node]
        return self.planes(node) if isinstance(known, Value) and len(known.shape) == 3 else self.vector(node)

    def _describe(self, node: fx.Node) -> str:
        known = self.known[node]
        if isinstance(known, Padded):
            return "padded, which only convolutions read"
        return "a constant" if isinstance(known, Constant) else f"of shape {tuple(node.meta['val'].shape)}"

    def emit(self, op: str, reads: list[Value], shape: tuple[int, ...], **rest: Any) -> Value:
        """Appends a step and returns what it writes."""
        step = Step(op, reads, Value(tuple(shape)), **rest)
        self.graph.steps.append(step)
        return step.writes


def _pair(value: Any) -> list[int]:
    """One or two numbers of torch's lists as two."""
    numbers = [value] if isinstance(value, int) else list(value)
    return [numbers[0], numbers[-1]]


def _check_windows(x: Value, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    """Refuses windows that see nothing but padding, which kernels do not have."""
    for axis in (0, 1):
        kernel, stride, padding = (options[name][axis] for name in ("kernel", "stride", "padding"))
        reach = options.get("dilation", (1, 1))[axis] * (kernel - 1)
        if padding > reach or (shape[1 + axis] - 1) * stride - padding >= x.shape[1 + axis]:
            raise Unsupported(f"a window of it lies wholly outside the {x.shape[1:]} input, in the padding")


def _weight_name(constant: Constant) -> str:
    return constant.name.removesuffix(".weight") or "weight"


# --- products -------------------------------------------------------------------------------------------------------


@handles(aten.conv2d.default, aten.conv2d.padding)
def _conv(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    weight = t.constant(a["weight"], "weight")
    tensors = {"weight": weight.tensor}
    if a["bias"] is not None:
        tensors["bias"] = t.constant(a["bias"], "bias").tensor
    kernel, groups = list(weight.tensor.shape[2:]), int(a["groups"])
    stride, dilation = _pair(a["stride"]), _pair(a["dilation"])
    span = [each * (size - 1) for each, size in zip(dilation, kernel, strict=True)]
    if a["padding"] == "same":
        padding = [each // 2 for each in span]
    else:
        padding = [0, 0] if a["padding"] == "valid" else _pair(a["padding"])
    operand = t.known[a["input"]]
    if isinstance(operand, Padded):
        if min(operand.left, operand.top) < 0:
            raise Unsupported("its input is cropped by a negative padding")
        source = operand.value
        padding = [padding[0] + operand.top, padding[1] + operand.left]
    elif isinstance(operand, Value) and len(operand.shape) == 1 and kernel == [1, 1] and groups == 1:
        if any(padding):
            raise Unsupported("it pads a single pixel")
        tensors["weight"] = weight.tensor.flatten(1)
        name, block = _weight_name(weight), t.blocks.get(weight.name)
        source = t.vector(a["input"])
        return t.emit("linear", [source], t.shape(node)[:1], tensors=tensors, weight=name, block=block)
    else:
        source = t.planes(a["input"])
    options = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    _check_windows(source, t.shape(node), options)
    return t.emit(
        "depthwise" if groups == source.shape[0] == weight.tensor.shape[0] and groups > 1 else "conv",
        [source],
        t.shape(node),
        options=options,
        tensors=tensors,
        weight=_weight_name(weight),
        groups=groups,
        block=t.blocks.get(weight.name),
    )


@handles(aten.linear.default)
def _linear(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    if len(t.shape(a["input"])) != 1:
        raise Unsupported(
            f"its input has the shape {tuple(a['input'].meta['val'].shape)}, not (batch, features)"
        )
    weight = t.constant(a["weight"], "weight")
    tensors = {"weight": weight.tensor}
    if a["bias"] is not None:
        tensors["bias"] = t.constant(a["bias"], "bias").tensor
    block = t.blocks.get(weight.name)
    return t.emit(
        "linear",
        [t.vector(a["input"])],
        t.shape(node),
        tensors=tensors,
        weight=_weight_name(weight),
        block=block,
    )


# --- arithmetic with constants: affine ------------------------------------------------------------------------------


def _affine(t: Translator, operand: Any, scale: Tensor, shift: Tensor, name: str) -> Value:
    """``scale`` and ``shift`` broadcast to one number per channel."""
    x = t.either(operand)
    channels = x.shape[0]
    return t.emit(
        "affine",
        [x],
        x.shape,
        tensors={"scale": scale.float().expand(channels), "shift": shift.float().expand(channels)},
        weight=name,
    )


@handles(aten._native_batch_norm_legit_no_training.default, aten.batch_norm.default)
def _batch_norm(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    if a.get("training"):
        raise Unsupported("it is in training mode; call model.eval() first")
    mean = t.constant(a["running_mean"], "running mean")
    deviation = (t.constant(a["running_var"], "running variance").tensor.double() + a["eps"]).sqrt()
    scale = 1 / deviation
    if a["weight"] is not None:
        scale = scale * t.constant(a["weight"], "weight").tensor
    shift = -mean.tensor * scale
    if a["bias"] is not None:
        shift = shift + t.constant(a["bias"], "bias").tensor
    result = _affine(t, a["input"], scale, shift, mean.name.removesuffix(".running_mean"))
    legit = node.target is aten._native_batch_norm_legit_no_training.default
    return (result, None, None) if legit else result


@handles(operator.getitem)
def _item(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    known = t.known[a["0"]]
    item = known[a["1"]] if isinstance(known, tuple) else None
    if not isinstance(item, Value):
        raise Unsupported("it takes a part that networks do not compute")
    return item


def _per_channel(t: Translator, operand: Any, other: Any) -> Tensor | None:
    """A number, or a constant with one number per channel of ``operand``; None for anything else."""
    if isinstance(other, (int, float)):
        return torch.tensor(float(other))
    known = t.known[other]
    if not isinstance(known, Constant):
        return None
    shape, channels = tuple(known.tensor.shape), t.shape(operand)[0]
    aligned = (1,) * (len(t.shape(operand)) + 1 - len(shape)) + shape
    if known.tensor.numel() == 1 or aligned == (1, channels, *(1 for _ in t.shape(operand)[1:])):
        return t.constant(other, "operand").tensor.flatten()
    raise Unsupported(f"its constant has the shape {shape}, not one number per channel")


def _constant_last(t: Translator, a: dict[str, Any]) -> tuple[Any, Any]:
    first, second = a["self"], a["other"]
    return (second, first) if isinstance(t.known[first], Constant) else (first, second)


@handles(aten.add.Tensor, aten.add.Scalar)
def _add(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    if a["alpha"] != 1:
        raise Unsupported(f"it adds with alpha={a['alpha']}")
    x, other = _constant_last(t, a)
    shift = _per_channel(t, x, other)
    if shift is not None:
        return _affine(t, x, torch.ones(()), shift, node.name)
    first, second = t.either(x), t.either(other)
    if t.shape(x) != t.shape(other) or first.shape != second.shape:
        raise Unsupported(f"it adds {t.shape(x)} and {t.shape(other)}; both must have one shape")
    return t.emit("add", [first, second], first.shape)


@handles(aten.sub.Tensor, aten.div.Tensor)
def _with_constant(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    if a.get("alpha", 1) != 1 or isinstance(t.known[a["self"]], Constant):
        raise Unsupported("its right operand must be a constant")
    number = _per_channel(t, a["self"], a["other"])
    if number is None:
        raise Unsupported("its right operand must be a constant")
    if node.target is aten.sub.Tensor:
        return _affine(t, a["self"], torch.ones(()), -number, node.name)
    return _affine(t, a["self"], 1 / number, torch.zeros(()), node.name)


@handles(aten.mul.Tensor, aten.mul.Scalar)
def _mul(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    x, other = _constant_last(t, a)
    factor = _per_channel(t, x, other)
    if factor is not None:
        return _affine(t, x, factor, torch.zeros(()), node.name)
    for operand, gate in ((x, other), (other, x)):
        if found := _gated_by_itself(t, t.known[operand], t.known[gate]):
            return _scaled_activation(t, t.either(operand), *found, node.name)
    for operand, gate in ((x, other), (other, x)):
        known = t.known[gate]
        per_channel = t.shape(gate)[1:] == (1, 1) or gate.target is aten.expand.default
        if isinstance(known, Value) and len(t.shape(operand)) == 3 and per_channel:
            vector = known if len(known.shape) == 1 else t.vector(gate)
            value = t.planes(operand)
            if vector.shape[0] == value.shape[0]:
                return t.emit("scale", [value, vector], value.shape)
    raise Unsupported(
        f"it multiplies {t.shape(x)} by {t.shape(other)}; planes may be multiplied by (channels, 1, 1)"
    )


def _scaled_activation(t: Translator, x: Value, name: str, factor: float, weight: str) -> Value:
    y = t.emit("activation", [x], x.shape, options={"activation": name})
    if factor == 1:
        return y
    numbers = {"scale": torch.full(x.shape[:1], factor), "shift": torch.zeros(x.shape[0])}
    return t.emit("affine", [y], x.shape, tensors=numbers, weight=weight)


def _gated_by_itself(t: Translator, x: Known, gate: Known) -> tuple[str, float] | None:
    """``x * gate`` as an activation of x and a factor.

    The gates are ``sigmoid(x)``, ``hard_sigmoid(x)`` and, as many models spell the latter, ``relu6(x + 3)``, divided by
    6 before the product or after it.
    """
    step = t.graph.producer(gate) if isinstance(gate, Value) else None
    factor = 6.0
    if step and step.op == "affine":
        inner = _undo_affine(step, 1 / 6, 0.0)
        step, factor = t.graph.producer(inner) if inner else None, 1.0
    if step is None or step.op != "activation":
        return None
    if step.reads[0] is x and factor == 6:
        name = {"sigmoid": "silu", "hard_sigmoid": "hard_swish"}.get(step.activation)
        return (name, 1.0) if name else None
    shifted = t.graph.producer(step.reads[0])
    if step.activation != "relu6" or shifted is None or _undo_affine(shifted, 1.0, 3.0) is not x:
        return None
    return "hard_swish", factor


def _undo_affine(step: Step, scale: float, shift: float) -> Value | None:
    """The operand of an affine step that multiplies by ``scale`` and adds ``shift``, else None."""
    if step.op != "affine":
        return None
    fits = torch.allclose(step.tensors["scale"], torch.tensor(scale), rtol=1e-6)
    fits = fits and torch.allclose(step.tensors["shift"], torch.tensor(shift), rtol=1e-6)
    return step.reads[0] if fits else None


# --- activations ----------------------------------------------------------------------------------------------------


def _activation(t: Translator, operand: Any, name: str) -> Value:
    x = t.either(operand)
    return t.emit("activation", [x], x.shape, options={"activation": name})


_PLAIN: dict[Any, str] = {
    aten.relu.default: "relu",
    aten.relu6.default: "relu6",
    aten.hardswish.default: "hard_swish",
    aten.hardsigmoid.default: "hard_sigmoid",
    aten.silu.default: "silu",
    aten.sigmoid.default: "sigmoid",
}


@handles(*_PLAIN)
def _named(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    return _activation(t, a["self"], _PLAIN[node.target])


@handles(aten.gelu.default)
def _gelu(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    return _activation(t, a["self"], "gelu_tanh" if a["approximate"] == "tanh" else "gelu")


@handles(aten.hardtanh.default, aten.clamp.default, aten.clamp_min.default)
def _clamp(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    low = a.get("min_val", a.get("min"))
    high = a.get("max_val", a.get("max"))
    if low != 0 or high not in (None, 6):
        raise Unsupported(f"it clamps to {low}..{high}; networks clamp to 0..inf (relu) and 0..6 (relu6)")
    return _activation(t, a["self"], "relu" if high is None else "relu6")


@handles(aten.softmax.int, aten._softmax.default)
def _softmax(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    x = t.vector(a["self"])
    if a["dim"] not in (1, 1 - len(node.meta["val"].shape)):
        raise Unsupported(f"it normalises dimension {a['dim']}; networks normalise the features of a vector")
    return t.emit("softmax", [x], x.shape)


# --- pooling --------------------------------------------------------------------------------------------------------


@handles(aten.adaptive_avg_pool2d.default)
def _adaptive(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    if t.shape(node)[1:] == (1, 1):
        return _mean_of_planes(t, a["self"])
    x = t.planes(a["self"])
    sizes = list(zip(x.shape[1:], t.shape(node)[1:], strict=True))
    if any(size % out for size, out in sizes):
        raise Unsupported(
            f"its windows differ in size, as {x.shape[1:]} is no multiple of {t.shape(node)[1:]}"
        )
    kernel = [size // out for size, out in sizes]
    options = {"kernel": kernel, "stride": kernel, "padding": [0, 0], "count_include_pad": False}
    return t.emit("average_pool", [x], t.shape(node), options=options)


@handles(aten.mean.dim)
def _mean(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    rank = len(a["self"].meta["val"].shape)
    dims = sorted(dim % rank for dim in a["dim"] or ())
    if rank != 4 or dims != [2, 3]:
        raise Unsupported(f"it averages dimensions {a['dim']}; networks average over height and width")
    return _mean_of_planes(t, a["self"])


def _mean_of_planes(t: Translator, operand: Any) -> Value:
    known = t.known[operand]
    if isinstance(known, Value) and len(known.shape) == 1:
        return t.vector(operand)
    x = t.planes(operand)
    return t.emit("global_average_pool", [x], x.shape[:1])


@handles(aten.max_pool2d.default, aten.avg_pool2d.default)
def _pool(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    kernel = _pair(a["kernel_size"])
    options: dict[str, Any] = {
        "kernel": kernel,
        "stride": _pair(a["stride"]) if a["stride"] else kernel,
        "padding": _pair(a["padding"]),
    }
    if node.target is aten.max_pool2d.default:
        if _pair(a["dilation"]) != [1, 1]:
            raise Unsupported(f"its dilation is {a['dilation']}; networks pool without")
        _check_windows(t.planes(a["self"]), t.shape(node), options)
        return t.emit("max_pool", [t.planes(a["self"])], t.shape(node), options=options)
    if a["ceil_mode"] or a["divisor_override"] is not None:
        raise Unsupported("ceil_mode and divisor_override of an average have no step")
    options["count_include_pad"] = bool(a["count_include_pad"] and any(options["padding"]))
    return t.emit("average_pool", [t.planes(a["self"])], t.shape(node), options=options)


# --- shapes ---------------------------------------------------------------------------------------------------------


@handles(
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.contiguous.default,
    aten.dropout.default,
    aten.lift_fresh_copy.default,
)
def _same(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    if a.get("train"):
        raise Unsupported("it is in training mode; call model.eval() first")
    return t.known[node.all_input_nodes[0]]


@handles(
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
)
def _reshape(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    known, before, after = t.known[a["self"]], t.shape(a["self"]), t.shape(node)
    if isinstance(known, Value) and before == after:
        return known
    if isinstance(known, Value) and len(known.shape) == 1 and after == (*known.shape, 1, 1)[: len(after)]:
        return known
    if isinstance(known, Value) and len(known.shape) == 3 and after == (prod(before),):
        return t.emit("flatten", [t.planes(a["self"])], after)
    raise Unsupported(
        f"it turns {before} into {after}; networks flatten (channels, height, width) to a vector"
    )


@handles(aten.expand.default)
def _expand(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    if t.shape(a["self"]) == t.shape(node):
        return t.known[a["self"]]
    if t.shape(a["self"])[1:] != (1, 1) or t.shape(node)[0] != t.shape(a["self"])[0]:
        raise Unsupported("it repeats something else than one number per channel")
    return t.vector(a["self"])  # planes() and vector() compare shapes, so that only a product takes it


@handles(aten.pad.default, aten.constant_pad_nd.default)
def _pad(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    if a.get("mode", "constant") != "constant" or (a["value"] or 0) != 0:
        raise Unsupported("it pads with something else than zeros")
    amounts = list(a["pad"]) + [0] * 4
    if len(a["pad"]) > 4 and any(a["pad"][4:]):
        raise Unsupported("it pads channels")
    return Padded(t.planes(a["self"]), *amounts[:4])


@handles(aten.cat.default)
def _cat(t: Translator, node: fx.Node, a: dict[str, Any]) -> Known:
    rank = len(node.meta["val"].shape)
    if a["dim"] % rank != 1:
        raise Unsupported(f"it concatenates dimension {a['dim']}; networks concatenate channels")
    values = [t.either(each) for each in a["tensors"]]
    if len({len(value.shape) for value in values}) > 1:
        raise Unsupported("it concatenates planes and vectors")
    shape = (sum(value.shape[0] for value in values), *values[0].shape[1:])
    return t.emit("concat", values, shape)
