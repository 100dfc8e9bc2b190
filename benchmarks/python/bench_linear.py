"""Sparse linear layers beside dense torch, in one process, interleaved; the table with the targets.

    python benchmarks/python/bench_linear.py [--quick] [--rows shared64_float32 ...] [--threads 1 2]

Per cell (row, sparsity, shape, tokens, threads) three things take turns: ours; dense torch of the same type
(``F.linear``; for int8 the fastest of torch's int8 layers); the dense layer that is fastest here whatever its
floating-point type, with its weight packed beforehand if that helps. Packing activations counts. Results are checked
first. Weights stay in the caches as far as their size allows, for all alike; ``bench_decode.py`` is about memory.

For dense torch and ours on AVX2, in a process of its own:
    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 python ... --isa avx2
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

import peers
import roof
import sparsecore as sc
from machine import ROOT, SHAPES, describe, write
from packed import checked_error, into
from rows import ROWS, Line, Row
from sparsecore._library import introspection
from timing import Timing, geometric, interleaved

NAMES = {dtype: name for name, dtype in peers.DTYPES.items()}


class Cells:
    """Measures the cells of one process; keeps what does not depend on the row."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._winners: dict[tuple[str, str, int, int], str] = {}

    def _winner(
        self, runners: dict[str, Callable[[peers.Problem], peers.Peer]], problem: peers.Problem, shape: str
    ) -> str:
        """The fastest of some peers for this layer, chosen by a short race."""
        key = (" ".join(runners), shape, problem.input.shape[0], torch.get_num_threads())
        if key not in self._winners:
            race = interleaved({name: make(problem) for name, make in runners.items()}, 0.02, least=3)
            self._winners[key] = min(race, key=lambda name: race[name].median)
        return self._winners[key]

    def measure_shape(
        self, row: Row, line: Line, shape: dict[str, Any], tokens: list[int], threads: list[int]
    ) -> list[dict[str, Any]]:
        """Every cell of one layer: packs it once, checks each number of tokens, then times."""
        n, k = shape["out_features"], shape["in_features"]
        weight = torch.randn(n, k) / math.sqrt(k)
        bias = torch.randn(n)
        packed = sc.pack(weight.to(row.dtype), line.pattern, sparsity=line.sparsity, dtype=row.weights)
        dense, stored = packed.to_dense().double(), packed.stored
        cells = []
        for count in tokens:
            problem = peers.Problem(torch.randn(count, k), weight, bias)
            input, out = problem.input.to(row.dtype), torch.empty(count, n, dtype=row.dtype)
            run = into(packed, input, bias.to(row.dtype), out, row.compute)
            run()
            what = f"{row.title} {line.label} {shape['name']} M={count}"
            error = checked_error(packed, dense, input, bias.to(row.dtype), out, row.compute, what)
            for number in threads:
                torch.set_num_threads(number)
                timings, dense_name, best_name = self._time(row, problem, shape["name"], run)
                cell = {
                    "row": row.title,
                    "pattern": line.label,
                    "shape": shape["name"],
                    "tokens": count,
                    "threads": number,
                    **self._figures(row, timings, 2e-9 * count * stored, 2e-9 * count * n * k),
                    "dense": dense_name,
                    "best_dense": best_name,
                    "error": float(f"{error:.1e}"),
                }
                cells.append(cell)
        return cells

    def _time(
        self, row: Row, problem: peers.Problem, shape: str, run: peers.Peer
    ) -> tuple[dict[str, Timing], str, str]:
        best_name = self._winner(peers.DENSE, problem, shape)
        if row.compute == "int8":
            dense_name = self._winner(peers.INT8, problem, shape)
            dense = peers.INT8[dense_name](problem)
        else:
            dense_name = f"linear {NAMES[row.dtype]}"
            dense = peers.DENSE[dense_name](problem)
        candidates = {"ours": run, "dense": dense}
        if best_name != dense_name:
            candidates["best"] = peers.DENSE[best_name](problem)
        if row.compute == "int8":
            candidates["int8 product"] = peers.int8_mm_alone(problem)
        timings = interleaved(candidates, self.seconds)
        timings.setdefault("best", timings["dense"])
        return timings, dense_name, best_name

    def _figures(self, row: Row, timings: dict[str, Timing], kept: float, whole: float) -> dict[str, Any]:
        """``kept`` and ``whole``: 1e9 products and sums, of the kept weights and of the dense layer."""
        ours, dense, best = timings["ours"], timings["dense"], timings["best"]
        figures: dict[str, Any] = {
            "us": ours.microseconds(),
            "dense_us": dense.microseconds(),
            "best_dense_us": best.microseconds(),
            "rounds": ours.rounds,
            "ratio": round(dense.median / ours.median, 3),
            "ratio_best": round(best.median / ours.median, 3),
            "gflops": round(kept / ours.median, 1),
            "dense_gflops": round(whole / dense.median, 1),
        }
        limit = roof.measured(torch.get_num_threads()).get(row.roof)
        if limit:
            figures["share_of_peak"] = round(kept / ours.median / limit, 3)
        if "int8 product" in timings:
            figures["ratio_product_alone"] = round(timings["int8 product"].median / ours.median, 3)
        return figures


def summarise(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Geometric means over shapes and numbers of tokens, per row, sparsity and number of threads."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        groups[cell["row"], cell["pattern"], cell["threads"]].append(cell)
    lines = {(row.title, line.label): line for row in ROWS.values() for line in row.lines}
    summary = []
    for (title, label, threads), group in groups.items():
        line = lines[title, label]
        summary.append(
            {
                "row": title,
                "pattern": label,
                "threads": threads,
                "ratio": round(geometric(cell["ratio"] for cell in group), 2),
                "worst": min(cell["ratio"] for cell in group),
                "ratio_best": round(geometric(cell["ratio_best"] for cell in group), 2),
                "gflops": round(geometric(cell["gflops"] for cell in group), 1),
                "dense_gflops": round(geometric(cell["dense_gflops"] for cell in group), 1),
                "must": line.must,
                "stretch": line.stretch,
                "cells": len(group),
            }
        )
        shares = [cell["share_of_peak"] for cell in group if "share_of_peak" in cell]
        if shares:
            summary[-1]["share_of_peak"] = round(geometric(shares), 3)
    return summary


def verdict(line: dict[str, Any]) -> str:
    """Where a line of the summary stands."""
    return (
        "stretch"
        if line["ratio"] >= line["stretch"]
        else "must"
        if line["ratio"] >= line["must"]
        else "below"
    )


def show(summary: list[dict[str, Any]]) -> None:
    """Prints lines of the table, the losing ones as well."""
    for line in summary:
        share = f"{line['share_of_peak']:4.0%} of peak" if "share_of_peak" in line else ""
        print(
            f"{line['row']:33}{line['pattern']:>4} {line['threads']}T {line['ratio']:6.2f}x "
            f"(must {line['must']:g}, stretch {line['stretch']:g}: {verdict(line)};"
            f" worst {line['worst']:.2f}x; best dense {line['ratio_best']:.2f}x) "
            f"{line['gflops']:6.1f} GFLOP/s {share} dense {line['dense_gflops']:.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two shapes, 32 and 128 tokens, short timings")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=None, help="per cell")
    parser.add_argument("--isa", default=None, help="cap of our instruction set")
    parser.add_argument("--dry", action="store_true", help="print only, keep no result file")
    arguments = parser.parse_args()
    if arguments.isa:
        sc.cpu.use(arguments.isa)
    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    cells = Cells(arguments.seconds or (0.03 if arguments.quick else 0.06))
    shapes = (
        [s for s in SHAPES["layers"] if s["name"] in SHAPES["quick"]] if arguments.quick else SHAPES["layers"]
    )
    tokens = SHAPES["tokens"][:2] if arguments.quick else SHAPES["tokens"]
    threads = [number for number in arguments.threads if number <= torch.get_num_threads()]
    command = shlex.join(["python", "benchmarks/python/bench_linear.py", *sys.argv[1:]])
    with torch.inference_mode():
        for name in arguments.rows:
            row = adapted(ROWS[name])
            measured: list[dict[str, Any]] = []
            for line in row.lines:
                for shape in shapes:
                    measured += cells.measure_shape(row, line, shape, tokens, threads)
                show([s for s in summarise(measured) if s["pattern"] == line.label])
            if not arguments.dry:
                capped = f"_{arguments.isa}" if arguments.isa else ""
                path = write(
                    f"linear_{name}{capped}",
                    describe(command, {number: roof.measured(number) for number in threads}),
                    measured,
                )
                print(f"written: {path.relative_to(ROOT)}", flush=True)


def adapted(row: Row) -> Row:
    """The row with the roof of the arithmetic that this machine and cap really use for it."""
    dots = sc.cpu.isa() in ("avx512_bf16", "avx512_fp16") and introspection and introspection.fast_bf16_dot()
    return replace(row, roof="fma_float32") if row.roof == "dot_bfloat16" and not dots else row


if __name__ == "__main__":
    main()
