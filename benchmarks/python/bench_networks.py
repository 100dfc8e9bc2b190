"""Whole image networks, batch 1: dense and pruned ones of ours beside dense engines, in one process, in turns.

    python benchmarks/python/bench_networks.py [--quick] [--networks mobilenet_v1 ...] [--threads 1 2]

The networks of ``benchmarks/models`` have random weights, so this is about time alone; every engine's output is
compared with torch's first. Ours run the dense network and copies of it, pruned in all layers but the stem, depthwise
ones and gates: unstructured, in 4x1 and 16x1 groups, and with 30 % of the 16x1 groups gone. The other engines run the
dense one. Before each turn there is a pause and an uncounted call (see ``timing.in_turns``). The ratio is that of the
fastest dense engine.

Under a cap (``--isa avx2`` with ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2) only the
engines that obey it take part; the rest are named.
"""

from __future__ import annotations

import argparse
import copy
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import roof
import sparsecore as sc
from engines import UNCAPPED, Call, dense_engines, relative_error
from machine import ROOT, describe, write
from timing import in_turns

sys.path.insert(0, str(ROOT / "benchmarks"))
from models import MODELS, calibrate_, prune_

ENGINES = ("torch", "torch channels_last", "torch.compile", "onnxruntime", "openvino", "litert", "MNN")


@dataclass(frozen=True)
class Variant:
    """How ours is pruned, and the ratios it must and wants to reach over the best dense engine on MobileNetV1."""

    label: str
    sparsity: float = 0.0
    rows: int = 1
    must: float | None = None
    stretch: float | None = None


VARIANTS = (
    Variant("dense", must=0.9, stretch=1.05),
    Variant("unstructured 80%", 0.8, 1, 1.9, 2.6),
    Variant("unstructured 90%", 0.9, 1, 2.9, 4.2),
    Variant("unstructured 95%", 0.95, 1, 3.8, 5.5),
    Variant("4x1 80%", 0.8, 4, 2.4, 3.3),
    Variant("4x1 90%", 0.9, 4, 3.6, 5.0),
    Variant("4x1 95%", 0.95, 4, 4.4, 6.0),
    Variant("16x1 80%", 0.8, 16),
    Variant("16x1 90%", 0.9, 16),
    Variant("16x1 30%", 0.3, 16),
)
OVER_OWN_DENSE = {"16x1 30%": (1.27, 1.35)}  # must and stretch over our own dense network


def compiled(
    dense: nn.Module, variants: tuple[Variant, ...], example: torch.Tensor
) -> dict[str, tuple[sc.Network, float]]:
    """Ours by label, each with its error against torch on the same pruned model."""
    found = {}
    for variant in variants:
        model = copy.deepcopy(dense)
        if variant.sparsity:
            model = calibrate_(prune_(model, variant.sparsity, variant.rows))
        network = sc.compile(model, example)
        assert isinstance(network, sc.Network)
        error = relative_error(network(example), model(example))
        if error > 1e-3:
            raise RuntimeError(f"{variant.label}: wrong result, relative error {error:.1e}")
        found[variant.label] = (network, error)
    return found


def measure(
    name: str,
    ours: dict[str, tuple[sc.Network, float]],
    engines: dict[str, Call],
    threads: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """The rows of one network and number of threads."""
    example = torch.zeros(1, *next(iter(ours.values()))[0].inputs[0].shape).normal_()
    calls: dict[str, Call] = {label: (lambda n=network: n(example)) for label, (network, _) in ours.items()}
    timings = in_turns({**calls, **engines}, seconds)
    best = min(engines, key=lambda engine: timings[engine].median) if engines else None
    own = timings["dense"].median if "dense" in timings else None
    rows: list[dict[str, Any]] = []
    for label, timing in timings.items():
        row: dict[str, Any] = {
            "network": name,
            "size": example.shape[2],
            "name": label,
            "engine": "sparsecore" if label in ours else label,
            "threads": threads,
            "us": timing.microseconds(),
            "calls": timing.rounds,
        }
        if label in ours:
            network, error = ours[label]
            if best:
                row |= {"best": best, "ratio": round(timings[best].median / timing.median, 3)}
            if own:
                row["ratio_own"] = round(own / timing.median, 3)
            row |= {
                "arena_bytes": network.arena_bytes,
                "weight_bytes": network.weight_bytes,
                "error": float(f"{error:.1e}"),
            }
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Prints rows, each with its target where there is one."""
    targets = {variant.label: variant for variant in VARIANTS}
    for row in rows:
        middle, low, high = row["us"]
        text = f"{row['network']:20}{row['threads']}T {row['name']:22}"
        text += f"{middle / 1e3:8.2f} ms ({low / 1e3:.2f} to {high / 1e3:.2f})"
        if "ratio" in row:
            text += f" {row['ratio']:6.2f}x of {row['best']}"
        if "ratio_own" in row and row["name"] != "dense":
            text += f", {row['ratio_own']:.2f}x of our dense"
        target = targets.get(row["name"])
        if row["network"] == "mobilenet_v1" and target and target.must:
            text += f" (must {target.must:g}, stretch {target.stretch:g})"
        if row["network"] == "mobilenet_v1" and row["name"] in OVER_OWN_DENSE:
            text += " (over our dense: must {:g}, stretch {:g})".format(*OVER_OWN_DENSE[row["name"]])
        print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="MobileNetV1 with three variants, short timings")
    parser.add_argument("--networks", nargs="+", default=None, choices=list(MODELS))
    parser.add_argument(
        "--variants", nargs="+", default=None, choices=[variant.label for variant in VARIANTS]
    )
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=None, help="per network and number of threads")
    parser.add_argument("--isa", default=None, help="cap of our instruction set")
    parser.add_argument("--dry", action="store_true", help="print only, keep no result file")
    arguments = parser.parse_args()
    if arguments.isa:
        sc.cpu.use(arguments.isa)
    quick = ("dense", "unstructured 90%", "4x1 90%")
    labels = arguments.variants or (quick if arguments.quick else [variant.label for variant in VARIANTS])
    variants = tuple(variant for variant in VARIANTS if variant.label in labels)
    networks = arguments.networks or (["mobilenet_v1"] if arguments.quick else list(MODELS))
    seconds = arguments.seconds or (3 if arguments.quick else 20)
    engines = tuple(engine for engine in arguments.engines if not (arguments.isa and engine in UNCAPPED))
    if left_out := [engine for engine in arguments.engines if engine not in engines]:
        print(f"left out, as nothing holds them to {arguments.isa}: {', '.join(left_out)}")
    threads = [number for number in arguments.threads if number <= torch.get_num_threads()]
    torch.set_flush_denormal(True)
    command = shlex.join(["python", "benchmarks/python/bench_networks.py", *sys.argv[1:]])
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for name in networks:
            torch.manual_seed(0)
            dense = calibrate_(MODELS[name]())
            example = torch.randn(1, 3, arguments.size, arguments.size)
            ours = compiled(dense, variants, example)
            for number in threads:
                torch.set_num_threads(number)
                calls, absent = dense_engines(dense, example, Path(folder) / f"{name}.onnx", number, engines)
                for engine, reason in absent.items():
                    print(f"{name}: no {engine}: {reason}", flush=True)
                    missing.setdefault(engine, reason)
                measured = measure(name, ours, calls, number, seconds)
                show(measured)
                rows += measured
    if not arguments.dry:
        capped = f"_{arguments.isa}" if arguments.isa else ""
        header = describe(command, {str(number): roof.measured(number) for number in threads})
        path = write(f"networks{capped}", header | {"missing": missing, "left_out": left_out}, rows)
        print(f"written: {path.relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    main()
