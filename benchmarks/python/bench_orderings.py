"""What an ordering of hidden units is worth: kept score and quality of a real encoder, pruned in one shot.

The units of all-MiniLM-L6-v2's feed-forward blocks, and those of its attention heads between value and output, are
reordered by the score of Wanda; then the whole encoder is pruned, with ALPS or Wanda.

python benchmarks/python/bench_orderings.py [--method wanda] [--dry]
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
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
    parser.add_argument("--seconds", type=float, default=10.0, help="most, for each pair of layers")
    parser.add_argument("--method", choices=("alps", "wanda"), default="alps")
    arguments = parser.parse_args()
    source = minilm(512, 128, 128)
    dense = source.make()
    reference = embed(dense, source.held_out)
    names = [f"encoder.layer.{i}" for i in range(len(dense.encoder.layer))]
    heads = dense.config.num_attention_heads
    blocks = [(f"{name}.intermediate.dense", f"{name}.output.dense") for name in names]
    attention = [(f"{name}.attention.self.value", f"{name}.attention.output.dense", heads) for name in names]
    prune = {"alps": sc.sparsify.alps, "wanda": sc.sparsify.wanda}[arguments.method]
    rows: list[dict[str, Any]] = []
    for spec, sparsity in CASES:
        pattern = sc.pattern(spec)
        row: dict[str, Any] = {"pattern": spec + (f" {sparsity:.0%}" if sparsity else "")}
        for ordered in (False, True):
            model = source.make()
            if ordered:
                start = time.perf_counter()
                found = sc.sparsify.order_hidden_(
                    model,
                    [*blocks, *attention],
                    pattern,
                    sparsity,
                    data=source.calibration,
                    seconds=arguments.seconds,
                    progress=False,
                )
                row["seconds"] = time.perf_counter() - start
                for title, pairs in (("blocks", blocks), ("attention", attention)):
                    mine = [found[pair[0]] for pair in pairs]
                    row[f"{title}_before"] = sum(each.before for each in mine) / len(mine)
                    row[f"{title}_after"] = sum(each.after for each in mine) / len(mine)
                assert torch.allclose(embed(model, source.held_out), reference, atol=1e-4)
            prune(
                model,
                pattern,
                source.calibration,
                sparsity=sparsity,
                targets=source.targets,
                progress=False,
            )
            judged = quality(embed(model, source.held_out), reference)
            row |= {f"{key}_{'after' if ordered else 'before'}": value for key, value in judged.items()}
        rows.append(row)
        print(row, flush=True)
    if not arguments.dry:
        command = shlex.join(["python", "benchmarks/python/bench_orderings.py", *sys.argv[1:]])
        print(
            f"written: {write(f'orderings_{arguments.method}', describe(command, {}), rows).relative_to(ROOT)}"
        )


if __name__ == "__main__":
    main()
