"""A graph as a network file: weights packed, values numbered, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecore.export.graph import Graph, Step, Value
from sparsecore.export.pack import (
    DENSE_FROM,
    blocks_of,
    choose_blocks,
    pack_group_lists,
    quantise_rows,
)
from sparsecore.reference.network import FORMAT, VERSION

_NAMES = {
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int8: "I8",
    torch.uint8: "U8",
}


def network_bytes(graph: Graph, layout: str, dtype: torch.dtype) -> bytes:
    """The file of a simplified graph.

    Args:
        graph: What :func:`sparsecore.export.fuse.simplify` left.
        layout: Of image inputs, ``"chw"`` or ``"hwc"``.
        dtype: Of the stored values of sparse and dense products; what is small stays float32.
    """
    numbers: dict[int, int] = {}
    values: list[Value] = []

    def number(value: Value) -> int:
        if id(value) not in numbers:
            numbers[id(value)] = len(values)
            values.append(value)
        return numbers[id(value)]

    store = _Store(dtype)
    inputs = [
        {"name": name, "value": number(value), "layout": layout if len(value.shape) == 3 else "vector"}
        for name, value in graph.inputs
    ]
    steps = [_describe(step, number, store) for step in graph.steps]
    outputs = [{"name": name, "value": number(value)} for name, value in graph.outputs]
    described = {
        "inputs": inputs,
        "outputs": outputs,
        "values": [list(value.shape) for value in values],
        "steps": steps,
    }
    metadata = {"format": FORMAT, "version": VERSION, "network": json.dumps(described, separators=(",", ":"))}
    return _safetensors(store.tensors, metadata)


def _safetensors(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file whose bytes depend on its content alone, wide types first so that all are aligned.

    The library's own writer orders metadata by chance.
    """
    header: dict[str, Any] = {"__metadata__": metadata}
    parts: list[bytes] = []
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: -item[1].element_size()):
        begin, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        parts.append(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file beside its place and renames it: an interruption leaves the old one untouched."""
    target = Path(path)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _describe(step: Step, number: Any, store: _Store) -> dict[str, Any]:
    """One step as the file's JSON has it; its weights go to the store."""
    described: dict[str, Any] = {"op": step.op, **step.options}
    if step.op == "concat":
        described["xs"] = [number(value) for value in step.reads]
    else:
        described["x"] = number(step.reads[0])
        if len(step.reads) > 1:
            described["residual" if step.op == "conv" else "x2"] = number(step.reads[1])
    if step.op in ("conv", "linear"):
        described |= store.product(step)
    elif step.tensors:
        described["weight"] = store.add(step.weight, _dense_tensors(step))
    if "op" in described and described["op"] in ("conv", "stem", "depthwise", "linear", "dense"):
        described.setdefault("activation", "none")
    described["y"] = number(step.writes)
    return described


def _dense_tensors(step: Step) -> dict[str, Tensor]:
    """The float32 tensors of a step, weights of convolutions as matrices with columns (tap, channel)."""
    tensors = dict(step.tensors)
    if step.op in ("stem", "depthwise"):
        tensors["weight"] = _matrix(step)
    return tensors


def _matrix(step: Step) -> Tensor:
    """``(out_channels, kernel_h * kernel_w * channels)``; a grouped convolution is zero outside its own channels."""
    weight = step.tensors["weight"].float()
    if weight.dim() == 2:
        return weight
    n, per_group, kh, kw = weight.shape
    if step.op == "conv" and step.groups > 1:
        whole = weight.new_zeros(n, step.groups, per_group, kh, kw)
        whole[torch.arange(n), torch.arange(n) // (n // step.groups)] = weight
        weight = whole.flatten(1, 2)
    return weight.permute(0, 2, 3, 1).reshape(n, -1)


class _Store:
    """The tensors of a file by name; a weight that two steps share is stored once."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.tensors: dict[str, Tensor] = {}
        self._parts: dict[str, dict[str, Tensor]] = {}

    def add(self, name: str, parts: dict[str, Tensor]) -> str:
        """Stores tensors as ``<name>.<part>`` and returns the name, changed where another weight has it."""
        unique, suffix = name, 2
        while unique in self._parts and not _same(self._parts[unique], parts):
            unique, suffix = f"{name}_{suffix}", suffix + 1
        self._parts[unique] = parts
        for part, tensor in parts.items():
            self.tensors[f"{unique}.{part}"] = tensor
        return unique

    def product(self, step: Step) -> dict[str, Any]:
        """Packs the weight of a convolution or linear layer and returns what the step says about it."""
        matrix = _matrix(step)
        blocks = choose_blocks(matrix) if step.block is None else blocks_of(matrix, *step.block)
        parts = {"bias": step.tensors["bias"]} if "bias" in step.tensors else {}
        if step.op == "linear" and blocks.density >= DENSE_FROM:
            return {"op": "dense", "weight": self.add(step.weight, {"weight": matrix, **parts})}
        if self.dtype == torch.int8:
            matrix, parts["scale"] = quantise_rows(matrix)
        lists, described = pack_group_lists(matrix.to(self.dtype), blocks)
        return {"weight": self.add(step.weight, {**lists, **parts}), **described}


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
