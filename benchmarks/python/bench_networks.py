"""Whole image networks, batch 1: dense and pruned ones of ours beside dense engines, in turns.

    python benchmarks/python/bench_networks.py [--quick] [--networks mobilenet_v1 ...] [--threads 1 2]

The networks of ``benchmarks/models`` have random weights, so this is about time alone; every engine's output is
compared with torch's first. Ours run the dense network and copies of it, pruned in all layers but the stem, depthwise
ones and gates: unstructured, in 4x1 and 16x1 groups, and with 30 % of the 16x1 groups gone. The other engines run the
dense one. Each engine has a process of its own, and sleeps while another is timed (see ``workers``). The ratio is that
of the fastest dense engine.

Under a cap (``--isa avx2`` with ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
OV_CPU_MAX_ISA=AVX2, as ``benchmarks/run.py --only networks_avx2`` does) only the engines that obey it take part; the
rest are named. A result file per network.
"""

from __future__ import annotations

import argparse
import copy
import shlex
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import roof
import sparsecore as sc
from engines import ENGINES, UNCAPPED, Call, dense_engine, relative_error, write_onnx
from machine import ROOT, describe, write
from timing import Timing
from workers import Worker, in_turns

sys.path.insert(0, str(ROOT / "benchmarks"))
from models import MODELS, calibrate_, prune_

READ_ONNX = ("onnxruntime", "openvino", "MNN")


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


@dataclass(frozen=True)
class Ours:
    """A compiled network: its file, its error against torch on the same pruned model, and its memory."""

    file: bytes
    error: float
    arena_bytes: int
    weight_bytes: int


def compiled(dense: nn.Module, variants: tuple[Variant, ...], example: Tensor) -> dict[str, Ours]:
    """Ours by label."""
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
        found[variant.label] = Ours(network.file_bytes, error, network.arena_bytes, network.weight_bytes)
    return found


def our_calls(files: dict[str, bytes], example: Tensor, threads: int, isa: str | None) -> dict[str, Call]:
    """Calls of our networks in a process of their own."""
    torch.set_num_threads(threads)
    if isa:
        sc.cpu.use(isa)
    networks = {label: sc.Network(file) for label, file in files.items()}
    return {label: (lambda n=network: n(example)) for label, network in networks.items()}


def measure(
    dense: nn.Module,
    ours: dict[str, Ours],
    engines: tuple[str, ...],
    onnx: Path,
    example: Tensor,
    threads: int,
    seconds: float,
    isa: str | None,
) -> tuple[dict[str, Timing], dict[str, int], dict[str, str]]:
    """Timings by label or engine, how many turns were disturbed, and the engines that are missing with the reason."""
    calls: dict[str, Worker] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        files = {label: each.file for label, each in ours.items()}
        started = [stack.enter_context(Worker(our_calls, files, example, threads, isa))]
        for engine in engines:
            started.append(stack.enter_context(Worker(dense_engine, engine, dense, example, onnx, threads)))
        for worker, engine in zip(started, ("sparsecore", *engines), strict=True):
            try:
                calls |= dict.fromkeys(worker.names(), worker)
            except RuntimeError as problem:
                if engine == "sparsecore":
                    raise
                missing[engine] = str(problem)
        timings, disturbed = in_turns(calls, seconds)
    return timings, disturbed, missing


def rows_of(
    name: str,
    size: int,
    threads: int,
    ours: dict[str, Ours],
    timings: dict[str, Timing],
    disturbed: dict[str, int],
) -> list[dict[str, Any]]:
    """The rows of one network and number of threads."""
    peers = [engine for engine in timings if engine not in ours]
    best = min(peers, key=lambda engine: timings[engine].median) if peers else None
    own = timings["dense"].median if "dense" in ours else None
    rows: list[dict[str, Any]] = []
    for label, timing in timings.items():
        row: dict[str, Any] = {
            "network": name,
            "size": size,
            "name": label,
            "engine": "sparsecore" if label in ours else label,
            "threads": threads,
            "us": timing.microseconds(),
            "calls": timing.rounds,
            "disturbed": disturbed[label],
        }
        if label in ours:
            each = ours[label]
            if best:
                row |= {"best": best, "ratio": round(timings[best].median / timing.median, 3)}
            if own:
                row["ratio_own"] = round(own / timing.median, 3)
            row |= {
                "arena_bytes": each.arena_bytes,
                "weight_bytes": each.weight_bytes,
                "error": float(f"{each.error:.1e}"),
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
    parser.add_argument(
        "--name",
        default="networks",
        help="of the results: apart, where a word takes long between processors",
    )
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
    with torch.no_grad():
        for name in networks:
            torch.manual_seed(0)
            dense = calibrate_(MODELS[name]())
            example = torch.randn(1, 3, arguments.size, arguments.size)
            ours = compiled(dense, variants, example)
            onnx = ROOT / "build" / "networks" / f"{name}_{arguments.size}.onnx"
            onnx.parent.mkdir(parents=True, exist_ok=True)
            if not onnx.exists() and set(engines) & set(READ_ONNX):
                write_onnx(dense, example, onnx)
            rows: list[dict[str, Any]] = []
            missing: dict[str, str] = {}
            for number in threads:
                timings, disturbed, absent = measure(
                    dense, ours, engines, onnx, example, number, seconds, arguments.isa
                )
                measured = rows_of(name, arguments.size, number, ours, timings, disturbed)
                show(measured)
                for engine, reason in absent.items():
                    print(f"{name}: no {engine}: {reason}", flush=True)
                missing |= {
                    f"{engine}, {number} thread{'s' * (number > 1)}": why for engine, why in absent.items()
                }
                rows += measured
            if not arguments.dry:
                capped = f"_{arguments.isa}" if arguments.isa else ""
                header = describe(command, {str(number): roof.measured(number) for number in threads})
                header |= {"missing": missing, "left_out": left_out}
                path = write(f"{arguments.name}_{name}{capped}", header, rows)
                print(f"written: {path.relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    main()
