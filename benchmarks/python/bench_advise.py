"""Does advice hold? Of a real encoder, all-MiniLM-L6-v2:

    python benchmarks/python/bench_advise.py times [--dry]
    python benchmarks/python/bench_advise.py quality [--dry]

``times``: predicted against measured time, for several budgets and batch sizes. ``quality``: one pattern for all layers
against what is advised for the same predicted time, both pruned in one shot by ALPS; cosine and top-1 retrieval of the
sentence embeddings against the dense model's on held-out texts.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections import Counter
from dataclasses import replace
from statistics import median
from typing import Any

import torch

import sparsecore as sc
from machine import ROOT, describe, write
from sparsecore.demo.encoder import embed, minilm, quality


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


def times() -> list[dict[str, Any]]:
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
    return rows


def quality_at_equal_time() -> list[dict[str, Any]]:
    source = minilm(256, 64, 128)
    reference = embed(source.make(), source.held_out)
    data = [source.timing(1), *source.calibration]
    advice = sc.advise(
        source.make(), data=data, threads=1, seconds=14.0, targets=source.targets, progress=False
    )
    titles = [option.title for option in advice.layers[0].options]
    rows: list[dict[str, Any]] = []
    for title in ("unstructured 50%", "unstructured 70%", "unstructured 80%", "unstructured 90%", "2:4"):
        index = titles.index(title)
        same = replace(advice, layers=tuple(replace(layer, chosen=index) for layer in advice.layers))
        advised = advice.choose(latency=f"{same.seconds * 1e3:.6f}ms")
        row: dict[str, Any] = {"pattern": title, "predicted_ms": same.seconds * 1e3}
        for name, chosen in (("same", same), ("advised", advised)):
            model = source.make()
            chosen.apply_(model, source.calibration, progress=False)
            row[name] = quality(embed(model, source.held_out), reference) | {"cost": chosen.cost}
            del model
        row["assignment"] = Counter(layer.choice.title for layer in advised.layers)
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("times", "quality"))
    parser.add_argument("--dry", action="store_true", help="print only, keep no result file")
    arguments = parser.parse_args()
    rows = times() if arguments.what == "times" else quality_at_equal_time()
    if not arguments.dry:
        command = shlex.join(["python", "benchmarks/python/bench_advise.py", *sys.argv[1:]])
        path = write(f"advise_{arguments.what}", describe(command, {}), rows)
        print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
