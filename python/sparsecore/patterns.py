"""Patterns: which weights of a matrix may be kept together. Small values that say nothing about how much is kept.

``n`` is always the number of weights **kept**, and a mask is True where a weight is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias


def _require_int(owner: str, name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{owner}: {name} must be an int, got {type(value).__name__}.")
    if not low <= value <= high:
        allowed = str(low) if low == high else f"between {low} and {high}"
        raise ValueError(f"{owner}: {name} must be {allowed}, got {value}.")


@dataclass(frozen=True, repr=False)
class NM:
    """Keeps ``n`` of every ``m`` neighbouring inputs.

    With ``vector=1`` each output channel chooses for itself; with ``vector=V`` each run of V neighbouring output
    channels shares one choice, which is faster and coarser. A row's last group may be short, when ``m`` does not
    divide the number of inputs: it then keeps at most ``n``.

    Attributes:
        n: Weights kept of each group, ``1 <= n < m``.
        m: Group length along the inputs, 2 to 32.
        vector: Output channels that share a choice: 1, or 4, 8, 16, 32, 64.
        two_way: Whether at most two of every four neighbouring outputs are kept as well, of ``NM(2, 4)`` alone: the
            transposed weight is 2:4 too, so that training skips zeros in both directions. Chosen from the largest on, a
            tile of 4 x 4 weights may end with fewer than eight. Source: Hubara et al. 2021 (transposable masks).
    """

    n: int
    m: int
    vector: int = 1
    two_way: bool = False

    def __post_init__(self) -> None:
        _require_int("NM", "m", self.m, 2, 32)
        _require_int("NM", "n", self.n, 1, 32)
        _require_int("NM", "vector", self.vector, 1, 64)
        if self.n >= self.m:
            raise ValueError(
                f"NM: n is the number of weights kept of every m, so n < m; got n={self.n}, m={self.m}."
            )
        if self.vector not in (1, 4, 8, 16, 32, 64):
            raise ValueError(f"NM: vector must be 1, 4, 8, 16, 32 or 64, got {self.vector}.")
        if not isinstance(self.two_way, bool):
            raise TypeError(f"NM: two_way must be a bool, got {type(self.two_way).__name__}.")
        if self.two_way and (self.n, self.m, self.vector) != (2, 4, 1):
            raise ValueError(
                f"NM: two_way is for NM(2, 4) with vector=1, got n={self.n}, m={self.m}, vector={self.vector}."
            )

    def __repr__(self) -> str:
        shared = f", vector={self.vector}" if self.vector > 1 else ""
        return f"NM({self.n}, {self.m}{shared}{', two_way=True' if self.two_way else ''})"

    def __str__(self) -> str:
        words = f"{self.n}:{self.m} (keeps {self.n} of every {self.m}"
        if self.two_way:
            return words + ", along inputs and along outputs)"
        return words + (f", shared by {self.vector} outputs)" if self.vector > 1 else ")")


@dataclass(frozen=True, repr=False)
class VNM:
    """V:N:M: runs of ``vector`` outputs pick four of every ``m`` inputs, and each output keeps two of these.

    Sparse tensor cores multiply it at sparsities beyond 2:4: ``n / m`` of the weights are kept. A last group of inputs
    or a last run of outputs may be short. Source: VENOM (Castro et al. 2023).

    Attributes:
        vector: Output channels that pick together: 16, 32, 64 or 128.
        n: Weights kept of each group: 2.
        m: Group length along the inputs, 5 to 64. Of four the pick is all, which is ``NM(2, 4)``.
    """

    vector: int
    n: int
    m: int

    def __post_init__(self) -> None:
        _require_int("VNM", "n", self.n, 2, 2)
        _require_int("VNM", "m", self.m, 5, 64)
        _require_int("VNM", "vector", self.vector, 16, 128)
        if self.vector not in (16, 32, 64, 128):
            raise ValueError(f"VNM: vector must be 16, 32, 64 or 128, got {self.vector}.")

    def __repr__(self) -> str:
        return f"VNM({self.vector}, {self.n}, {self.m})"

    def __str__(self) -> str:
        return f"{self.vector}:{self.n}:{self.m} ({self.n} of the 4 of every {self.m} that {self.vector} outputs pick)"


@dataclass(frozen=True, repr=False)
class Unstructured:
    """Any weight may be kept or dropped on its own."""

    def __repr__(self) -> str:
        return "Unstructured()"

    def __str__(self) -> str:
        return "unstructured (any weight)"


@dataclass(frozen=True, repr=False)
class Group:
    """Keeps or drops ``rows`` x ``cols`` weights together.

    ``Group(4, 1)`` is four output channels of one input, ``Group(1, 16)`` sixteen inputs of one output channel,
    ``Group(4, 4)`` a block. Groups at the right and lower edge of a matrix may be cut off. Of a convolution the matrix
    is ``(out_channels, kernel positions * in_channels)``, input channels innermost.

    Attributes:
        rows: Neighbouring output channels of a group: 1, 2, 4, 8, 16 or 32; 64 where ``cols`` is 1; 64 or 128 of a
            square block.
        cols: Neighbouring inputs of a group: 1, 2, 4, 8, 16 or 32; 64 or 128 of a square block.
    """

    rows: int
    cols: int = 1

    def __post_init__(self) -> None:
        _require_int("Group", "rows", self.rows, 1, 128)
        _require_int("Group", "cols", self.cols, 1, 128)
        for name, value in (("rows", self.rows), ("cols", self.cols)):
            long = value > 32 and self.rows != self.cols and (self.rows, self.cols) != (64, 1)
            if value & (value - 1) or long:
                longest = "1, 2, 4, 8, 16 or 32" + (", or 64 with cols=1" if name == "rows" else "")
                longest += ", or 64 or 128 of a square block"
                below = min(1 << (value.bit_length() - 1), 32)
                raise ValueError(
                    f"Group: {name} must be {longest}, got {value}. The nearest below is {below}."
                )
        if self.rows == self.cols == 1:
            raise ValueError("Group: a group of 1 x 1 is a single weight. Use Unstructured().")

    def __repr__(self) -> str:
        return f"Group({self.rows}, {self.cols})"

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols} groups (kept or dropped together)"


@dataclass(frozen=True, repr=False)
class Channel:
    """Keeps or drops whole channels, so that a smaller dense product is left.

    Attributes:
        side: ``"out"`` for output channels (rows of the weight), ``"in"`` for inputs (columns).
    """

    side: Literal["out", "in"] = "out"

    def __post_init__(self) -> None:
        if self.side not in ("out", "in"):
            raise ValueError(f"Channel: side must be 'out' or 'in', got {self.side!r}.")

    def __repr__(self) -> str:
        return f"Channel({self.side!r})"

    def __str__(self) -> str:
        return f"whole {'output' if self.side == 'out' else 'input'} channels"


@dataclass(frozen=True, repr=False)
class VariableNM:
    """Blocks of 16 outputs x 16 inputs, each with its own N: how many of its 16 inputs every row of a block keeps.

    N is 0, 2, 4, 8 or 16, the least that holds what is kept. Outputs and inputs must be multiples of 16. Source:
    FlightLLM (Zeng et al. 2024).

    Attributes:
        block: Rows and columns of a block: 16.
    """

    block: int = 16

    def __post_init__(self) -> None:
        _require_int("VariableNM", "block", self.block, 16, 16)

    def __repr__(self) -> str:
        return "VariableNM()"

    def __str__(self) -> str:
        return "N:16 with an N for each 16x16 block"


Pattern: TypeAlias = NM | VNM | Unstructured | Group | Channel | VariableNM


def fixed_sparsity(value: object) -> float | None:
    """The fraction of zeros that a pattern fixes, or None where it leaves it open."""
    return 1.0 - value.n / value.m if isinstance(value, (NM, VNM)) else None


def pattern(spec: str | Pattern) -> Pattern:
    """A pattern from its short name.

    Args:
        spec: ``"2:4"``, ``"2:4/16"`` (shared by 16 outputs), ``"2:4-two-way"`` (of inputs and of outputs),
            ``"64:2:8"`` (two of the four of every 8 inputs that 64 outputs pick), ``"16x1"`` or ``"4x4"`` (groups of
            outputs x inputs), ``"unstructured"``, ``"channels"`` (of the output), ``"inputs"``, ``"n:16"`` (an N for
            each 16 x 16 block),
            or a pattern.

    Raises:
        ValueError: The name is none of these.
    """
    if isinstance(spec, (NM, VNM, Unstructured, Group, Channel, VariableNM)):
        return spec
    if not isinstance(spec, str):
        raise TypeError(f"pattern: needs a pattern or its name, got {type(spec).__name__}.")
    text = spec.strip().lower()
    if text == "unstructured":
        return Unstructured()
    if text == "n:16":
        return VariableNM()
    if text == "2:4-two-way":
        return NM(2, 4, two_way=True)
    if text in ("channels", "inputs"):
        return Channel("out" if text == "channels" else "in")
    if found := re.fullmatch(r"(\d+):(\d+)(?:/(\d+))?", text):
        return NM(int(found[1]), int(found[2]), int(found[3] or 1))
    if found := re.fullmatch(r"(\d+):(\d+):(\d+)", text):
        return VNM(int(found[1]), int(found[2]), int(found[3]))
    if found := re.fullmatch(r"(\d+)x(\d+)", text):
        return Group(int(found[1]), int(found[2]))
    raise ValueError(
        f'pattern: {spec!r} is none of "2:4", "2:4/16", "2:4-two-way", "64:2:8", "16x1", "4x4", "unstructured", '
        '"channels", "inputs", "n:16".'
    )


def pattern_name(value: Pattern) -> str:
    """The short name that :func:`pattern` reads back."""
    if isinstance(value, NM):
        return f"{value.n}:{value.m}" + (
            "-two-way" if value.two_way else f"/{value.vector}" * (value.vector > 1)
        )
    if isinstance(value, VNM):
        return f"{value.vector}:{value.n}:{value.m}"
    if isinstance(value, Channel):
        return "channels" if value.side == "out" else "inputs"
    if isinstance(value, VariableNM):
        return "n:16"
    return f"{value.rows}x{value.cols}" if isinstance(value, Group) else "unstructured"
