"""What an ordering of hidden units is worth: kept magnitude and quality of a real encoder, one shot.

all-MiniLM-L6-v2's feed-forward blocks are reordered (rows of the first layer, columns of the second), then the whole
encoder is pruned by magnitude order on the reordered weights with ALPS.

python benchmarks/python/bench_orderings.py [--dry]
"""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

import torch

import sparsecore as sc
from machine import ROOT, describe, write
from sparsecore.demo.encoder import embed, minilm, quality

CASES: tuple[tuple[str, float | None], ...] = (
    ("2:4", None),
    ("2:4/16", None),
    ("2:4/64", None),
    ("16x1", 0.5),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dry", action="store_true", help="print only, keep no result file")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each pair of layers")
    arguments = parser.parse_args()
    source = minilm(512, 128, 128)
    dense = source.make()
    reference = embed(dense, source.held_out)
    pairs = [
        (f"encoder.layer.{i}.intermediate.dense", f"encoder.layer.{i}.output.dense")
        for i in range(len(dense.encoder.layer))
    ]
    rows: list[dict[str, Any]] = []
    for spec, sparsity in CASES:
        pattern = sc.pattern(spec)
        for ordered in (False, True):
            model = source.make()
            gains = [(0.0, 0.0)]
            if ordered:
                found = sc.sparsify.order_hidden_(
                    model, pairs, pattern, sparsity, seconds=arguments.seconds, progress=False
                )
                gains = [(ordering.before, ordering.after) for ordering in found.values()]
                assert torch.allclose(embed(model, source.held_out), reference, atol=1e-4)
            sc.sparsify.alps(
                model,
                pattern,
                source.calibration,
                sparsity=sparsity,
                targets=source.targets,
                progress=False,
            )
            row = {
                "pattern": spec + (f" {sparsity:.0%}" if sparsity else ""),
                "ordered": ordered,
                "kept_before": sum(before for before, _ in gains) / len(gains),
                "kept_after": sum(after for _, after in gains) / len(gains),
                **quality(embed(model, source.held_out), reference),
            }
            rows.append(row)
            print(row, flush=True)
    if not arguments.dry:
        command = shlex.join(["python", "benchmarks/python/bench_orderings.py", *sys.argv[1:]])
        print(f"written: {write('orderings', describe(command, {}), rows).relative_to(ROOT)}")


if __name__ == "__main__":
    main()
