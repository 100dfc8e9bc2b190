"""Breaks the CUDA kernels, one line at a time, and demands that the emulator notices.

Each mutant removes or reorders a wait, a barrier, a fence, a bound check or a bit of metadata by a marked edit of a
kernel's source, is compiled with the small test of that kernel (csrc/cuda/tests/mutations) and has to fail it. A mutant
that survives, an edit whose text is no longer in the source, and a kernel that fails unbroken are errors. What no run
of this emulator can notice is listed as uncatchable with the reason, and has to survive: should it be caught one
day, it belongs into the other list.

    python tools/cuda_mutations.py               every mutant
    python tools/cuda_mutations.py --sample 12   a dozen of them, spread over the kernels; others for each commit
    python tools/cuda_mutations.py --family semi_structured --kernel TILED
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
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
    parser.add_argument("--sample", type=int, help="so many mutants, spread evenly over the list")
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
    if arguments.sample and arguments.sample < len(mutants):
        first = turn(len(mutants))
        print(f"every {len(mutants) / arguments.sample:.0f}th of {len(mutants)} mutants, from number {first}")
        places = (first + i * len(mutants) // arguments.sample for i in range(arguments.sample))
        mutants = [mutants[place % len(mutants)] for place in places]
        uncatchable = []

    folder = Path(tempfile.mkdtemp(prefix="cuda_mutations_"))
    try:
        objects = build_support(folder)
        bad = 0
        for family, kernel in dict.fromkeys((family, m.kernel) for family, m in mutants):
            status, said = run(family, None, kernel, folder, objects, f"unbroken_{family.name}_{kernel}")
            if status:
                print(f"{family.name} {kernel}: fails unbroken: {said}")
                bad += 1
        if bad:
            return 1
        with ThreadPoolExecutor(arguments.jobs) as pool:
            tried = [*mutants, *uncatchable]
            results = pool.map(
                lambda at: run(*tried[at], tried[at][1].kernel, folder, objects, f"mutant_{at}"),
                range(len(tried)),
            )
            for at, ((family, mutant), (status, said)) in enumerate(zip(tried, results, strict=True)):
                expected = 1 if at < len(mutants) else 0
                verdict = {0: "SURVIVED", 1: "caught", 2: "BROKEN"}[status]
                if status == expected == 0:
                    verdict = "survived, as listed"
                bad += status != expected
                print(f"{verdict:9} {family.name} {mutant.kernel:8} {mutant.what}: {said[:150]}", flush=True)
        print(
            f"{len(mutants)} mutants, {bad} not as they should be; {len(uncatchable)} listed as uncatchable"
        )
        return 1 if bad else 0
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
