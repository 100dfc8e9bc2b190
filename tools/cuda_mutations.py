"""Breaks the CUDA kernels, one line at a time, and demands that the emulator notices.

Each mutant removes or reorders a wait, a barrier, a fence, a bound check or a bit of metadata by a marked edit of a
kernel's source, is compiled with the small test of that kernel (csrc/cuda/tests/mutations) and has to fail it. A mutant
that survives, an edit whose text is no longer in the source, and a kernel that fails unbroken are errors. What no run
of this emulator can notice is listed as uncatchable with the reason, and has to survive: should it be caught one
day, it belongs into the other list.

    python tools/cuda_mutations.py               every mutant
    python tools/cuda_mutations.py --seconds 60  as many as fit, spread over the kernels; others for each commit
    python tools/cuda_mutations.py --family semi_structured --kernel TILED
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cuda_mutants import FAMILIES, Family, Mutant

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "csrc"
FLAGS = ["-std=c++20", "-O1", "-g1", "-fno-omit-frame-pointer", "-ffp-contract=off", "-w"]


def mutated(mutant: Mutant) -> str:
    text = (SOURCES / mutant.file).read_text()

    def pieces(old: str) -> list[str]:
        parts = text.split(old)
        if len(parts) == 1:
            raise SystemExit(f"{mutant.file}: the text of mutant '{mutant.what}' is not there: {old!r}")
        return parts

    for old, new in mutant.further:
        text = new.join(pieces(old))
    parts = pieces(mutant.old)
    if len(parts) - 1 <= mutant.place:
        raise SystemExit(f"{mutant.file}: mutant '{mutant.what}' has no place {mutant.place}: {mutant.old!r}")
    at = mutant.place + 1
    return mutant.old.join(parts[:at]) + mutant.new + mutant.old.join(parts[at:])


def turn(count: int) -> int:
    """A number below ``count`` that follows from the commit, 0 where there is none."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return int(found.stdout.strip() or "0", 16) % count


def spread(mutants: Sequence[tuple[Family, Mutant]], first: int) -> list[tuple[Family, Mutant]]:
    """The same mutants in an order whose every beginning is spread over the kernels, four of a kernel at a time.

    A kernel's unbroken test is built once, so that one mutant of each would cost twice as much.
    """
    of_kernel: dict[tuple[str, str], list[tuple[Family, Mutant]]] = {}
    for family, mutant in mutants:
        of_kernel.setdefault((family.name, mutant.kernel), []).append((family, mutant))
    handfuls = []
    for found in of_kernel.values():
        count = -(-len(found) // 4)
        handfuls += [found[i::count] for i in range(count)]
    step = next(s for s in range(round(0.618 * len(handfuls)), 0, -1) if math.gcd(s, len(handfuls)) == 1)
    places = ((first + i * step) % len(handfuls) for i in range(len(handfuls)))
    return [pair for place in places for pair in handfuls[place]]


def processor_seconds() -> float:
    """Of all compilers and tests that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compiler() -> str:
    return os.environ.get("CXX", "c++")


def build_support(folder: Path) -> list[Path]:
    """The emulator and the host code that the tests use, once for all mutants."""
    sources = [*sorted((SOURCES / "cuda/emulation").rglob("*.cpp")), SOURCES / "cpu/status.cpp"]
    sources += [SOURCES / name for name in sorted({name for family in FAMILIES for name in family.support})]
    objects = [folder / f"support_{i}.o" for i in range(len(sources))]

    def compile_one(pair: tuple[Path, Path]) -> None:
        source, out = pair
        includes = [f"-I{SOURCES}", f"-I{SOURCES / 'include'}"]
        subprocess.run([compiler(), *FLAGS, "-O2", *includes, "-c", source, "-o", out], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, zip(sources, objects, strict=True)))
    return objects


def run(
    family: Family, mutant: Mutant | None, kernel: str, folder: Path, objects: list[Path], name: str
) -> tuple[int, str]:
    """Exit status of the kernel's test and what it said; the changed file is found before the one in the tree."""
    overlay = folder / name
    includes = [f"-I{SOURCES}", f"-I{SOURCES / 'include'}"]
    if mutant:
        changed = overlay / mutant.file
        changed.parent.mkdir(parents=True)
        changed.write_text(mutated(mutant))
        includes.insert(0, f"-I{overlay}")
    else:
        overlay.mkdir()
    program = overlay / "test"
    command = [
        compiler(),
        *FLAGS,
        f"-DKERNEL_{kernel}",
        *includes,
        str(SOURCES / family.test),
        *map(str, objects),
    ]
    built = subprocess.run([*command, "-o", str(program), "-pthread", "-ldl"], capture_output=True, text=True)
    if built.returncode:
        return 2, "does not compile: " + built.stderr.strip().splitlines()[0]
    # A fault of the whole process is a catch too, and so is a loop without an end; seconds of the processor, since the
    # machine may be busy.
    limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (120, 120))  # noqa: E731
    ran = subprocess.run([str(program)], capture_output=True, text=True, preexec_fn=limit)
    program.unlink()
    return (
        1 if ran.returncode else 0
    ), ran.stdout.strip() or ran.stderr.strip() or f"ended with {ran.returncode}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, help="so many of each processor, for what fits, spread over the kernels"
    )
    parser.add_argument(
        "--family", choices=[family.name for family in FAMILIES], help="the mutants of one family"
    )
    parser.add_argument("--kernel", help="the mutants of one kernel, as TILED")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    families = [family for family in FAMILIES if arguments.family in (None, family.name)]
    wanted = lambda mutant: arguments.kernel in (None, mutant.kernel)  # noqa: E731
    mutants = [(family, m) for family in families for m in family.mutants if wanted(m)]
    uncatchable = [(family, m) for family in families for m, _ in family.uncatchable if wanted(m)]
    if not mutants:
        parser.error(f"no mutant of kernel {arguments.kernel}")
    listed = len(mutants)
    if arguments.seconds:
        mutants, uncatchable = spread(mutants, turn(listed)), []
    tried = [*mutants, *uncatchable]

    folder = Path(tempfile.mkdtemp(prefix="cuda_mutations_"))
    try:
        objects = build_support(folder)
        end = processor_seconds() + arguments.seconds * arguments.jobs if arguments.seconds else math.inf
        unbroken = {(family, m.kernel): threading.Lock() for family, m in tried}
        said_unbroken: dict[tuple[Family, str], str] = {}

        def fails_unbroken(family: Family, kernel: str) -> str:
            """What a kernel's test says of the kernel as it is, asked once."""
            with unbroken[family, kernel]:
                if (family, kernel) not in said_unbroken:
                    name = f"unbroken_{family.name}_{kernel}"
                    status, said = run(family, None, kernel, folder, objects, name)
                    said_unbroken[family, kernel] = f"fails unbroken: {said}" if status else ""
            return said_unbroken[family, kernel]

        def attempt(at: int) -> tuple[int, str] | None:
            if processor_seconds() > end:
                return None
            family, mutant = tried[at]
            if said := fails_unbroken(family, mutant.kernel):
                return 2, said
            return run(family, mutant, mutant.kernel, folder, objects, f"mutant_{at}")

        ran = bad = 0
        with ThreadPoolExecutor(arguments.jobs) as pool:
            results = pool.map(attempt, range(len(tried)))
            for at, ((family, mutant), result) in enumerate(zip(tried, results, strict=True)):
                if result is None:
                    continue
                status, said = result
                expected = 1 if at < len(mutants) else 0
                verdict = {0: "SURVIVED", 1: "caught", 2: "BROKEN"}[status]
                if status == expected == 0:
                    verdict = "survived, as listed"
                ran += 1
                bad += status != expected
                print(f"{verdict:9} {family.name} {mutant.kernel:8} {mutant.what}: {said[:150]}", flush=True)
        print(
            f"{ran - len(uncatchable)} of {listed} mutants, {bad} not as they should be"
            + (f"; {len(uncatchable)} listed as uncatchable" if uncatchable else "")
        )
        return 1 if bad else 0
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
