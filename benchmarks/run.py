"""``make bench``: builds the program that measures the machine's limits, runs every benchmark, writes the tables.

    python benchmarks/run.py [--quick] [--only linear decode ...] [--minutes 30]

Results go to ``benchmarks/results``, a file per benchmark and processor. ``--quick`` prints and keeps nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Dense torch and openvino under the same cap as ours: their own kernels, oneDNN and MKL each have a variable.
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "OV_CPU_MAX_ISA": "AVX2",
}

AVX2_ROWS = ("shared64_float32", "shared16_float32", "shared64_int8", "rows_float32", "unstructured_float32")


def build_roof() -> dict[str, str]:
    """Builds the program ``roof`` and returns where benchmarks find it; empty where it cannot be built."""
    if not shutil.which("cmake"):
        print("cmake is missing, so shares of the machine's limits are left out.")
        return {}
    folder = ROOT / "build" / "bench"
    options = ["-DSPARSECORE_BENCHMARKS=ON", "-DCMAKE_BUILD_TYPE=Release"]
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(folder), *options],
        ["cmake", "--build", str(folder), "--target", "roof", "--parallel", str(os.cpu_count() or 1)],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {"SPARSECORE_ROOF": str(folder / "benchmarks" / "cpp" / "roof")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    runs = {
        "linear": (["bench_linear.py"], {}),
        "avx2": (["bench_linear.py", "--isa", "avx2", "--rows", *AVX2_ROWS], AVX2),
        "groups": (["bench_groups.py"], {}),
        "crossover": (["bench_crossover.py"], {}),
        "crossover_avx2": (["bench_crossover.py", "--isa", "avx2"], AVX2),
        "decode": (["bench_decode.py"], {}),
        "sparse": (["bench_sparse.py"], {}),
        "training": (["bench_training.py"], {}),
        "conv": (["bench_conv.py"], {}),
        "conv_avx2": (["bench_conv.py", "--isa", "avx2"], AVX2),
        "networks": (["bench_networks.py"], {}),
        "networks_avx2": (["bench_networks.py", "--isa", "avx2"], AVX2),
    }
    parser.add_argument("--quick", action="store_true", help="fewer shapes, short timings, no result files")
    parser.add_argument("--only", nargs="+", default=list(runs), choices=list(runs))
    parser.add_argument(
        "--minutes", type=float, default=None, help="start no further benchmark after so long"
    )
    arguments = parser.parse_args()
    start = time.monotonic()
    found = build_roof()
    import sparsecore as sc

    for name in arguments.only:
        (script, *options), capped = runs[name]
        if capped and "avx512" not in sc.cpu.isa():
            print(f"{name}: this machine has nothing above AVX2 to cap")
            continue
        begin = time.monotonic()
        if arguments.minutes is not None and begin - start > 60 * arguments.minutes:
            print(f"{name}: left out, {arguments.minutes:g} minutes are over")
            continue
        command = [sys.executable, str(ROOT / "benchmarks" / "python" / script), *options]
        extra = ["--quick", "--dry"] if arguments.quick else []
        subprocess.run([*command, *extra], check=True, env={**os.environ, **found, **capped})
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
    if not arguments.quick:
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / "table.py")], check=True)


if __name__ == "__main__":
    main()
