"""The instruction sets of this machine, and a cap on the ones the kernels use."""

from __future__ import annotations

from types import ModuleType, TracebackType

from sparsecore._library import introspection


def _module() -> ModuleType:
    if introspection is None:
        raise ImportError(
            "sparsecore.cpu needs the module sparsecore._C, which was not built for this Python. "
            "Operators work without it; set SPARSECORE_ISA in the environment to cap the instruction set."
        )
    return introspection


def isa() -> str:
    """The best instruction set kernels may use now, ``"avx512_bf16"`` say."""
    return str(_module().current_isa())


def available() -> tuple[str, ...]:
    """What this machine can run, ``"scalar"`` first."""
    return tuple(_module().available_isas())


class use:
    """Caps the instruction set, for the process: as a call, or for the length of a ``with`` block.

    Args:
        name: One of :func:`available`.

    Raises:
        ValueError: This machine has no such instruction set.
    """

    def __init__(self, name: str) -> None:
        self._before = isa()
        _module().set_isa_cap(name)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _module().set_isa_cap(self._before)
