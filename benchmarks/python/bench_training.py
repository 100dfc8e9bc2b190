"""A training step of one layer, forward, input gradient and weight gradient, beside the dense layer.

python benchmarks/python/bench_training.py [--quick] [--threads 1 2]
"""

from __future__ import annotations

import argparse
import itertools
import math
import shlex
import sys
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
    ("80% unstructured", sc.Unstructured(), 0.8),
    ("95% unstructured", sc.Unstructured(), 0.95),
)


def step(layer: torch.nn.Module, input: Tensor, direction: Tensor) -> Peer:
    """Forward and backward; gradients are made anew each time."""

    def run() -> None:
        for tensor in (input, *layer.parameters()):
            tensor.grad = None
        layer(input).backward(direction)

    return run


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


if __name__ == "__main__":
    main()
