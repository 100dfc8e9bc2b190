"""From how many zeros on does sparse win? One layer from 10 to 95 % zeros, by pattern, beside torch's dense layer.

    python benchmarks/python/bench_crossover.py [--patterns unstructured 4x1 ...] [--dry]

float32, one thread, 768 outputs of 3072 inputs, 128 tokens; the layout is what ``sc.pack`` chooses. For AVX2, in a
process of its own:
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 python ... --isa avx2
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from typing import Any

import torch

import peers
import sparsecore as sc
from machine import ROOT, describe, write
from packed import checked_error, into
from timing import interleaved

PATTERNS = ("unstructured", "4x1", "16x1")
SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
OUT, IN, TOKENS = 768, 3072, 128


def crossover(rows: list[dict[str, Any]]) -> float | None:
    """Where the ratio first reaches 1, between the two sparsities around it; None where it never does."""
    rows = sorted(rows, key=lambda row: float(row["sparsity"]))
    before: dict[str, Any] = {"sparsity": 0.0, "ratio": 0.0}
    for row in rows:
        if row["ratio"] >= 1.0:
            if before["ratio"] == 0.0:
                return float(row["sparsity"])  # wins at the lowest measured: the crossing lies below
            share = (1.0 - before["ratio"]) / (row["ratio"] - before["ratio"])
            return float(before["sparsity"] + share * (row["sparsity"] - before["sparsity"]))
        before = row
    return None


def measure(pattern: str, sparsity: float, problem: peers.Problem) -> dict[str, Any]:
    """One point of the curve."""
    packed = sc.pack(problem.weight, pattern, sparsity=sparsity)
    out = torch.empty(TOKENS, OUT)
    ours = into(packed, problem.input, problem.bias, out)
    ours()
    dense = packed.to_dense().double()
    checked_error(packed, dense, problem.input, problem.bias, out, "float32", f"{pattern} {sparsity:.0%}")
    timings = interleaved({"ours": ours, "dense": peers.linear(problem, torch.float32)}, 0.1, least=9)
    return {
        "pattern": pattern,
        "layout": packed.layout,
        "sparsity": sparsity,
        "us": timings["ours"].microseconds(),
        "dense_us": timings["dense"].microseconds(),
        "ratio": round(timings["dense"].median / timings["ours"].median, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS))
    parser.add_argument("--isa", default=None, help="cap of our instruction set")
    parser.add_argument("--quick", action="store_true", help="half of the points")
    parser.add_argument("--dry", action="store_true", help="print only, keep no result file")
    arguments = parser.parse_args()
    if arguments.isa:
        sc.cpu.use(arguments.isa)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    problem = peers.Problem(torch.randn(TOKENS, IN), torch.randn(OUT, IN) / math.sqrt(IN), torch.randn(OUT))
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for pattern in arguments.patterns:
            mine = [measure(pattern, zeros, problem) for zeros in SPARSITIES[:: 1 + arguments.quick]]
            found = crossover(mine)
            text = "  ".join(f"{row['sparsity']:.0%} {row['ratio']:.2f}" for row in mine)
            print(
                f"{pattern:13} crosses at {'none' if found is None else f'{found:.0%}'}: {text}", flush=True
            )
            rows += mine
    if not arguments.dry:
        command = shlex.join(["python", "benchmarks/python/bench_crossover.py", *sys.argv[1:]])
        capped = f"_{arguments.isa}" if arguments.isa else ""
        print(f"written: {write(f'crossover{capped}', describe(command, {}), rows).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
