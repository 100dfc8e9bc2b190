"""Whole networks: a file of operators run over one planned arena, without torch in between.

A file is written by :func:`sparsecore.export_network`; its format is described in ``docs/network_file.md``. The same
file runs here, from C++ without Python, and in a browser.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsecore._library import kernel_library

_ERROR_BYTES = 512


@dataclass(frozen=True)
class Port:
    """An input or an output of a network."""

    name: str
    shape: tuple[int, ...]
    """As the array of one image has it: ``(C, H, W)``, ``(H, W, C)`` where ``layout`` says so, or ``(features,)``."""
    layout: str
    """``"chw"``, ``"hwc"`` or ``"vector"``."""


@dataclass(frozen=True)
class Step:
    """One operator of a network."""

    number: int
    op: str
    weight: str
    """The name of its weight in the file, or empty."""
    kernel: str
    """The kernel that serves it under the current instruction set, ``"avx512::group_lists_f32"`` say."""
    products: int
    """Multiply-adds that are done for one image; 0 for operators without a weight."""
    dense_products: int
    """Multiply-adds that a dense weight would take."""
    seconds: float = 0.0
    """Of the last :meth:`Network.profile`, for all images; 0 before it."""


class Network:
    """A compiled network, read from a file or its bytes.

    Networks may be called from several threads; calls of one network follow each other. The threads inside a call are
    torch's (:func:`torch.set_num_threads`). Results have the same bits for every number of threads.

    Pickling and :func:`copy.deepcopy` keep the bytes of the file, and check them again on arrival.

    Args:
        file: The contents of a network file.

    Raises:
        ValueError: The file is damaged, of another kind, or of a version that this library does not read.
        TypeError: ``file`` is not bytes.
    """

    def __init__(self, file: bytes | bytearray | memoryview) -> None:
        if not isinstance(file, bytes | bytearray | memoryview):
            raise TypeError(
                f"Network: file must be bytes, and is {type(file).__name__}. Paths go to Network.load()."
            )
        self._file = bytes(file)
        self._lock = threading.Lock()
        self._handle: int | None = None
        library = _library()
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        self._handle = library.sparsecore_network_load(self._file, len(self._file), error)
        if not self._handle:
            raise ValueError(f"Network: {_text(error.value)}")
        self.inputs: tuple[Port, ...] = self._ports(0, library.sparsecore_network_inputs(self._handle))
        """What a call takes, in order."""
        self.outputs: tuple[Port, ...] = self._ports(1, library.sparsecore_network_outputs(self._handle))
        """What a call returns, in order."""

    @classmethod
    def load(cls, source: str | os.PathLike[str] | bytes | bytearray | memoryview) -> Network:
        """The network in a file.

        Args:
            source: A path, or the contents of a file.

        Raises:
            ValueError: The file is no sound network; the message begins with its path.
            OSError: The file cannot be read.
        """
        if isinstance(source, bytes | bytearray | memoryview):
            return cls(source)
        try:
            return cls(Path(source).read_bytes())
        except ValueError as error:
            raise ValueError(f"{os.fspath(source)}: {error}") from None

    def run(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Runs images through the network, one after the other.

        Args:
            tensors: One per input, of the input's ``shape``, or with a batch dimension in front, the same for all. Any
                floating dtype and strides; anything but contiguous float32 on the CPU is copied.

        Returns:
            A tensor where the network has one output, else a tuple; float32, with a batch dimension where the inputs
            have one.

        Raises:
            ValueError: The number or the shapes of the tensors do not fit.
            TypeError: Something is not a floating tensor on the CPU.
            RuntimeError: A kernel failed, which takes running out of memory.
        """
        return self._run(tensors, profile=False)

    __call__ = run

    def profile(self, *tensors: Tensor) -> list[Step]:
        """Runs images like :meth:`run` and returns the steps with their times.

        Copying an input into planes counts for the step that reads it first, copying an output for the step that writes
        it.
        """
        self._run(tensors, profile=True)
        return self.steps()

    def steps(self) -> list[Step]:
        """The operators in order of execution."""
        return [self._step(i) for i in range(_library().sparsecore_network_steps(self._handle))]

    @property
    def arena_bytes(self) -> int:
        """Memory for all values between the steps."""
        return int(_library().sparsecore_network_arena_bytes(self._handle))

    @property
    def weight_bytes(self) -> int:
        """Memory for the weights, as the kernels read them."""
        return int(_library().sparsecore_network_weight_bytes(self._handle))

    @property
    def file_bytes(self) -> bytes:
        """The file this network was read from."""
        return self._file

    def explain(self) -> str:
        """The steps as a table: what each does, by which kernel, what is left of the dense work, how long it took."""
        steps = self.steps()
        timed = any(step.seconds for step in steps)
        rows = [
            ("step", "op", "weight", "kernel", "MFLOP", "of dense", *(("ms", "GFLOP/s") if timed else ()))
        ]
        for step in steps:
            share = f"{step.products / step.dense_products:.0%}" if step.dense_products else ""
            work = f"{2e-6 * step.products:.2f}" if step.products else ""
            row: tuple[str, ...] = (str(step.number), step.op, step.weight, step.kernel, work, share)
            if timed:
                speed = f"{2e-9 * step.products / step.seconds:.1f}" if step.products and step.seconds else ""
                row = (*row, f"{1e3 * step.seconds:.3f}", speed)
            rows.append(row)
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        done, dense = sum(step.products for step in steps), sum(step.dense_products for step in steps)
        lines.append(
            f"{2e-6 * done:.1f} of {2e-6 * dense:.1f} MFLOP, weights {self.weight_bytes / 2**20:.2f} MiB, "
            f"arena {self.arena_bytes / 2**20:.2f} MiB"
            + (f", {1e3 * sum(step.seconds for step in steps):.3f} ms" if timed else "")
        )
        return "\n".join(lines)

    def __repr__(self) -> str:
        ports = ", ".join(f"{port.name} {list(port.shape)}" for port in self.inputs)
        results = ", ".join(f"{port.name} {list(port.shape)}" for port in self.outputs)
        return (
            f"Network({ports} -> {results}; {len(self.steps())} steps, {self.weight_bytes} bytes of weights)"
        )

    def __reduce__(self) -> tuple[Callable[[bytes], Network], tuple[bytes]]:
        return type(self), (self._file,)

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            _library().sparsecore_network_free(self._handle)
            self._handle = None

    def _ports(self, output: int, count: int) -> tuple[Port, ...]:
        ports = []
        for i in range(count):
            shape = (ctypes.c_int32 * 5)()
            name = _text(_library().sparsecore_network_port(self._handle, output, i, shape))
            rank, channels, height, width, hwc = shape
            if rank == 1:
                ports.append(Port(name, (channels,), "vector"))
            elif hwc:
                ports.append(Port(name, (height, width, channels), "hwc"))
            else:
                ports.append(Port(name, (channels, height, width), "chw"))
        return tuple(ports)

    def _step(self, i: int) -> Step:
        texts, numbers = (ctypes.c_char_p * 3)(), (ctypes.c_double * 3)()
        _library().sparsecore_network_step(self._handle, i, texts, numbers)
        op, weight, kernel = (_text(text) for text in texts)
        return Step(i, op, weight, kernel, int(numbers[0]), int(numbers[1]), numbers[2])

    def _run(self, tensors: tuple[Tensor, ...], *, profile: bool) -> Tensor | tuple[Tensor, ...]:
        arrays, batch = self._checked(tensors)
        images = 1 if batch is None else batch
        front = () if batch is None else (batch,)
        results = tuple(torch.empty((*front, *port.shape), dtype=torch.float32) for port in self.outputs)
        with self._lock:
            status = _library().sparsecore_network_run(
                self._handle, images, _addresses(arrays), _addresses(results), int(profile)
            )
        if status:
            reason = _text(_library().sparsecore_network_describe(status))
            raise RuntimeError(f"Network.run: {reason} ({images} images, arena of {self.arena_bytes} bytes)")
        return results[0] if len(results) == 1 else results

    def _checked(self, tensors: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], int | None]:
        """The tensors as dense float32, and their common batch size, None without a batch dimension."""
        if len(tensors) != len(self.inputs):
            names = ", ".join(port.name for port in self.inputs)
            raise ValueError(
                f"Network.run: needs {len(self.inputs)} tensors ({names}), and got {len(tensors)}."
            )
        batches: list[int | None] = []
        for tensor, port in zip(tensors, self.inputs, strict=True):
            if (
                not isinstance(tensor, Tensor)
                or not tensor.is_floating_point()
                or tensor.device.type != "cpu"
            ):
                found = (
                    f"{tensor.dtype} on {tensor.device}"
                    if isinstance(tensor, Tensor)
                    else type(tensor).__name__
                )
                raise TypeError(
                    f"Network.run: {port.name} must be a floating tensor on the CPU, and is {found}."
                )
            shape = tuple(tensor.shape)
            if shape == port.shape:
                batches.append(None)
            elif shape[1:] == port.shape:
                batches.append(shape[0])
            else:
                raise ValueError(
                    f"Network.run: {port.name} needs the shape {list(port.shape)} ({port.layout}) or a batch of it, "
                    f"and has {list(shape)}. Networks are compiled for one size: resize the input, or compile again."
                )
        if len(set(batches)) > 1:
            raise ValueError(f"Network.run: the inputs have different batch sizes: {batches}.")
        return tuple(tensor.detach().to(torch.float32).contiguous() for tensor in tensors), batches[0]


def _addresses(tensors: tuple[Tensor, ...]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", errors="replace")


@cache
def _library() -> ctypes.CDLL:
    """The kernels' own library, which holds the C functions of csrc/cpu/network/c_api.cpp."""
    library = ctypes.CDLL(str(kernel_library()))
    handle, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "load": (handle, [text, ctypes.c_size_t, text]),
        "free": (None, [handle]),
        "inputs": (number, [handle]),
        "outputs": (number, [handle]),
        "port": (text, [handle, number, number, ctypes.POINTER(number)]),
        "run": (number, [handle, number, handle, handle, number]),
        "describe": (text, [number]),
        "arena_bytes": (ctypes.c_size_t, [handle]),
        "weight_bytes": (ctypes.c_size_t, [handle]),
        "steps": (number, [handle]),
        "step": (None, [handle, number, handle, handle]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"sparsecore_network_{name}")
        function.restype, function.argtypes = result, arguments
    return library
