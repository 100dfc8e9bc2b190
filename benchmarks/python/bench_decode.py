"""One to sixteen tokens against large matrices: how much of the memory bandwidth, or of the FMA peak, is used.

    python benchmarks/python/bench_decode.py [--quick] [--threads 1 2]

Copies of a weight take turns until more than 1 GB has been read, so each call finds its weight in memory, as the next
layer of a large model does; torch's dense weight takes turns alike. The roof of a case is the slower of streaming its
packed bytes and multiplying its kept weights, with the limits that the program ``roof`` of benchmarks/cpp measures in
the same run.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import roof
import sparsecore as sc
from machine import ROOT, SHAPES, describe, write
from packed import checked_error, into
from timing import interleaved


@dataclass(frozen=True)
class Case:
    """A packing and its storage types."""

    label: str
    pattern: sc.Pattern
    layout: str
    sparsity: float | None = None


CASES = (
    Case("2:4", sc.NM(2, 4), "nm_decode"),
    Case("1:4", sc.NM(1, 4), "nm_decode"),
    Case("1:8", sc.NM(1, 8), "nm_decode"),
    Case("2:4", sc.NM(2, 4, vector=64), "shared_lists"),
    Case("1:4", sc.NM(1, 4, vector=64), "shared_lists"),
    Case("1:8", sc.NM(1, 8, vector=64), "shared_lists"),
    Case("50%", sc.Unstructured(), "bitmap_decode", 0.5),
    Case("90%", sc.Unstructured(), "bitmap_decode", 0.9),
    Case("90%", sc.Unstructured(), "row_lists", 0.9),
    # As many weights as 2:4, 1:4 and 1:8 keep. Random weights: blocks differ by chance alone, and still get all Ns.
    Case("n:16 50%", sc.VariableNM(), "variable_nm", 0.5),
    Case("n:16 75%", sc.VariableNM(), "variable_nm", 0.75),
    Case("n:16 87.5%", sc.VariableNM(), "variable_nm", 0.875),
)


def in_turns(calls: list[Callable[[], object]]) -> Callable[[], object]:
    """A function that calls the next of ``calls`` each time."""
    turns = itertools.cycle(calls)
    return lambda: next(turns)()


def dense_copies(weight: Tensor, dtype: torch.dtype, copied: int) -> list[Tensor]:
    """The dense weight in as many copies as it takes to leave the caches."""
    dense = weight.to(dtype)
    return [dense.clone() for _ in range(math.ceil(copied / dense.nbytes))]


class Matrix:
    """One layer in one type, sparse in as many copies as it takes to leave the caches, beside dense copies."""

    def __init__(
        self, case: Case, weight: Tensor, dtype: torch.dtype, dense: list[Tensor], copied: int
    ) -> None:
        self.activations = dense[0].dtype
        self.dense = dense
        packed = sc.pack(weight, case.pattern, sparsity=case.sparsity, dtype=dtype, layout=case.layout)
        self.copies = [packed] + [
            packed.with_values(packed.values.clone()) for _ in range(math.ceil(copied / packed.nbytes))
        ]
        self.exact = packed.to_dense().double()
        self.nbytes, self.stored = packed.nbytes, packed.stored

    def times(self, tokens: int, seconds: float, what: str) -> tuple[list[float], list[float]]:
        """Microseconds of ours and of dense torch, medians and quartiles; ours is checked first."""
        n, k = self.exact.shape
        input = torch.randn(tokens, k, dtype=self.activations)
        bias, out = torch.randn(n, dtype=self.activations), torch.empty(tokens, n, dtype=self.activations)
        ours = [into(copy, input, bias, out) for copy in self.copies]
        ours[0]()
        checked_error(self.copies[0], self.exact, input, bias, out, "float32", what)
        dense = [lambda w=weight: torch.nn.functional.linear(input, w, bias) for weight in self.dense]
        timings = interleaved({"ours": in_turns(ours), "dense": in_turns(dense)}, seconds)
        return timings["ours"].microseconds(), timings["dense"].microseconds()


def row_of(case: Case, matrix: Matrix, timed: tuple[list[float], list[float]], tokens: int) -> dict[str, Any]:
    """One line of the result file without what its caller knows."""
    limits = roof.measured(torch.get_num_threads())
    ours, dense = timed
    row: dict[str, Any] = {
        "layout": case.layout,
        "pattern": case.label,
        "tokens": tokens,
        "us": ours,
        "dense_us": dense,
        "ratio": round(dense[0] / ours[0], 3),
        "gb_per_s": round(1e-3 * matrix.nbytes / ours[0], 2),
    }
    if limits:
        memory = 1e-3 * matrix.nbytes / limits["read_gb_per_s"]  # microseconds
        arithmetic = 2e-3 * tokens * matrix.stored / limits["fma_float32"]
        row |= {
            "roof": "memory" if memory >= arithmetic else "arithmetic",
            "share_of_roof": round(max(memory, arithmetic) / ours[0], 3),
        }
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="the first shape, float32, 1 and 8 tokens, 256 MB"
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--layouts", nargs="+", default=sorted({case.layout for case in CASES}))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16", "int8"])
    parser.add_argument("--dry", action="store_true", help="print only, keep no result file")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    threads = [number for number in arguments.threads if number <= torch.get_num_threads()]
    shapes = SHAPES["decode"][:1] if arguments.quick else SHAPES["decode"]
    counts = (1, 8) if arguments.quick else SHAPES["small_batch"]["tokens"]
    dtypes = ["float32"] if arguments.quick else arguments.dtypes
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        cases = [case for case in CASES if case.layout in arguments.layouts]
        copied = 2**28 if arguments.quick else 2**30
        for shape, dtype, case in itertools.product(shapes, dtypes, cases):
            if case is cases[0]:
                n, k = shape["out_features"], shape["in_features"]
                weight = torch.randn(n, k) / math.sqrt(k)
                dense = dense_copies(weight, getattr(torch, "float32" if dtype == "int8" else dtype), copied)
            matrix = Matrix(case, weight, getattr(torch, dtype), dense, copied)
            for tokens, number in itertools.product(counts if shape is shapes[0] else (1,), threads):
                torch.set_num_threads(number)
                what = f"{case.layout} {case.label} {dtype} {shape['name']} M={tokens}"
                timed = matrix.times(tokens, 0.03 if arguments.quick else 0.08, what)
                row = row_of(case, matrix, timed, tokens)
                rows.append({"weights": dtype, "shape": shape["name"], "threads": number, **row})
                share = f", {row['share_of_roof']:.2f} of the {row['roof']} roof" if "roof" in row else ""
                print(
                    f"{what:45} {number}T  {row['gb_per_s']:6.2f} GB/s{share}, {row['ratio']:.2f}x dense",
                    flush=True,
                )
    if not arguments.dry:
        command = shlex.join(["python", "benchmarks/python/bench_decode.py", *sys.argv[1:]])
        limits = {number: roof.measured(number) for number in threads}
        print(f"written: {write('decode', describe(command, limits), rows).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
