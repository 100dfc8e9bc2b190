"""Unstructured layers beside the sparse products that torch and scipy have.

    python benchmarks/python/bench_sparse.py [--quick] [--threads 1 2]

Torch CSR and scipy CSR multiply the same weights as ours; torch BSR has as many weights in blocks of 16 x 16, which is
a pattern of its own. scipy has no threads and is left out where there are two.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shlex
import sys
from typing import Any

import torch

import peers
import sparsecore as sc
from machine import ROOT, SHAPES, describe, write
from packed import checked_error, into
from timing import interleaved

SPARSITIES = (0.5, 0.7, 0.9, 0.95)
BLOCK = 16


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one shape, short timings")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--dry", action="store_true", help="print only, keep no result file")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    threads = [number for number in arguments.threads if number <= torch.get_num_threads()]
    shapes = [shape for shape in SHAPES["layers"] if shape["name"] in SHAPES["sparse"]["layers"]]
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for shape, sparsity, tokens in itertools.product(
            shapes[: 1 if arguments.quick else None], SPARSITIES, SHAPES["sparse"]["tokens"]
        ):
            n, k = shape["out_features"], shape["in_features"]
            weight, bias = torch.randn(n, k) / math.sqrt(k), torch.randn(n)
            packed = sc.pack(weight, sc.Unstructured(), sparsity=sparsity)
            problem = peers.Problem(torch.randn(tokens, k), weight, bias)
            out = torch.empty(tokens, n)
            ours = into(packed, problem.input, bias, out)
            ours()
            what = f"{shape['name']} {sparsity:.0%} M={tokens}"
            checked_error(packed, packed.to_dense().double(), problem.input, bias, out, "float32", what)
            for number in threads:
                torch.set_num_threads(number)
                candidates = {"ours": ours, "torch dense": peers.linear(problem, torch.float32)}
                candidates |= peers.sparse(problem, packed.mask(), number)
                candidates["torch BSR"] = peers.block_sparse(problem, BLOCK, sparsity)
                timings = interleaved(candidates, 0.03 if arguments.quick else 0.15, least=5)
                rows.append(
                    {
                        "shape": shape["name"],
                        "sparsity": sparsity,
                        "tokens": tokens,
                        "threads": number,
                        **{name: timing.microseconds() for name, timing in timings.items()},
                    }
                )
                base = timings["ours"].median
                ratios = ", ".join(
                    f"{timing.median / base:.2f}x {name}"
                    for name, timing in timings.items()
                    if name != "ours"
                )
                print(f"{what:25} {number}T  {ratios}", flush=True)
    if not arguments.dry:
        command = shlex.join(["python", "benchmarks/python/bench_sparse.py", *sys.argv[1:]])
        print(f"written: {write('sparse', describe(command, {}), rows).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
