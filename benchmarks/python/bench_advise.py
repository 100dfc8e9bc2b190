"""Does advice hold? Predicted against measured time of a real encoder, for several budgets and batch sizes.

python benchmarks/python/bench_advise.py [--dry]
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from statistics import median
from typing import Any

import torch

import sparsecore as sc
from machine import ROOT, describe, write
from sparsecore.demo.encoder import minilm


def measured(model: torch.nn.Module, dense: torch.nn.Module, batch: Any) -> tuple[float, float]:
    """Median seconds of both, interleaved."""
    times: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for turn in range(14):
            for found, runner in zip(times, (model, dense), strict=True):
                begin = time.perf_counter()
                runner(**batch)
                if turn > 1:
                    found.append(time.perf_counter() - begin)
    return median(times[0]), median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true", help="print only, keep no result file")
    arguments = parser.parse_args()
    source = minilm(64, 32, 128)
    rows: list[dict[str, Any]] = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for size in (1, 8):
            batch = source.timing(size)
            dense = source.make()
            advice = sc.advise(
                dense, data=[batch], seconds=12.0, latency=0.7, targets=source.targets, progress=False
            )
            for budget in (0.7, 0.5):
                chosen = advice.choose(latency=budget)
                model = chosen.apply_(source.make(), progress=False)
                ours, theirs = measured(model, dense, batch)
                row = {
                    "threads": threads,
                    "batch": size,
                    "latency": budget,
                    "patterns": sorted({pattern for pattern, _ in chosen.assignment.values()}),
                    "predicted_ms": chosen.seconds * 1e3,
                    "measured_ms": ours * 1e3,
                    "error": chosen.seconds / ours - 1,
                    "dense_predicted_ms": chosen.dense_seconds * 1e3,
                    "dense_ms": theirs * 1e3,
                    "cost": chosen.cost,
                }
                rows.append(row)
                print(row, flush=True)
    if not arguments.dry:
        command = shlex.join(["python", "benchmarks/python/bench_advise.py", *sys.argv[1:]])
        print(f"written: {write('advise', describe(command, {}), rows).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
