"""A network as a TFLite file, written operator by operator, for ai-edge-litert with its XNNPACK delegate.

The converters from torch bring a second torch or all of TensorFlow, and the networks here need twelve operators.
Batch norm is folded; activations that TFLite fuses (relu, relu6) are fused. Planes lie as (1, height, width, channels).
TFLite's own padding pads a stride of two below and to the right, torch on all sides: such convolutions get a PAD before
them, which XNNPACK takes into the convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor, nn

from sparsecore.export.compiler import translated
from sparsecore.export.fuse import fold_affine, fuse_activations
from sparsecore.export.graph import Graph, Step, Value
from sparsecore.export.trace import trace

FUSED = {"none": 0, "relu": 1, "relu6": 3}


def call(model: nn.Module, example: Tensor, threads: int) -> Callable[[], Any]:
    """A call of the interpreter on the example."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=write(model, example), num_threads=threads)
    interpreter.allocate_tensors()
    pixels = example.permute(0, 2, 3, 1).contiguous().numpy()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    output = interpreter.get_output_details()[0]["index"]

    def run() -> Any:
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return run


def write(model: nn.Module, example: Tensor) -> bytes:
    """The file of a model with one image input."""
    graph = translated("litert", trace("litert", model, example))
    graph.remove_unread()
    fold_affine(graph)
    fuse_activations(graph, ("conv", "depthwise", "linear", "add"), tuple(FUSED))
    return Writer(graph).file()


class Writer:
    """Fills the tables of one subgraph."""

    def __init__(self, graph: Graph) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema, self.graph = schema, graph
        self.model, self.subgraph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.subgraph]
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.places: dict[int, int] = {}

    def file(self) -> bytes:
        """The whole model."""
        import flatbuffers

        self.subgraph.inputs = [self.place(value) for _, value in self.graph.inputs]
        for step in self.graph.steps:
            getattr(self, step.op)(step)
        self.subgraph.outputs = [self.place(value) for _, value in self.graph.outputs]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def tensor(self, shape: tuple[int, ...], data: np.ndarray | None = None) -> int:
        """Adds a tensor, constant where there is data."""
        described = self.schema.TensorT()
        described.shape, described.name = list(shape), f"t{len(self.subgraph.tensors)}"
        described.type = self.schema.TensorType.FLOAT32
        if data is not None:
            if data.dtype == np.int32:
                described.type = self.schema.TensorType.INT32
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), dtype=np.uint8)
            described.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        self.subgraph.tensors.append(described)
        return len(self.subgraph.tensors) - 1

    def constant(self, data: Any, dtype: Any = np.float32) -> int:
        array = np.asarray(data, dtype=dtype)
        return self.tensor(array.shape, array)

    def place(self, value: Value) -> int:
        """The tensor of a value, with a batch of one."""
        if id(value) not in self.places:
            shape = value.shape if len(value.shape) == 1 else (*value.shape[1:], value.shape[0])
            self.places[id(value)] = self.tensor((1, *shape))
        return self.places[id(value)]

    def emit(self, name: str, inputs: list[int], output: int, options: str = "", **fields: Any) -> int:
        """Adds an operator; ``options`` names its table."""
        code = self.schema.OperatorCodeT()
        code.builtinCode = getattr(self.schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        operator = self.schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes)
        operator.inputs, operator.outputs = inputs, [output]
        if options:
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self.schema, options + "T")()
            for field, value in fields.items():
                setattr(operator.builtinOptions, field, value)
        self.model.operatorCodes.append(code)
        self.subgraph.operators.append(operator)
        return output

    def like(self, value: Value) -> int:
        """A new tensor of a value's shape."""
        return self.tensor(tuple(self.subgraph.tensors[self.place(value)].shape))

    def padded(self, step: Step) -> tuple[int, int]:
        """The operand of a window and how TFLite calls its padding; a PAD before it where it has no name for it."""
        x = step.reads[0]
        (top, left), (kernel, stride) = (
            step.options["padding"],
            (step.options["kernel"], step.options["stride"]),
        )
        if top == left == 0:
            return self.place(x), self.schema.Padding.VALID
        if (
            stride == [1, 1]
            and x.shape[1:] == step.writes.shape[1:]
            and [2 * top + 1, 2 * left + 1] == kernel
        ):
            return self.place(x), self.schema.Padding.SAME
        below = [
            (out - 1) * s + k - size - pad
            for out, s, k, size, pad in zip(
                step.writes.shape[1:], stride, kernel, x.shape[1:], (top, left), strict=True
            )
        ]
        amounts = [[0, 0], [top, max(below[0], 0)], [left, max(below[1], 0)], [0, 0]]
        shape = (1, x.shape[1] + sum(amounts[1]), x.shape[2] + sum(amounts[2]), x.shape[0])
        return (
            self.emit(
                "PAD", [self.place(x), self.constant(amounts, np.int32)], self.tensor(shape), "PadOptions"
            ),
            self.schema.Padding.VALID,
        )

    def _window(self, step: Step, name: str, options: str, weight: np.ndarray, **fields: Any) -> None:
        source, padding = self.padded(step)
        bias = step.tensors.get("bias")
        inputs = [
            source,
            self.constant(weight),
            self.constant(np.zeros(step.writes.shape[0]) if bias is None else bias),
        ]
        self.emit(
            name,
            inputs,
            self.place(step.writes),
            options,
            padding=padding,
            strideH=step.options["stride"][0],
            strideW=step.options["stride"][1],
            dilationHFactor=1,
            dilationWFactor=1,
            fusedActivationFunction=FUSED[step.activation],
            **fields,
        )

    def conv(self, step: Step) -> None:
        if step.groups != 1 or step.options["dilation"] != [1, 1]:
            raise ValueError("litert: only plain convolutions are written here.")
        self._window(step, "CONV_2D", "Conv2DOptions", step.tensors["weight"].permute(0, 2, 3, 1).numpy())

    def depthwise(self, step: Step) -> None:
        weight = step.tensors["weight"].permute(1, 2, 3, 0).numpy()
        self._window(step, "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions", weight, depthMultiplier=1)

    def linear(self, step: Step) -> None:
        bias = step.tensors.get("bias")
        inputs = [self.place(step.reads[0]), self.constant(step.tensors["weight"].numpy())]
        inputs.append(self.constant(np.zeros(step.writes.shape[0]) if bias is None else bias))
        options = "FullyConnectedOptions"
        activation = FUSED[step.activation]
        self.emit(
            "FULLY_CONNECTED", inputs, self.place(step.writes), options, fusedActivationFunction=activation
        )

    def add(self, step: Step) -> None:
        inputs, activation = [self.place(each) for each in step.reads], FUSED[step.activation]
        self.emit("ADD", inputs, self.place(step.writes), "AddOptions", fusedActivationFunction=activation)

    def scale(self, step: Step) -> None:
        self.emit("MUL", [self.place(each) for each in step.reads], self.place(step.writes), "MulOptions")

    def global_average_pool(self, step: Step) -> None:
        axes = self.constant([1, 2], np.int32)
        self.emit(
            "MEAN",
            [self.place(step.reads[0]), axes],
            self.place(step.writes),
            "ReducerOptions",
            keepDims=False,
        )

    def max_pool(self, step: Step) -> None:
        producer = self.graph.producer(step.reads[0])
        if any(step.options["padding"]) and (producer is None or not producer.activation.startswith("relu")):
            raise ValueError("litert: a padded maximum is written only of values that are not negative.")
        source, padding = self.padded(step)
        (filter_h, filter_w), (stride_h, stride_w) = step.options["kernel"], step.options["stride"]
        fields = {"filterHeight": filter_h, "filterWidth": filter_w, "strideH": stride_h, "strideW": stride_w}
        self.emit(
            "MAX_POOL_2D", [source], self.place(step.writes), "Pool2DOptions", padding=padding, **fields
        )

    def activation(self, step: Step) -> None:
        x, y, name = self.place(step.reads[0]), self.place(step.writes), step.activation
        plain = {"relu": "RELU", "relu6": "RELU6", "sigmoid": "LOGISTIC"}
        if name in plain:
            self.emit(plain[name], [x], y)
        elif name == "hard_swish":
            self.emit("HARD_SWISH", [x], y, "HardSwishOptions")
        elif name == "silu":
            gate = self.emit("LOGISTIC", [x], self.like(step.writes))
            self.emit("MUL", [x, gate], y, "MulOptions")
        elif name == "hard_sigmoid":
            shifted = self.like(step.writes)
            self.emit(
                "ADD",
                [x, self.constant([3.0])],
                shifted,
                "AddOptions",
                fusedActivationFunction=FUSED["relu6"],
            )
            self.emit("MUL", [shifted, self.constant([1 / 6])], y, "MulOptions")
        else:
            raise ValueError(f"litert: the activation {name} is not written here.")
