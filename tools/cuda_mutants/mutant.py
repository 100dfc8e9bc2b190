"""One edit of one kernel's source, and the family that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`old` becomes `new` at its `place`-th occurrence (from 0) in a file; `kernel` is the test's macro.

    `further` are edits of the same file that belong to it, each of a text that stands there once.
    """

    kernel: str
    file: str
    what: str
    old: str
    new: str = ""
    place: int = 0
    further: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Kernel:
    """A kernel of a family: ``-DKERNEL_{name}`` builds its test, and most of its mutants change one file."""

    name: str
    file: str

    def mutant(
        self,
        what: str,
        old: str,
        new: str = "",
        place: int = 0,
        file: str | None = None,
        further: tuple[tuple[str, str], ...] = (),
    ) -> Mutant:
        return Mutant(self.name, file or self.file, what, old, new, place, further)


@dataclass(frozen=True)
class Family:
    """A family of kernels, tested by csrc/cuda/tests/mutations/{name}.cpp."""

    name: str
    support: tuple[str, ...]  # host sources that the test needs beside the emulator
    mutants: tuple[Mutant, ...]
    # Harmless on the emulator, and why they stand in the source all the same.
    uncatchable: tuple[tuple[Mutant, str], ...]

    @property
    def test(self) -> str:
        return f"cuda/tests/mutations/{self.name}.cpp"
