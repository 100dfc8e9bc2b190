"""Linear layers whose weights are kept in groups, in every layout that can hold them, beside torch dense and torch BSR.

    python benchmarks/python/bench_groups.py [--patterns 4x1 ...] [--threads 1 2] [--dry]

Per cell (pattern, sparsity, shape, tokens, threads) these take turns: ours in each layout, torch's dense layer,
oneDNN's with its weight packed beforehand, and torch BSR with as many zeros in blocks of 4x4. float32; results are
checked first. ``sc.pack(layout="auto")`` takes the layout that is fastest here.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections import defaultdict
from typing import Any

import torch

import peers
import roof
import sparsecore as sc
from machine import ROOT, SHAPES, describe, write
from packed import checked_error, into
from sparsecore.formats.pack import layouts_for
from timing import Timing, geometric, interleaved

PATTERNS = ("unstructured", "4x1", "8x1", "16x1", "4x4", "1x16")
DECODING = ("nm_decode", "bitmap_decode")  # for a handful of tokens only

# Times of torch dense that the family is to reach, by the geometric mean over shapes: must and stretch.
TARGETS = {
    ("4x1", 0.75): (3.2, 3.8),
    ("4x1", 0.9): (7.5, 9.0),
    ("16x1", 0.75): (4.0, 4.6),
    ("16x1", 0.9): (9.0, 11.0),
}


def measure(
    pattern: str,
    sparsity: float | None,
    shape: dict[str, Any],
    tokens: list[int],
    threads: list[int],
    seconds: float,
) -> list[dict[str, Any]]:
    """Every number of tokens and threads of one layer."""
    n, k = shape["out_features"], shape["in_features"]
    weight, bias = torch.randn(n, k) / math.sqrt(k), torch.randn(n)
    layouts = [name for name in layouts_for(sc.pattern(pattern)) if name not in DECODING]
    packed = {name: sc.pack(weight, pattern, sparsity=sparsity, layout=name) for name in layouts}
    dense = packed[layouts[0]].to_dense().double()
    rows = []
    zeros = packed[layouts[0]].sparsity
    for count in tokens:
        problem = peers.Problem(torch.randn(count, k), weight, bias)
        ours = {}
        for name, one in packed.items():
            out = torch.empty(count, n)
            ours[name] = into(one, problem.input, bias, out)
            ours[name]()
            what = f"{name} {pattern} {zeros:.0%} {shape['name']} M={count}"
            checked_error(one, dense, problem.input, bias, out, "float32", what)
        calls = {
            **ours,
            "torch dense": peers.linear(problem, torch.float32),
            "oneDNN packed": peers.linear_packed(problem, torch.float32),
            "torch BSR 4x4": peers.block_sparse(problem, 4, zeros),
        }
        for number in threads:
            torch.set_num_threads(number)
            timings = interleaved(calls, seconds, least=5)
            rows.append(
                {
                    "pattern": pattern,
                    "sparsity": round(zeros, 3),
                    "shape": shape["name"],
                    "tokens": count,
                    "threads": number,
                    "bytes": {name: one.nbytes for name, one in packed.items()},
                    "us": {name: timing.microseconds() for name, timing in timings.items()},
                    **_figures(timings, layouts, 2e-9 * count * packed[layouts[0]].stored),
                }
            )
    return rows


def _figures(timings: dict[str, Timing], layouts: list[str], kept: float) -> dict[str, Any]:
    best = min(layouts, key=lambda name: timings[name].median)
    seconds = timings[best].median
    found: dict[str, Any] = {
        "best": best,
        "ratio": round(timings["torch dense"].median / seconds, 3),
        "ratio_bsr": round(timings["torch BSR 4x4"].median / seconds, 3),
        "gflops": round(kept / seconds, 1),
    }
    limit = roof.measured(torch.get_num_threads()).get("fma_float32")
    return found | ({"share_of_peak": round(kept / seconds / limit, 3)} if limit else {})


def show(rows: list[dict[str, Any]]) -> None:
    """Geometric means over shapes, by layout."""
    groups: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["pattern"], row["sparsity"], row["tokens"], row["threads"]].append(row)
    for (pattern, sparsity, tokens, threads), group in groups.items():
        ratios = {
            name: geometric(row["us"]["torch dense"][0] / row["us"][name][0] for row in group)
            for name in group[0]["us"]
        }
        text = "  ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
        must, stretch = TARGETS.get((pattern, sparsity), (None, None))
        wanted = f"  (must {must}, stretch {stretch})" if must else ""
        print(f"{pattern:13}{sparsity:.0%} M={tokens:<4} {threads}T  x dense: {text}{wanted}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", type=int, nargs="+", default=SHAPES["groups"]["tokens"])
    parser.add_argument("--seconds", type=float, default=0.1, help="per cell")
    parser.add_argument("--isa", default=None, help="cap of our instruction set")
    parser.add_argument("--quick", action="store_true", help="one shape, short timings")
    parser.add_argument("--dry", action="store_true", help="print only, keep no result file")
    arguments = parser.parse_args()
    if arguments.isa:
        sc.cpu.use(arguments.isa)
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    threads = [number for number in arguments.threads if number <= torch.get_num_threads()]
    seconds = 0.02 if arguments.quick else arguments.seconds
    names = SHAPES["groups"]["layers"][: 1 if arguments.quick else None]
    shapes = [shape for shape in SHAPES["layers"] if shape["name"] in names]
    command = shlex.join(["python", "benchmarks/python/bench_groups.py", *sys.argv[1:]])
    with torch.inference_mode():
        for pattern in arguments.patterns:
            rows: list[dict[str, Any]] = []
            fixed = isinstance(sc.pattern(pattern), sc.NM)
            for sparsity in [None] if fixed else SHAPES["groups"]["sparsities"]:
                for shape in shapes:
                    rows += measure(pattern, sparsity, shape, arguments.tokens, threads, seconds)
            show(rows)
            if not arguments.dry:
                capped = f"_{arguments.isa}" if arguments.isa else ""
                roofs = {number: roof.measured(number) for number in threads}
                path = write(
                    f"groups_{pattern.replace(':', '_').replace('/', '_')}{capped}",
                    describe(command, roofs),
                    rows,
                )
                print(f"written: {path.relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    main()
