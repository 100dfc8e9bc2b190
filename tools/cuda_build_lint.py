"""Reads what ptxas said while the CUDA kernels were built, and fails on what makes a kernel slow but not wrong.

    python tools/cuda_build_lint.py record nvcc ARGUMENTS...       run the compiler, keep its log beside the object
    python tools/cuda_build_lint.py check LOGS... --sources FOLDERS...

Wrong are: register spills and stack frames; any advisory of the C7000s (setmaxnreg ignored, wgmma serialised, waits
or arrivals injected, forms that newer devices run slowly) and any warning; more registers or static shared memory than
a kernel's budget; a kernel without one. A budget stands in a comment beside the kernel, for all its instantiations:

    // Budget of sm90::matmul: 168 registers.
    // Budget of reduce on sm_80: 32 registers, 1024 bytes of shared memory, 64 bytes of stack, 128 bytes of spills.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BUDGET = re.compile(
    r"Budget of ([\w:]+(?: on \w+)?): (\d+) registers(?:, (\d+) bytes of shared memory)?"
    r"(?:, (\d+) bytes of stack)?(?:, (\d+) bytes of spills)?\."
)
ADVISORY = re.compile(r"ptxas (?:info|warning)\s*:\s*\((C7\d{3})\) (.*)")
WARNING = re.compile(r"ptxas warning\s*:\s*(?!\(C7)(.*)")
ENTRY = re.compile(r"Compiling entry function '([^']+)' for '(\w+)'")
PROPERTIES = re.compile(r"Function properties for (\S+)")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(.*)")
SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True)
class Budget:
    """What one kernel may use."""

    registers: int
    shared_bytes: int = 0
    stack_bytes: int = 0
    spilled_bytes: int = 0


@dataclass
class Kernel:
    """What one instantiation uses on one architecture."""

    name: str
    architecture: str
    registers: int = 0
    shared_bytes: int = 0
    stack_bytes: int = 0
    spilled_bytes: int = 0


def function_name(mangled: str) -> str:
    """A function and the namespace around it: ``_ZN2ns5inner3fooILi4EEEvPf`` is ``inner::foo``, ``_Z3barv`` ``bar``."""
    if not (match := re.match(r"_ZL?(N?)", mangled)):
        return mangled
    at, names = match.end(), []
    while length := re.match(r"\d+", mangled[at:]):
        at += length.end()
        names.append(mangled[at : at + int(length[0])])
        at += int(length[0])
        if not match[1]:
            break
    names = [name for name in names if not name.startswith("_GLOBAL__N_")]
    return "::".join(names[-2:]) or mangled


def read_budgets(text: str) -> dict[str, Budget]:
    """The budgets that a source file declares, by kernel."""
    return {
        match[1]: Budget(*(int(number or 0) for number in match.groups()[1:]))
        for match in BUDGET.finditer(text)
    }


def read_log(text: str) -> tuple[list[Kernel], list[str]]:
    """The kernels of a build log, and the compiler's own complaints."""
    kernels: list[Kernel] = []
    complaints: list[str] = []
    entry = function = ""
    for line in text.splitlines():
        if match := ADVISORY.search(line):
            complaints.append(f"{match[1]}: {match[2]}")
        elif match := WARNING.search(line):
            complaints.append(f"warning: {match[1]}")
        elif match := ENTRY.search(line):
            entry = match[1]
            kernels.append(Kernel(function_name(entry), match[2]))
        elif match := PROPERTIES.search(line):
            function = match[1]
        elif match := FRAME.search(line):
            stack, spilled = int(match[1]), int(match[2]) + int(match[3])
            if kernels and function == entry:
                kernels[-1].stack_bytes, kernels[-1].spilled_bytes = stack, spilled
            elif spilled:
                complaints.append(
                    f"{function_name(function)}, a function that is called: spills {spilled} bytes"
                )
        elif kernels and (match := USED.search(line)):
            kernels[-1].registers = int(match[1])
            if shared := SHARED.search(match[2]):
                kernels[-1].shared_bytes = int(shared[1])
    return kernels, complaints


def budget_of(kernel: Kernel, budgets: dict[str, Budget]) -> Budget | None:
    """The most special budget: of the architecture first, of ``namespace::kernel`` before every ``kernel``."""
    short = kernel.name.rpartition("::")[2]
    keys = [f"{name} on {kernel.architecture}" for name in (kernel.name, short)] + [kernel.name, short]
    return next((budgets[key] for key in keys if key in budgets), None)


def check(kernels: list[Kernel], complaints: list[str], budgets: dict[str, Budget] | None) -> list[str]:
    """Everything that is wrong, one sentence each. Without budgets only spills, stack and complaints are."""
    wrong = list(complaints)
    for kernel in kernels:
        place = f"{kernel.name} on {kernel.architecture}"
        if kernel.registers == 0:
            wrong.append(f"{place}: the log does not say how many registers it uses")
        budget = Budget(255) if budgets is None else budget_of(kernel, budgets)
        if budget is None:
            wrong.append(
                f"{place}: no budget. Say beside it: // Budget of {kernel.name}: {kernel.registers} registers."
            )
            continue
        if kernel.spilled_bytes > budget.spilled_bytes:
            wrong.append(f"{place}: spills {kernel.spilled_bytes} bytes")
        if kernel.registers > budget.registers:
            wrong.append(f"{place}: {kernel.registers} registers, and its budget is {budget.registers}")
        if kernel.shared_bytes > budget.shared_bytes:
            wrong.append(
                f"{place}: {kernel.shared_bytes} bytes of static shared memory, and its budget is "
                f"{budget.shared_bytes}"
            )
        if kernel.stack_bytes > budget.stack_bytes:
            wrong.append(
                f"{place}: {kernel.stack_bytes} bytes of stack, and its budget is {budget.stack_bytes}"
            )
    return wrong


def record(command: list[str]) -> int:
    """Runs the compiler and keeps its log as ``<object>.ptxas.txt``; shows it only when the compiler fails."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode != 0 or "-o" not in command:
        sys.stderr.write(result.stdout)
    else:
        Path(command[command.index("-o") + 1] + ".ptxas.txt").write_text(result.stdout)
    return result.returncode


def main() -> int:
    if sys.argv[1:2] == ["record"]:
        return record(sys.argv[2:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["check"])
    parser.add_argument("logs", nargs="+", type=Path, help="log files, or folders of them")
    parser.add_argument("--sources", nargs="*", type=Path, help="folders whose comments hold the budgets")
    arguments = parser.parse_args()

    budgets: dict[str, Budget] | None = None
    if arguments.sources is not None:
        budgets = {}
        for folder in arguments.sources:
            for source in sorted(folder.rglob("*.cu*")):
                budgets |= read_budgets(source.read_text())
    logs = [
        log for path in arguments.logs for log in ([path] if path.is_file() else path.rglob("*.ptxas.txt"))
    ]
    if not logs:
        print(f"cuda_build_lint: no *.ptxas.txt in {', '.join(map(str, arguments.logs))}. Build first.")
        return 1
    count, failed = 0, False
    for log in sorted(logs):
        kernels, complaints = read_log(log.read_text())
        count += len(kernels)
        for sentence in check(kernels, complaints, budgets):
            print(f"{log.name.removesuffix('.o.ptxas.txt')}: {sentence}")
            failed = True
    print(
        f"cuda_build_lint: {count} kernels in {len(logs)} logs, {'not ' if failed else ''}as they should be"
    )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
