"""What a family of CUDA kernels tells the visit: how its layers are made, what more to check, what more to time."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sparsecore
from sparsecore import Pattern
from sparsecore.formats.base import PackedWeight

Call = Callable[[], object]

FLOATS = (torch.bfloat16, torch.float16)
# Of ||got - expected|| / ||expected||, by the type that products are made of and the type that is written. Hopper's
# tensor cores add float8 products with about 14 bits and cut off what is below.
TOLERANCES = {
    (torch.bfloat16, torch.bfloat16): 3e-3,
    (torch.float16, torch.float16): 6e-4,
    (torch.bfloat16, torch.float32): 5e-5,
    (torch.float16, torch.float32): 5e-5,
    (torch.int8, torch.bfloat16): 3e-3,
    (torch.float8_e4m3fn, torch.bfloat16): 1e-2,
}


@dataclass(frozen=True)
class Shape:
    """A linear layer and how many tokens go through it."""

    outputs: int
    inputs: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.outputs} x {self.inputs}, {self.tokens} tokens"


@dataclass(frozen=True)
class Target:
    """How many times as fast as a peer: what has to be, and what is close to the limit.

    ``ours`` is the call that it is about: a kernel by name, or the one that the chooser takes.
    """

    against: str
    must: float
    stretch: float
    ours: str = "ours"


@dataclass(frozen=True)
class Layer:
    """A packed layer on the device.

    Attributes:
        weight: ``(outputs, inputs)``, the matrix it stands for, zeros included.
        linear: ``(x, bias)`` to ``x @ weight.T``, scaled, plus bias. ``bias`` may be None.
        scale: ``(outputs,)`` float32, of 8-bit weights.
        out_dtype: What ``linear`` writes.
        trained: Of layers with gradients, ``(x, values)`` to y; and ``values`` to start with.
        spread: Values to the ``(outputs, inputs)`` matrix that they stand for.
    """

    weight: Tensor
    linear: Callable[[Tensor, Tensor | None], Tensor]
    scale: Tensor | None = None
    out_dtype: torch.dtype = torch.bfloat16
    values: Tensor | None = None
    trained: Callable[[Tensor, Tensor], Tensor] | None = None
    spread: Callable[[Tensor], Tensor] | None = None

    @property
    def nbytes(self) -> int:
        """About what it takes on the device: dense and packed."""
        return 2 * self.weight.nbytes


@dataclass(frozen=True)
class Variant:
    """One pattern of a family in one type.

    Attributes:
        name: As tables print it.
        dtype: Of activations and of the weight.
        density: Share of weights that are kept.
        make: Prunes and packs a dense ``(outputs, inputs)`` weight.
        peers: Names of :mod:`benchmarks.gpu.peers` that compute the same product.
        targets: Of a shape, empty where none was set.
        layers: ``(outputs, inputs)`` to time; the numbers of tokens beside it.
        tokens: See ``layers``.
        ragged: ``(outputs, inputs)`` that fit no tile, to check.
        differentiable: Whether gradients reach the input.
        values_are_trained: Whether they reach the values; then layers say how.
        block: Rows and columns of the pattern's blocks, for block-sparse peers.
        small: ``(outputs, inputs)`` for the emulator and the memory checker.
        kernels: Names of the kernels that its products choose among, the one for few tokens first.
        by_kernel: Numbers of tokens at which all of them are timed beside each other, to set the chooser by.
        capability: The first device that has any of its kernels.
        trained: ``(outputs, inputs, tokens)`` of forward and backward passes to time.
    """

    name: str
    dtype: torch.dtype
    density: float
    make: Callable[[Tensor], Layer]
    peers: tuple[str, ...]
    targets: Callable[[Shape], tuple[Target, ...]] = lambda shape: ()
    layers: tuple[tuple[int, int], ...] = ()
    tokens: tuple[int, ...] = ()
    ragged: tuple[int, int] = (1004, 1012)
    differentiable: bool = False
    values_are_trained: bool = False
    block: tuple[int, int] | None = None
    small: tuple[int, int] = (72, 136)
    kernels: tuple[str, ...] = ()
    by_kernel: tuple[int, ...] = ()
    capability: int = 80
    trained: tuple[tuple[int, int, int], ...] = ()

    @property
    def small_aligned(self) -> tuple[int, int]:
        """``small`` with rows that every kernel takes: a multiple of 16 bytes."""
        outputs, inputs = self.small
        return outputs, -(-inputs // 16) * 16

    def random(self, *shape: int, device: str, generator: torch.Generator) -> Tensor:
        """N(0, 1); of int8, 32 times that, rounded."""
        values = torch.randn(*shape, device=device, generator=generator)
        if self.dtype == torch.int8:
            return (32 * values).round().clamp(-127, 127).to(torch.int8)
        return values.to(self.dtype)

    def layer(self, outputs: int, inputs: int, device: str) -> Layer:
        """The same layer in every stage and process."""
        name = f"{self.name} {outputs} {inputs}"
        seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")

        def make() -> Layer:
            generator = torch.Generator(device).manual_seed(seed)
            return self.make(self.random(outputs, inputs, device=device, generator=generator))

        return LAYERS.get((self.name, outputs, inputs, device), make)


def capability_of(device: str) -> int:
    """As 80; the emulator is the newest."""
    if device != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def device_has(kernels: tuple[str, ...], device: str) -> tuple[str, ...]:
    """Of some kernels, those for the device at hand."""
    hopper = capability_of(device) == 90
    return tuple(name for name in kernels if hopper or not name.endswith("sm90"))


def asking_for(kernel: str, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same call by one kernel, or by whichever the chooser takes."""

    def forced(*arguments: object) -> Tensor:
        with sparsecore.cuda.use(kernel):
            return call(*arguments)

    return forced if kernel else call


@dataclass(frozen=True)
class Check:
    """Something that must hold.

    Attributes:
        name: What.
        holds: ``(device name, small)`` to "", or to a sentence on what is wrong.
    """

    name: str
    holds: Callable[[str, bool], str]


@dataclass(frozen=True)
class Prepared:
    """Work ready to be timed: ``calls`` in turns, ours under "ours".

    Attributes:
        answers: What calls may return, within 2 %, since peers leave out what they cannot do. Empty where calls write
            different things.
        notes: What has to be known about a call, by its name.
        facts: What the record keeps beside the times.
    """

    calls: dict[str, Call]
    operations: float = 0.0
    moved_bytes: float = 0.0
    answers: tuple[Tensor, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Something to time beside the layers; ``value`` 0 comes first."""

    name: str
    value: int
    prepare: Callable[[str, bool], Prepared]
    targets: tuple[Target, ...] = ()


class KeptLayers:
    """The layers made last: making one can take longer than all that is asked of it."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._layers: OrderedDict[tuple[object, ...], Layer] = OrderedDict()

    def get(self, key: tuple[object, ...], make: Callable[[], Layer]) -> Layer:
        if key not in self._layers:
            layer = make()
            while self._layers and layer.nbytes + self.nbytes > self._most_bytes:
                self._layers.popitem(last=False)
            self._layers[key] = layer
        self._layers.move_to_end(key)
        return self._layers[key]

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self._layers.values())

    def clear(self) -> None:
        self._layers.clear()


LAYERS = KeptLayers(8 << 30)


def packed_on_cpu(
    weight: Tensor,
    pattern: Pattern,
    layout: str,
    *,
    sparsity: float | None = None,
    dtype: torch.dtype | None = None,
) -> PackedWeight:
    """Packs where the CPU does it, which takes seconds, and brings the result to the weight's device.

    Where ``SPARSECORE_VISIT_LAYERS`` names a folder, results are kept there for the next process.
    """
    dense = weight.cpu()
    packed: PackedWeight | None = None
    folder, path = os.environ.get("SPARSECORE_VISIT_LAYERS"), None
    if folder:
        key = hashlib.blake2b(
            f"{layout} {pattern} {sparsity} {dtype} {dense.dtype} {tuple(dense.shape)}".encode()
        )
        key.update(dense.view(torch.uint8).numpy())
        path = Path(folder) / f"{key.hexdigest()[:24]}.packed"
        if path.exists():
            packed = torch.load(path, weights_only=False)
    if packed is None:
        packed = sparsecore.pack(dense, pattern, sparsity=sparsity, dtype=dtype, layout=layout)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(f".{os.getpid()}")
            torch.save(packed, unfinished)
            unfinished.replace(path)
    return replace(packed, **{name: tensor.to(weight.device) for name, tensor in packed.tensors().items()})


@dataclass(frozen=True)
class Family:
    """One family of kernels.

    Attributes:
        operators: What must have CUDA kernels; the visit leaves families out that were not built.
    """

    name: str
    operators: tuple[str, ...]
    variants: tuple[Variant, ...]
    checks: tuple[Check, ...] = ()
    tasks: tuple[Task, ...] = ()

    def built(self, device: str) -> bool:
        key = torch._C._dispatch_key_for_device(device)
        return all(
            torch._C._dispatch_has_kernel_for_dispatch_key(f"sparsecore::{name}", key)
            for name in self.operators
        )

    def variants_on(self, device: str) -> tuple[Variant, ...]:
        """Those that have a kernel there."""
        return tuple(variant for variant in self.variants if variant.capability <= capability_of(device))


def relative_error(got: Tensor, expected: Tensor) -> float:
    """In float64; infinite where anything is not finite."""
    got, expected = got.double(), expected.double()
    if not bool(torch.isfinite(got).all()):
        return float("inf")
    return float((got - expected).norm() / expected.norm().clamp(min=1e-30))


def every(checks: Iterable[tuple[bool, str]]) -> str:
    """The first sentence whose condition does not hold."""
    return next((sentence for holds, sentence in checks if not holds), "")
