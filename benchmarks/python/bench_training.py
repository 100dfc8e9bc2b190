"""Truly sparse training beside dense training: time of a step of one layer, memory of a network.

A step is forward, input gradient, weight gradient and Adam. Memory is the highest resident memory of a process of its
own while it trains four layers of 2048 x 2048 with Adam, over what it had before the network was made.

python benchmarks/python/bench_training.py [--quick] [--threads 1 2]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import math
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import sparsecore as sc
from machine import ROOT, SHAPES, describe, write
from peers import Peer
from timing import interleaved

CASES = (
    ("2:4, vector 64", sc.NM(2, 4, vector=64), None),
    ("2:4 per row", sc.NM(2, 4), None),
    ("50% unstructured", sc.Unstructured(), 0.5),
    ("70% unstructured", sc.Unstructured(), 0.7),
    ("80% unstructured", sc.Unstructured(), 0.8),
    ("90% unstructured", sc.Unstructured(), 0.9),
    ("95% unstructured", sc.Unstructured(), 0.95),
    ("98% unstructured", sc.Unstructured(), 0.98),
)
MEMORY = ((None, 0.0), (sc.NM(2, 4), None), *((sc.Unstructured(), part) for part in (0.8, 0.9, 0.95, 0.98)))


def step(layer: torch.nn.Module, input: Tensor, direction: Tensor) -> Peer:
    """Forward, backward and Adam; gradients are made anew each time."""
    optimizer = torch.optim.Adam(layer.parameters(), 1e-6)

    def run() -> None:
        input.grad = None
        optimizer.zero_grad()
        layer(input).backward(direction)
        optimizer.step()

    return run


def resident(field: str) -> int:
    """``VmRSS`` or ``VmHWM`` (the highest so far) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"resident: this kernel does not report {field}.")


def train_in_child(pattern: sc.Pattern | None, sparsity: float | None, tokens: int) -> int:
    """Highest resident bytes of a forked child that trains for four steps, over its first."""
    read, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        before = resident("VmRSS")
        layers: list[torch.nn.Module] = []
        for _ in range(4):
            if pattern is None:
                layers += [torch.nn.Linear(2048, 2048), torch.nn.ReLU()]
            else:
                layer = sc.nn.SparseLinear(2048, 2048, pattern=pattern, sparsity=sparsity)
                layers += [layer, torch.nn.ReLU()]
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.Adam(model.parameters(), 1e-4)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the highest so far starts again here
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.randn(tokens, 2048)).square().mean().backward()
            optimizer.step()
        os.write(write_end, str(resident("VmHWM") - before).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1] != 0 or not text:
        raise RuntimeError("train_in_child: the process that trains failed.")
    return int(text)


def memory(tokens: int) -> list[dict[str, Any]]:
    """Rows of bytes, dense first."""
    for small in (torch.nn.Linear(16, 16), sc.nn.SparseLinear(16, 16, pattern="2:4")):
        step(small, torch.randn(4, 16, requires_grad=True), torch.randn(4, 16))()  # loads what is loaded late
    rows: list[dict[str, Any]] = []
    for pattern, sparsity in MEMORY:
        peak = train_in_child(pattern, sparsity, tokens)
        label = "dense" if pattern is None else str(sc.patterns.pattern_name(pattern))
        label += f" {sparsity:.0%}" if sparsity else ""
        dense = rows[0]["bytes"] if rows else peak
        rows.append({"pattern": label, "tokens": tokens, "bytes": peak, "of_dense": round(peak / dense, 3)})
        print(
            f"{label:17} 4 x 2048x2048 M={tokens} Adam  {peak / 2**20:.0f} MiB, {peak / dense:.2f} of dense"
        )
    return rows


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
    shapes = SHAPES["training"]["layers"][: 1 if arguments.quick else None]
    # First, while this process has no freed memory that its children would fill again unseen.
    bytes_rows = memory(32) if Path("/proc/self/clear_refs").exists() else []
    rows: list[dict[str, Any]] = []
    for number, shape, tokens in itertools.product(threads, shapes, SHAPES["training"]["tokens"]):
        torch.set_num_threads(number)
        n, k = shape["out_features"], shape["in_features"]
        dense = torch.nn.Linear(k, n)
        for label, pattern, sparsity in CASES:
            layer = sc.nn.SparseLinear.from_dense(dense, pattern, sparsity=sparsity)
            input = torch.randn(tokens, k, requires_grad=True)
            direction = torch.randn(tokens, n) / math.sqrt(n)
            candidates = {"ours": step(layer, input, direction), "dense": step(dense, input, direction)}
            timings = interleaved(candidates, 0.05 if arguments.quick else 0.3)
            ours, peer = timings["ours"], timings["dense"]
            ratio = round(peer.median / ours.median, 3)
            rows.append(
                {
                    "pattern": label,
                    "shape": shape["name"],
                    "tokens": tokens,
                    "threads": number,
                    "us": ours.microseconds(),
                    "dense_us": peer.microseconds(),
                    "ratio": ratio,
                }
            )
            print(f"{label:17} {shape['name']:10} M={tokens} {number}T  {ratio:.2f}x dense", flush=True)
    if not arguments.dry:
        command = shlex.join(["python", "benchmarks/python/bench_training.py", *sys.argv[1:]])
        print(f"written: {write('training', describe(command, {}), rows).relative_to(ROOT)}")
        if bytes_rows:
            written = write("memory_training", describe(command, {}), bytes_rows)
            print(f"written: {written.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
