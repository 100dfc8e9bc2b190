"""Lets a CUDA build of torch be imported on a machine without CUDA, to test against it on the CPU.

    python tools/cuda_stubs.py TORCH_LIB_FOLDER OUTPUT_FOLDER

Some torch releases are at hand with CUDA only, and want gigabytes of CUDA libraries beside them before a
single CPU tensor can be made. This writes an empty one of each: every function that torch's libraries name is
there, under the version they name, and reports an error. Put OUTPUT_FOLDER on LD_LIBRARY_PATH.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

CUDA_LIBRARY = re.compile(r"lib(cu|nv|nccl)")
CUDA_SYMBOL = re.compile(r"_{0,2}(cu|nv|nccl)")
ERROR_NO_DEVICE = "100"
# Kernel registration happens while the library loads and must look as if it had worked.
REGISTRATION = re.compile(r"__cuda(Register|Unregister|Init)")


@dataclass
class Wanted:
    """What a folder of libraries expects from libraries outside it."""

    versions: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    symbols: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def read_wanted(libraries: list[Path]) -> Wanted:
    """Collects the versions wanted of each file, and the symbols wanted of each version ("" for none)."""
    wanted, defined = Wanted(), set()
    for library in libraries:
        file = ""
        dump = subprocess.run(["readelf", "-dVW", library], check=True, capture_output=True, text=True).stdout
        for line in dump.splitlines():
            if match := re.search(r"\(NEEDED\).*\[(.*)\]", line):
                wanted.versions[match[1]]
            elif match := re.search(r"File: (\S+)", line):
                file = match[1]
            elif file and (match := re.search(r"Name: (\S+)\s+Flags", line)):
                wanted.versions[file].add(match[1])
        table = subprocess.run(["nm", "-D", library], check=True, capture_output=True, text=True).stdout
        for row in map(str.split, table.splitlines()):
            name, _, version = row[-1].partition("@")
            if row[-2] == "U":
                wanted.symbols[version].add(name)
            else:
                defined.add(name)
    wanted.symbols[""] = {name for name in wanted.symbols[""] - defined if CUDA_SYMBOL.match(name)}
    return wanted


def write_stub(path: Path, versions: dict[str, set[str]], extra: set[str]) -> None:
    """Compiles a shared library with the symbols of each version and the unversioned ``extra`` ones."""
    names = sorted(extra.union(*versions.values()))
    source = ["static long handle;"]
    for name in names:
        value = "(long)&handle" if REGISTRATION.match(name) else ERROR_NO_DEVICE
        source.append(f"long {name}(void) {{ return {value}; }}")
    script = [
        f"{version} {{ global: {' '.join(f'{name};' for name in sorted(versions[version]))} }};"
        for version in versions
    ]
    path.with_suffix(".c").write_text("\n".join(source))
    path.with_suffix(".map").write_text("\n".join(script))
    command = [
        "cc",
        "-w",
        "-fno-builtin",
        "-shared",
        "-fPIC",
        path.with_suffix(".c"),
        "-o",
        path,
        f"-Wl,-soname,{path.name}",
    ]
    if versions:
        command.append(f"-Wl,--version-script={path.with_suffix('.map')}")
    subprocess.run(command, check=True)


def main() -> None:
    torch_lib, output = map(Path, sys.argv[1:])
    output.mkdir(parents=True, exist_ok=True)
    libraries = sorted(torch_lib.glob("lib*.so*"))
    present = {library.name for library in libraries}
    wanted = read_wanted(libraries)
    unversioned = wanted.symbols[""]
    for file in sorted(set(wanted.versions) - present):
        if CUDA_LIBRARY.match(file):
            versions = {version: wanted.symbols[version] for version in sorted(wanted.versions[file])}
            # Any library may answer an unversioned symbol; all of them go into the first.
            write_stub(output / file, versions, unversioned)
            unversioned = set()


if __name__ == "__main__":
    main()
