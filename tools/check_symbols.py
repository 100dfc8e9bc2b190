"""Proves from the binaries what each library depends on.

    python tools/check_symbols.py FOLDER [TORCH_LIB_FOLDER]

``libsparsecore``        the kernels: neither torch nor Python.
``libsparsecore_torch``  the operators: from torch only the C functions of its stable ABI, which keep their
                         names and meaning across releases; no C++ symbol of torch, none of Python.
``_C``                   introspection: Python, and nothing of torch.

With a second folder, the torch there must have every C function that the operators name, called or not.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SYSTEM = re.compile(r"(lib(sparsecore|stdc\+\+|gcc_s|c|m|dl|pthread|rt)|ld-linux[-\w]*|linux-vdso)\.so")
TORCH_LIBRARY = re.compile(r"lib(torch|torch_cpu)\.so")
STABLE_SHIM = re.compile(r"(aoti_torch|torch)_[a-z0-9_]+")
PYTHON = re.compile(r"_?Py[A-Z_]\w*")
# Mangled names of torch's namespaces, at the front or inside a template argument.
TORCH_CXX = re.compile(r"_Z\w*?(2at|3c10|5torch|6caffe2)\w*")


def symbols(library: Path, which: str) -> set[str]:
    """Strong names in the dynamic table of ``library``, without versions; ``which`` is nm's flag that selects."""
    table = subprocess.run(["nm", "-D", which, library], check=True, capture_output=True, text=True)
    rows = (line.split() for line in table.stdout.splitlines())
    return {row[-1].partition("@")[0] for row in rows if row[-2] not in "wv"}


def undefined_symbols(library: Path) -> set[str]:
    """What ``library`` expects from elsewhere."""
    return symbols(library, "--undefined-only")


def needed_libraries(library: Path) -> set[str]:
    """The libraries that the loader opens for ``library``."""
    table = subprocess.run(["readelf", "-dW", library], check=True, capture_output=True, text=True)
    return set(re.findall(r"\(NEEDED\).*\[(.*)\]", table.stdout))


def complaints(library: Path) -> Iterator[str]:
    """What ``library`` depends on and should not."""
    operators = library.name.startswith("libsparsecore_torch")
    introspection = library.name.startswith("_C")
    for name in sorted(needed_libraries(library)):
        if not (SYSTEM.match(name) or (operators and TORCH_LIBRARY.match(name))):
            yield f"{library.name}: needs {name}"
    for symbol in sorted(undefined_symbols(library)):
        if TORCH_CXX.fullmatch(symbol):
            yield f"{library.name}: imports torch's C++ symbol {symbol}"
        elif STABLE_SHIM.fullmatch(symbol) and not operators:
            yield f"{library.name}: imports torch's {symbol}"
        elif PYTHON.fullmatch(symbol) and not introspection:
            yield f"{library.name}: imports Python's {symbol}"


def main() -> int:
    folder = Path(sys.argv[1])
    libraries = sorted([*folder.rglob("libsparsecore*.so"), *folder.rglob("_C*.so")])
    expected = {"libsparsecore.so", "libsparsecore_torch.so"}
    absent = expected - {library.name for library in libraries}
    found = [f"{folder} holds no {name}" for name in sorted(absent)]
    for library in libraries:
        found += complaints(library)
        shims = sorted(symbol for symbol in undefined_symbols(library) if STABLE_SHIM.fullmatch(symbol))
        if shims and len(sys.argv) > 2:
            offered = symbols(Path(sys.argv[2]) / "libtorch_cpu.so", "--defined-only")
            found += [f"{library.name}: this torch has no {shim}" for shim in shims if shim not in offered]
        links = f"{len(shims)} stable C functions of torch" if shims else "free of torch"
        print(f"{library.name}: {links}")
    print("\n".join(found) or "symbols as they should be")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
