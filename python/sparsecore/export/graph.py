"""What a model is between torch's graph and a network file: a list of steps over values, with dense weights.

Values and steps are compared by identity. Steps are in an order of execution, and every value is written by one step or
is an input. Operators are those of the network file, and ``affine``: ``y[c] = scale[c] * x[c] + shift[c]``, which batch
norm and arithmetic with constants become until a weight takes it in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

# Operators that end in an activation of their own.
ACTIVATED = ("conv", "stem", "depthwise", "linear", "add", "scale")


@dataclass(eq=False)
class Value:
    """What one step writes: ``(channels, height, width)`` or ``(features,)``, for every image of a batch."""

    shape: tuple[int, ...]


@dataclass(eq=False)
class Step:
    """One operator.

    Attributes:
        op: Of the network file, or ``affine``.
        reads: The operands, ``x`` first. A residual is the second of a ``conv``.
        writes: The result.
        options: What the file says beside the values: ``kernel``, ``stride``, ``padding``, ``dilation`` and so on.
        tensors: Dense float32 weights by suffix; of ``conv``, ``stem`` and ``depthwise`` as torch has them.
        weight: Name of the weight in the file, usually the module's; empty where there is none.
        groups: Of a ``conv``.
        block: ``(rows, cols)`` where a layer says its pattern; None: found from the zeros.
    """

    op: str
    reads: list[Value]
    writes: Value
    options: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    weight: str = ""
    groups: int = 1
    block: tuple[int, int] | None = None

    @property
    def activation(self) -> str:
        """What is applied to the result, ``"none"`` where nothing is."""
        return str(self.options.get("activation", "none"))


@dataclass(eq=False)
class Graph:
    """A network: named inputs and outputs, and the steps between them."""

    inputs: list[tuple[str, Value]] = field(default_factory=list)
    outputs: list[tuple[str, Value]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    def producer(self, value: Value) -> Step | None:
        """The step that writes a value; None for an input."""
        return next((step for step in self.steps if step.writes is value), None)

    def only_reader(self, value: Value) -> Step | None:
        """The one step that reads a value; None where several do, or where it leaves the network."""
        readers = [step for step in self.steps if any(read is value for read in step.reads)]
        leaves = any(output is value for _, output in self.outputs)
        return readers[0] if len(readers) == 1 and not leaves else None

    def remove(self, steps: Iterable[Step]) -> None:
        """Takes steps out."""
        gone = {id(step) for step in steps}
        self.steps = [step for step in self.steps if id(step) not in gone]

    def remove_unread(self) -> None:
        """Drops the steps on whose results no output depends."""
        needed = {id(value) for _, value in self.outputs}
        kept: list[Step] = []
        for step in reversed(self.steps):
            if id(step.writes) in needed:
                needed.update(id(value) for value in step.reads)
                kept.append(step)
        self.steps = kept[::-1]
