"""Runs the named parts of the test suite, each with its name and duration, and stops at the first that fails.

    python tools/test_parts.py lint python cpp ...

A part whose tools this machine lacks is skipped by name and says how to get them. Where CI is set that is a
failure: there the tools are installed first.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
CACHE = ROOT / ".cache"
JOBS = str(os.cpu_count() or 1)
IN_CI = bool(os.environ.get("CI"))
CUDA_WHEELS = BUILD / "cuda-wheels"  # from the part `cuda`, where there is nvcc; `wheel` and `abi` install it
# The oldest torch that the operators promise to run under; csrc/torch is compiled for its stable ABI.
OLDEST_TORCH = "2.11.0"
TORCH_NEEDS = (
    "filelock",
    "fsspec",
    "jinja2",
    "markupsafe",
    "mpmath",
    "networkx",
    "sympy",
    "typing-extensions",
)


# What a part that passed did not do, for the summary.
notes: list[str] = []


class Skip(Exception):
    """What this machine lacks for a part, and how to get it."""


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> None:
    """Runs a command; a failure ends the part. ``environment`` is added to this process's."""
    subprocess.run(list(map(str, command)), cwd=cwd, env={**os.environ, **environment}, check=True)


def hear(*command: str | Path, **environment: str) -> str:
    """As :func:`run`, and returns what the command printed."""
    arguments = list(map(str, command))
    lines = []
    with subprocess.Popen(
        arguments, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            lines.append(line)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    return "".join(lines)


def lint() -> None:
    run(sys.executable, "tools/lint.py")


def python() -> None:
    """All but tests/cuda, which the part ``cuda`` gives an emulator."""
    pytest("--ignore=tests/cuda")


def cpp() -> None:
    """As shipped; the test executable must not even know of torch or Python."""
    benchmarks = any(
        Path(prefix, "include/benchmark/benchmark.h").exists() for prefix in ("/usr", "/usr/local")
    )
    cmake_preset("release", f"-DSPARSECORE_BENCHMARKS={'ON' if benchmarks else 'OFF'}")
    executable = next((BUILD / "release").rglob("sparsecore_tests"))
    loaded = subprocess.run(["ldd", executable], check=True, capture_output=True, text=True).stdout
    if "torch" in loaded or "libpython" in loaded:
        raise RuntimeError(f"The C++ tests must link neither torch nor Python, and do:\n{loaded}")


def asan() -> None:
    cmake_preset("asan")


def tsan() -> None:
    cmake_preset("tsan")


def cuda() -> None:
    """CUDA kernels and operators as C++ on the emulator, kernels sanitized too; by nvcc where it is. No GPU."""
    # CuTe's headers, which the maps of the PTX layer are compared with where a toolkit is
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "nvidia-cutlass")
    note_slowest(
        "C++", cmake_preset("cuda", "-DSPARSECORE_TORCH=ON", f"-DPython3_EXECUTABLE={sys.executable}")
    )
    operators = "sparsecore_torch_cuda_emulated"
    programs = ("cuda_conformance_emulated", "cuda_questions_emulated")
    run("cmake", "--build", "--preset", "cuda", "--target", operators, *programs, "--parallel", JOBS)
    library = next((BUILD / "cuda").rglob(f"lib{operators}.so"))
    note_slowest("Python", pytest("tests/cuda", SPARSECORE_CUDA_EMULATED=str(library)))
    note_slowest("C++, sanitized", cmake_preset("cuda-asan"))
    mutations = hear(sys.executable, "tools/cuda_mutations.py", "--seconds", "60")
    notes.append(mutations.splitlines()[-1])
    if shutil.which("nvcc"):
        cuda_wheel()
    else:
        notes.append("kernels by nvcc skipped: nvcc is missing, install the CUDA toolkit 13")


def cuda_wheel() -> None:
    """As docs/installation.md says; the programs for a GPU come from the same folder."""
    shutil.rmtree(CUDA_WHEELS, ignore_errors=True)
    settings = {
        "build-dir": BUILD / "nvcc",
        "cmake.define.SPARSECORE_CUDA": "ON",
        "cmake.define.SPARSECORE_WERROR": "ON",
    }
    options = (f"--config-settings={name}={value}" for name, value in settings.items())
    pip(
        sys.executable,
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--wheel-dir",
        CUDA_WHEELS,
        *options,
        ".",
        PIP_BUILD_CONSTRAINT="",  # without isolation pip refuses to hear of constraints for it
    )
    targets = ("sparsecore_cuda_lint", "cuda_conformance", "cuda_questions")
    run("cmake", "--build", BUILD / "nvcc", "--target", *targets, "--parallel", JOBS)


def arm() -> None:
    need("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    if not shutil.which("qemu-aarch64"):
        need("qemu-aarch64-static", "qemu-user-static")
    cmake_preset("aarch64")
    cmake_preset("cuda-aarch64")


def wasm() -> None:
    node = need("node", "nodejs")
    version = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < 20:
        raise Skip(f"node is {version}, and the WebAssembly tests need 20 or later")
    for preset in ("wasm", "wasm-relaxed"):
        cmake_preset(preset)
        run("cmake", "--build", "--preset", preset, "--target", "sparsecore_npm")
    need("npm", "npm")
    run(node, "--test", "csrc/wasm/npm")


def browser() -> None:
    """The page of examples/browser in headless Chromium."""
    node = need("node", "nodejs")
    need("chromedriver", "chromium chromium-driver")
    run("make", "browser")
    run(node, "--test", "examples/browser/tests")


def wheel() -> None:
    """An isolated build, then a fresh environment with torch, numpy, safetensors and the wheel alone."""
    folder = BUILD / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", folder, ".")
    environment = fresh_environment("wheel")
    pip(environment, "install", f"torch=={pinned_torch()}", "numpy", "safetensors")
    pip(environment, "install", "--no-deps", *folder.glob("*.whl"))
    package = installed_package(environment)
    run(sys.executable, "tools/check_symbols.py", package)
    smoke(environment)
    for module in package.glob("_C*.so"):
        module.unlink()
    smoke(environment, "--without-introspection")
    if wheels := list(CUDA_WHEELS.glob("*.whl")):
        pip(environment, "install", "--no-deps", "--force-reinstall", *wheels)
        run(sys.executable, "tools/check_symbols.py", package)
        smoke(environment, "--cuda", "unused")
    shutil.rmtree(environment.parent.parent)


def abi() -> None:
    """The wheel that was built against the pinned torch, under the oldest one it promises to run with."""
    downloads = CACHE / f"torch-{OLDEST_TORCH}"
    if not any(downloads.glob("*.whl")):
        if not IN_CI and sys.argv[1:] != ["abi"]:
            raise Skip(f"`make test-abi` downloads torch {OLDEST_TORCH} once, 530 MB")
        download = [
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
            downloads,
            f"torch=={OLDEST_TORCH}",
        ]
        try:
            pip(sys.executable, *download, PIP_CONSTRAINT="")
        except subprocess.CalledProcessError as error:
            raise Skip(
                f"torch {OLDEST_TORCH} has no build for this Python and platform, or no way here"
            ) from error
    if not any((BUILD / "wheels").glob("*.whl")):
        pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", BUILD / "wheels", ".")

    environment = fresh_environment("abi")
    pip(environment, "install", "--no-deps", *downloads.glob("*.whl"), PIP_CONSTRAINT="")
    pip(environment, "install", "--no-deps", *TORCH_NEEDS, "numpy", "safetensors")
    pip(environment, "install", "--no-deps", *(BUILD / "wheels").glob("*.whl"))
    package = installed_package(environment)
    torch_libraries = package.parent / "torch/lib"
    run(sys.executable, "tools/check_symbols.py", package, torch_libraries)
    stubs = environment.parent.parent / "cuda-stubs"
    if (torch_libraries / "libtorch_cuda.so").exists():
        run(sys.executable, "tools/cuda_stubs.py", torch_libraries, stubs)
    smoke(environment, "--torch", OLDEST_TORCH, LD_LIBRARY_PATH=str(stubs))
    wheels = list(CUDA_WHEELS.glob("*.whl"))
    if wheels and stubs.exists():
        pip(environment, "install", "--no-deps", "--force-reinstall", *wheels)
        run(sys.executable, "tools/check_symbols.py", package, torch_libraries)
        smoke(environment, "--torch", OLDEST_TORCH, "--cuda", "loaded", LD_LIBRARY_PATH=str(stubs))
    shutil.rmtree(environment.parent.parent)


def processor_seconds() -> float:
    """What all the processes that have ended took of the processors: tells waste from a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def pytest(*arguments: str, **environment: str) -> str:
    """A process for each processor, of one thread unless a test asks for more; returns what was printed."""
    if JOBS != "1":
        arguments = ("-n", JOBS, "--dist", "worksteal", *arguments)
        environment["OMP_NUM_THREADS"] = "1"
    return hear(sys.executable, "-m", "pytest", "-q", "--durations=8", *arguments, **environment)


def cmake_preset(name: str, *options: str) -> str:
    """Configures, builds and tests one preset of CMakePresets.json; returns what the tests said."""
    run("cmake", "--preset", name, f"-DDOCTEST_INCLUDE_DIR={doctest_folder()}", *options)
    run("cmake", "--build", "--preset", name, "--parallel", JOBS)
    return hear("ctest", "--preset", name, "--parallel", JOBS)


TEST_LINES = (
    re.compile(r"Test +#\d+: (?P<name>\S+) [. ]*Passed +(?P<seconds>[\d.]+) sec"),
    re.compile(r"(?P<seconds>[\d.]+)s call +(?:\S+/)?(?P<name>\S+)"),
)


def note_slowest(what: str, said: str) -> None:
    """For the summary: how long emulated tests took together, and the slowest of them."""
    tests = [(float(found["seconds"]), found["name"]) for line in TEST_LINES for found in line.finditer(said)]
    total = re.findall(r"(?:Total Test time \(real\) = +| passed.* in )([\d.]+) ?s", said)[-1]
    slowest = ", ".join(f"{name} {seconds:.0f} s" for seconds, name in sorted(tests, reverse=True)[:3])
    notes.append(f"emulated tests, {what}: {float(total):.0f} s; slowest {slowest}")


def doctest_folder() -> Path:
    """The folder that holds ``doctest/doctest.h``: the system's, or a package unpacked without root."""
    unpacked = CACHE / "doctest"
    for folder in (Path("/usr/include"), Path("/usr/local/include"), unpacked / "usr/include"):
        if (folder / "doctest/doctest.h").exists():
            return folder
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise Skip("the header doctest/doctest.h is missing; install your system's doctest package")
    unpacked.mkdir(parents=True, exist_ok=True)
    try:
        run("apt-get", "download", "doctest-dev", cwd=unpacked)
    except subprocess.CalledProcessError as error:
        raise Skip("the header doctest/doctest.h is missing: apt-get install doctest-dev") from error
    run("dpkg", "-x", next(unpacked.glob("*.deb")), unpacked)
    return unpacked / "usr/include"


def need(program: str, package: str) -> str:
    """The path of a program, or a skip that names its Debian package."""
    path = shutil.which(program)
    if path is None:
        raise Skip(f"{program} is missing: apt-get install {package}")
    return path


def pip(interpreter: str | Path, *arguments: str | Path, **environment: str) -> None:
    # Environments live for one test: bytecode is made for what that imports, not for all of torch.
    run(interpreter, "-m", "pip", "--quiet", *arguments, PIP_NO_COMPILE="1", **environment)


def pinned_torch() -> str:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.removeprefix("torch==") for line in lines if line.startswith("torch=="))


def fresh_environment(name: str) -> Path:
    """Makes a new virtual environment and returns its interpreter."""
    folder = BUILD / f"{name}-environment"
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "venv", folder)
    return folder / "bin/python"


def installed_package(interpreter: Path) -> Path:
    query = "import sysconfig; print(sysconfig.get_path('platlib'))"
    output = subprocess.run([interpreter, "-c", query], check=True, capture_output=True, text=True).stdout
    return Path(output.strip()) / "sparsecore"


def smoke(interpreter: Path, *arguments: str, **environment: str) -> None:
    """Runs the smoke test away from the sources and with no compiler to be found."""
    command = (interpreter, "-I", ROOT / "tests/smoke.py", *arguments)
    run(*command, cwd=BUILD, PATH="/nonexistent", **environment)


PARTS: Mapping[str, Callable[[], None]] = {
    part.__name__: part for part in (lint, python, cpp, cuda, wheel, abi, asan, tsan, arm, wasm, browser)
}


def main(names: list[str]) -> int:
    results: dict[str, str] = {}
    failed = skipped = 0
    for name in names:
        print(f"\n===== {name}", flush=True)
        start, processor = time.monotonic(), processor_seconds()
        notes.clear()
        try:
            PARTS[name]()
            outcome = "".join(["passed", *(f"\n{'':32}{note}" for note in notes)])
        except Skip as reason:
            # A release of torch that cannot be had is nobody's fault; a tool missing in CI is.
            excused = not IN_CI or name == "abi"
            outcome = f"skipped: {reason}" if excused else f"FAILED: {reason}"
            skipped += excused
            failed += not excused
        except subprocess.CalledProcessError as error:
            command = " ".join(map(str, error.cmd[:4]))
            outcome = f"FAILED: {command} ... ended with {error.returncode}"
            failed += 1
        except RuntimeError as error:
            outcome = f"FAILED: {error}"
            failed += 1
        wall, processor = time.monotonic() - start, processor_seconds() - processor
        results[name] = f"{wall:7.1f} s {processor:8.1f} s  {outcome}"
        print(f"===== {name}: {outcome}", flush=True)
        if failed:
            break

    print("\n  part        passed  processors")
    for name in names:
        print(f"  {name:8s}{results.get(name, '      -    not run')}")
    passed = len(results) - failed - skipped
    print(f"parts: {passed} passed, {failed} failed, {skipped} skipped")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(PARTS)))
