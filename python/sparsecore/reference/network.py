"""What a network file says, read and computed step by step in plain torch: the specification of the file.

Every weight is unpacked to a dense matrix and every step is torch's own operator, so this is slow and easy to believe.
The C++ runtime and the exporter are tested against it.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor
from torch.nn import functional as F

from sparsecore.reference.group_lists import group_lists_unpack
from sparsecore.reference.linear import activate

FORMAT, VERSION = "sparsecore.network", "1"


def read_header(data: bytes) -> dict[str, Any]:
    """The JSON description inside a network file.

    Raises:
        ValueError: It is truncated, no network file, or of another version.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise ValueError("network: the file is truncated or no safetensors file. Export the network again.")
    try:
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (ValueError, AttributeError) as error:
        raise ValueError(f"network: the header is no JSON ({error}). Export the network again.") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"network: format is {metadata.get('format')!r}, not {FORMAT!r}; this is no network file."
        )
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"network: the file is version {metadata.get('version')}, this library reads {VERSION}. "
            "Install a newer sparsecore or export the network again."
        )
    described: dict[str, Any] = json.loads(metadata["network"])
    return described


@dataclass
class ReferenceNetwork:
    """A network file, run by torch.

    Attributes:
        described: The JSON of the file.
        tensors: Its tensors.
    """

    described: dict[str, Any]
    tensors: dict[str, Tensor]
    _dense: dict[str, Tensor] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, source: bytes | str | os.PathLike[str]) -> ReferenceNetwork:
        """Reads a file or its bytes.

        Raises:
            ValueError: It is truncated, no network file, or of another version.
        """
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        described = read_header(data)
        try:
            tensors = load_tensors(data)
        except SafetensorError as error:
            raise ValueError(f"network: the file is damaged ({error}). Export the network again.") from error
        return cls(described, tensors)

    def __call__(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Arrays ``(images, ...)`` as the file's inputs describe them; one output, or a tuple of them."""
        known: dict[int, Tensor] = {}
        for described, array in zip(self.described["inputs"], inputs, strict=True):
            shape = tuple(self.described["values"][described["value"]])
            array = array.permute(0, 3, 1, 2) if described["layout"] == "hwc" else array
            if tuple(array.shape[1:]) != shape:
                raise ValueError(
                    f"network: input {described['name']} needs {shape} per image, got {array.shape[1:]}."
                )
            known[described["value"]] = array.float()
        for number, step in enumerate(self.described["steps"]):
            result = self._run(step, known)
            shape = tuple(self.described["values"][step["y"]])
            if tuple(result.shape[1:]) != shape:
                raise ValueError(
                    f"network: step {number} ({step['op']}) gives {tuple(result.shape[1:])}, not {shape}."
                )
            known[step["y"]] = result
        results = tuple(known[output["value"]] for output in self.described["outputs"])
        return results if len(results) > 1 else results[0]

    def _run(self, step: dict[str, Any], known: dict[int, Tensor]) -> Tensor:
        op, activation = step["op"], step.get("activation", "none")
        if op == "concat":
            return torch.cat([known[each] for each in step["xs"]], 1)
        x = known[step["x"]]
        shape = tuple(self.described["values"][step["y"]])
        if op in ("conv", "stem", "depthwise"):
            y = self._conv(step, x, shape)
            if "residual" in step:
                y = y + known[step["residual"]]
            return activate(y, activation)
        if op in ("linear", "dense"):
            weight = self._matrix(step, shape[0], x.shape[1])
            return activate(F.linear(x, weight, self._optional(step, "bias")), activation)
        if op in ("average_pool", "max_pool"):
            return self._pool(step, x, shape)
        if op == "global_average_pool":
            return x.mean((2, 3))
        if op == "squeeze_excite":
            part = {
                suffix: self.tensors[f"{step['weight']}.{suffix}"]
                for suffix in ("weight1", "bias1", "weight2", "bias2")
            }
            inner = activate(F.linear(x.mean((2, 3)), part["weight1"], part["bias1"]), step["inner"])
            return (
                x * activate(F.linear(inner, part["weight2"], part["bias2"]), step["gate"])[:, :, None, None]
            )
        if op == "add":
            return activate(x + known[step["x2"]], activation)
        if op == "scale":
            return activate(x * known[step["x2"]][:, :, None, None], activation)
        if op == "activation":
            return activate(x, activation)
        if op == "flatten":
            return x.flatten(1)
        if op == "softmax":
            return x.softmax(1)
        raise ValueError(
            f"network: unknown step {op!r}. Install a newer sparsecore or export the network again."
        )

    def _optional(self, step: dict[str, Any], suffix: str) -> Tensor | None:
        tensor = self.tensors.get(f"{step['weight']}.{suffix}")
        return None if tensor is None else tensor.float()

    def _matrix(self, step: dict[str, Any], n: int, k: int) -> Tensor:
        """The dense float32 weight ``(n, k)`` of a step."""
        name = step["weight"]
        if "rows" not in step:
            return self.tensors[f"{name}.weight"].float()
        if name not in self._dense:
            values, index, order, starts = (
                self.tensors[f"{name}.{part}"] for part in ("values", "index", "order", "starts")
            )
            sizes = int(step["depth"]), int(step["window"])
            dense = group_lists_unpack(values, index.long(), order, starts, n, k, *sizes).float()
            scale = self._optional(step, "scale")
            self._dense[name] = dense if scale is None else dense * scale[:, None]
        return self._dense[name]

    def _conv(self, step: dict[str, Any], x: Tensor, shape: tuple[int, ...]) -> Tensor:
        (kh, kw), stride, dilation = step["kernel"], step["stride"], step["dilation"]
        channels, groups = x.shape[1], x.shape[1] if step["op"] == "depthwise" else 1
        x = _padded(x, step, shape, 0.0)
        per_group = channels // groups
        weight = self._matrix(step, shape[0], kh * kw * per_group)
        weight = weight.reshape(shape[0], kh, kw, per_group).permute(0, 3, 1, 2)  # columns are (tap, channel)
        return F.conv2d(x, weight, self._optional(step, "bias"), stride, 0, dilation, groups)

    def _pool(self, step: dict[str, Any], x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if step["op"] == "max_pool":
            return F.max_pool2d(_padded(x, step, shape, -torch.inf), step["kernel"], step["stride"])
        total = F.avg_pool2d(_padded(x, step, shape, 0.0), step["kernel"], step["stride"])
        if step["count_include_pad"]:
            return total
        inside = F.avg_pool2d(_padded(torch.ones_like(x), step, shape, 0.0), step["kernel"], step["stride"])
        return total / inside


def _padded(x: Tensor, step: dict[str, Any], shape: tuple[int, ...], value: float) -> Tensor:
    """Planes padded so that windows give the output size: above and to the left as told, the rest as needed."""
    below_right = []
    for axis in (0, 1):
        size, out = x.shape[2 + axis], shape[1 + axis]
        dilation = step.get("dilation", (1, 1))[axis]
        reach = (out - 1) * step["stride"][axis] + dilation * (step["kernel"][axis] - 1) + 1
        below_right.append(reach - size - step["padding"][axis])
    (top, left), (bottom, right) = step["padding"], below_right
    return F.pad(x, (left, right, top, bottom), value=value)
