"""What a family of CUDA kernels tells the visit: how its layers are made, what more to check, what more to time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

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
    """How many times as fast as a peer: what has to be, and what is close to the limit."""

    against: str
    must: float
    stretch: float


@dataclass(frozen=True)
class Layer:
    """A packed layer on the device.

    Attributes:
        weight: ``(outputs, inputs)``, the matrix it stands for, zeros included.
        linear: ``(x, bias)`` to ``x @ weight.T``, scaled, plus bias. ``bias`` may be None.
        scale: ``(outputs,)`` float32, of 8-bit weights.
        out_dtype: What ``linear`` writes.
    """

    weight: Tensor
    linear: Callable[[Tensor, Tensor | None], Tensor]
    scale: Tensor | None = None
    out_dtype: torch.dtype = torch.bfloat16


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
        block: Rows and columns of the pattern's blocks, for block-sparse peers.
        small: ``(outputs, inputs)`` for the emulator and the memory checker.
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
    block: tuple[int, int] | None = None
    small: tuple[int, int] = (72, 136)

    def random(self, *shape: int, device: str, generator: torch.Generator) -> Tensor:
        """N(0, 1); of int8, 32 times that, rounded."""
        values = torch.randn(*shape, device=device, generator=generator)
        if self.dtype == torch.int8:
            return (32 * values).round().clamp(-127, 127).to(torch.int8)
        return values.to(self.dtype)


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
        answers: What each call that writes a product must return, within 2 %; None where they write different things.
        notes: What has to be known about a call, by its name.
    """

    calls: dict[str, Call]
    operations: float = 0.0
    moved_bytes: float = 0.0
    answers: Tensor | None = None
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Something to time beside the layers; ``value`` 0 comes first."""

    name: str
    value: int
    prepare: Callable[[str, bool], Prepared]
    targets: tuple[Target, ...] = ()


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


def relative_error(got: Tensor, expected: Tensor) -> float:
    """In float64; infinite where anything is not finite."""
    got, expected = got.double(), expected.double()
    if not bool(torch.isfinite(got).all()):
        return float("inf")
    return float((got - expected).norm() / expected.norm().clamp(min=1e-30))


def every(checks: Iterable[tuple[bool, str]]) -> str:
    """The first sentence whose condition does not hold."""
    return next((sentence for holds, sentence in checks if not holds), "")
