"""Sparse 1x1 convolutions of image networks beside dense ones, batch 1, in one process, interleaved.

    python benchmarks/python/bench_conv.py [--quick] [--families mobilenet_v1 ...] [--threads 1 2]

Per layer take turns, 2 ms of calls in a row each (two threads: five calls after a pause): ours for every pattern and
sparsity, on planes where they lie, input and output bound; torch's conv2d on planes and on pixels (channels_last);
torch's dense product ``W @ X``; onnxruntime with bound inputs and outputs. The ratio is that of the fastest dense one.
Weights are prepared beforehand for all. Results are checked first. What a call costs beside the kernel, of a layer too
small to count, is measured as well: of a bound one, of the operator, of torch's conv2d and of onnxruntime.

Every row has its bound, the time below which this machine cannot go, the largest of
  products   kept weights x pixels at the rate of products out of registers
  loads      one register of x from the level 1 cache for every record and 16 pixels (8 on AVX2)
  bytes      the channels of x that have weights read and y written once, at the rate of copies of that size
with rates that the program ``roof`` has just measured. Beginning and ending a list and the call are not in it.

At the end: geometric means per family, pattern and sparsity beside their targets and beside the ratio the bound would
give, and the sparsity from which a pattern wins.

Under a cap (``--isa avx2`` with ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2)
onnxruntime, which has no such switch, is left out.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import shlex
import sys
import time
from collections import defaultdict
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import engines
import roof
import sparsecore as sc
from machine import ROOT, describe, write
from timing import geometric, in_turns, interleaved

sys.path.insert(0, str(ROOT / "benchmarks"))
from models.prune import kept_blocks
from sparsecore.ops import BoundConv2d

SHAPES = json.loads((ROOT / "benchmarks" / "shapes" / "conv.json").read_text())
SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
QUICK = ("784x256x256", "196x512x512", "49x960x160")
PATTERNS = {"unstructured": 1, "4x1": 4, "8x1": 8, "16x1": 16}
# must and stretch of the geometric mean over all families, by pattern and sparsity
_TALL = {0.7: (2.6, 3.0), 0.8: (4.0, 4.6), 0.9: (8.0, 9.0), 0.95: (14.0, 17.0)}
TARGETS: dict[str, dict[float, tuple[float, float]]] = {
    "unstructured": {0.7: (1.5, 1.9), 0.8: (2.3, 2.9), 0.9: (4.5, 5.6), 0.95: (8.0, 10.0)},
    "4x1": {0.7: (2.3, 2.6), 0.8: (3.5, 4.0), 0.9: (7.0, 8.0), 0.95: (12.0, 15.0)},
    "8x1": _TALL,
    "16x1": _TALL,
}


def onnx_layer(weight: Tensor, bias: Tensor, image: Tensor) -> bytes:
    """The layer alone as an ONNX model."""
    from onnx import TensorProto, helper, numpy_helper

    n = weight.shape[0]
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], kernel_shape=[1, 1])
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(image.shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, n, *image.shape[2:]])],
        [numpy_helper.from_array(weight.numpy(), "w"), numpy_helper.from_array(bias.numpy(), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def dense_calls(
    weight: Tensor, bias: Tensor, image: Tensor, threads: int, capped: bool
) -> dict[str, engines.Call]:
    """Every dense way to compute the layer that gives its result."""
    pixels = image.contiguous(memory_format=torch.channels_last)
    pixel_weight = weight.contiguous(memory_format=torch.channels_last)
    matrix, planes, column = weight.flatten(1), image[0].flatten(1), bias[:, None]
    calls: dict[str, engines.Call] = {
        "conv2d": lambda: functional.conv2d(image, weight, bias),
        "conv2d channels_last": lambda: functional.conv2d(pixels, pixel_weight, bias),
        "addmm": lambda: torch.addmm(column, matrix, planes),
    }
    if not capped:
        calls["onnxruntime"] = engines.onnxruntime(onnx_layer(weight, bias, image), image, threads)
    wanted = functional.conv2d(image.double(), weight.double(), bias.double())
    for name, call in calls.items():
        error = engines.relative_error(engines.result_of(call()).double(), wanted)
        if error > 1e-4:
            raise RuntimeError(f"{name}: wrong result, relative error {error:.1e}")
    return calls


def our_call(
    weight: Tensor, bias: Tensor, image: Tensor, out: Tensor, rows: int
) -> tuple[BoundConv2d, int, int]:
    """Ours for a weight with zeros, into ``out``, checked; how many weights it stores, how many channels it reads."""
    matrix = weight.flatten(1)
    pattern: sc.Pattern = sc.Group(rows, 1) if rows > 1 else sc.Unstructured()
    packed = sc.pack(matrix, pattern, matrix != 0, layout="group_lists")
    parts = (packed.values, packed.index, packed.order, packed.starts, None, bias)
    call = BoundConv2d(image, *parts, out=out, kernel_size=(1, 1), depth=packed.depth, window=packed.window)
    wanted = functional.conv2d(image.double(), weight.double(), bias.double())
    error = engines.relative_error(call().double(), wanted)
    if error > 1e-4:
        raise RuntimeError(f"{rows}x1: wrong result, relative error {error:.1e}")
    return call, packed.stored, int(matrix.any(0).sum())


def cost_of_a_call(threads: int, capped: bool) -> dict[str, float]:
    """Microseconds of a call beside its kernel, by a layer of 16 x 16 channels and 16 pixels."""
    image, bias, weight = torch.randn(1, 16, 4, 4), torch.randn(16), torch.randn(16, 16, 1, 1)
    dense = dense_calls(weight, bias, image, threads, capped)
    packed = sc.pack(weight.flatten(1), sc.Unstructured(), sparsity=0.9, layout="group_lists")
    bound, *_ = our_call(packed.to_dense()[:, :, None, None], bias, image, torch.empty(1, 16, 4, 4), 1)
    calls: dict[str, engines.Call] = {
        "bound": bound,
        "operator": lambda: packed.conv2d(image, bias, kernel_size=(1, 1)),
        **{name: call for name, call in dense.items() if name in ("conv2d", "onnxruntime")},
    }
    return {name: timing.microseconds()[0] for name, timing in interleaved(calls, 1.0).items()}


def bound(
    shape: dict[str, Any], stored: int, read: int, rows: int, limits: dict[str, float]
) -> dict[str, float]:
    """Microseconds that products, loads and bytes take at least, by the measured limits of the machine."""
    pixels = shape["pixels"]
    moved = 4 * pixels * (read + shape["out_channels"])
    sizes = {int(name.split("_")[-1][:-3]): rate for name, rate in limits.items() if name.startswith("copy_")}
    copies = sizes[max((kib for kib in sizes if kib * 1024 <= moved), default=min(sizes))]
    found = {
        "products": 2e-3 * stored * pixels / limits["fma_float32"],
        "loads": 2e-3 * stored / rows * pixels / limits["fma_loaded_float32"],
        "bytes": 1e-3 * moved / copies,
    }
    return {name: round(time, 2) for name, time in found.items()}


def scaling(call: engines.Call, threads: int, rounds: int = 9, burst: float = 2e-3) -> float:
    """Time of one thread over that of ``threads``, calls in a row, in turns."""
    times: dict[int, list[float]] = {1: [], threads: []}
    for _ in range(rounds):
        for number, samples in times.items():
            torch.set_num_threads(number)
            call()
            count, start = 0, time.perf_counter()
            while (now := time.perf_counter()) < start + burst:
                call()
                count += 1
            samples.append((now - start) / count)
    return median(times[1]) / median(times[threads])


def measure(
    shape: dict[str, Any], sparsities: tuple[float, ...], threads: int, seconds: float, capped: bool
) -> list[dict[str, Any]]:
    """The rows of one layer and number of threads."""
    torch.manual_seed(0)
    n, k, size = shape["out_channels"], shape["in_channels"], math.isqrt(shape["pixels"])
    image, bias = torch.randn(1, k, size, size), torch.randn(n)
    weight = torch.randn(n, k, 1, 1) / math.sqrt(k)
    dense = dense_calls(weight, bias, image, threads, capped)
    ours: dict[tuple[str, float], tuple[BoundConv2d, int, int]] = {}
    out = torch.empty(1, n, size, size)
    for pattern, rows in PATTERNS.items():
        for sparsity in sparsities:
            mask = kept_blocks(weight.flatten(1), sparsity, rows, 1)
            ours[pattern, sparsity] = our_call(weight * mask[:, :, None, None], bias, image, out, rows)
    calls = {**dense, **{f"{name} {sparsity}": call for (name, sparsity), (call, *_) in ours.items()}}
    timings = (
        interleaved(calls, seconds, shortest=2e-3) if threads == 1 else in_turns(calls, seconds, burst=5)
    )
    best = min(dense, key=lambda name: timings[name].median)
    limits = roof.measured(threads)
    rows_: list[dict[str, Any]] = []
    for (pattern, sparsity), (call, stored, read) in ours.items():
        timing = timings[f"{pattern} {sparsity}"]
        work = 2e-9 * stored * size * size
        row: dict[str, Any] = {
            "shape": shape["name"],
            "pattern": pattern,
            "sparsity": sparsity,
            "threads": threads,
            "us": timing.microseconds(),
            "dense": {name: timings[name].microseconds() for name in dense},
            "best": best,
            "ratio": round(timings[best].median / timing.median, 3),
            "gflops": round(work / timing.median, 1),
        }
        if limits:
            least = bound(shape, stored, read, PATTERNS[pattern], limits)
            row["share_of_peak"] = round(work / timing.median / limits["fma_float32"], 3)
            row["bound_us"] = max(least.values())
            row["bound_by"] = max(least, key=lambda name: least[name])
            row["share_of_bound"] = round(1e-6 * row["bound_us"] / timing.median, 3)
        if threads > 1:
            row["scaling"] = round(scaling(call, threads), 3)
        rows_.append(row)
    return rows_


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Geometric means per family and over all, pattern, sparsity and threads; a layer of two families counts twice.

    ``reachable`` is the ratio of layers that take no longer than their bound.
    """
    groups: dict[tuple[str, str, float, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        for family in (*row["families"], "all"):
            copies = len(row["families"]) if family == "all" else 1
            groups[family, row["pattern"], row["sparsity"], row["threads"]] += [row] * copies
    return [
        {
            "family": family,
            "pattern": pattern,
            "sparsity": sparsity,
            "threads": threads,
            "ratio": round(geometric(row["ratio"] for row in group), 2),
            "worst": min(row["ratio"] for row in group),
            **_bounded(group),
            "gflops": round(geometric(row["gflops"] for row in group), 1),
            "layers": len(group),
        }
        for (family, pattern, sparsity, threads), group in groups.items()
    ]


def _bounded(group: list[dict[str, Any]]) -> dict[str, float]:
    """What only some results have: means of the bound, and of what the second thread brought."""
    found = {}
    if all("share_of_bound" in row for row in group):
        found["reachable"] = round(geometric(row["ratio"] / row["share_of_bound"] for row in group), 2)
        found["share_of_bound"] = round(geometric(row["share_of_bound"] for row in group), 2)
    if all("scaling" in row for row in group):
        found["scaling"] = round(geometric(row["scaling"] for row in group), 2)
    return found


def crossovers(summary: list[dict[str, Any]]) -> dict[tuple[str, int], float | None]:
    """The sparsity from which a pattern beats the best dense convolution, over all layers.

    Between measured sparsities the logarithm of the ratio is taken to be straight; the smallest measured sparsity
    stands for all below it, and None says that dense is faster everywhere.
    """
    found: dict[tuple[str, int], float | None] = {}
    curves: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for line in summary:
        if line["family"] == "all":
            curves[line["pattern"], line["threads"]].append((line["sparsity"], math.log(line["ratio"])))
    for key, curve in curves.items():
        curve.sort()
        found[key] = curve[0][0] if curve[0][1] >= 0 else None
        for (left, below), (right, above) in itertools.pairwise(curve):
            if below < 0 <= above:
                found[key] = round(left + (right - left) * below / (below - above), 3)
                break
    return found


def show(summary: list[dict[str, Any]]) -> None:
    """Prints the means with their targets, and the crossovers."""
    for line in summary:
        target = TARGETS[line["pattern"]].get(line["sparsity"]) if line["family"] == "all" else None
        wanted = f" (must {target[0]:g}, stretch {target[1]:g})" if target else ""
        print(
            f"{line['family']:16}{line['pattern']:>13} {line['sparsity']:4.0%} {line['threads']}T "
            f"{line['ratio']:6.2f}x (worst {line['worst']:.2f}x) {line['gflops']:6.1f} GFLOP/s"
            + (f", {line['share_of_bound']:.0%} of {line['reachable']:.2f}x" if "reachable" in line else "")
            + (f", {line['scaling']:.2f}x one thread" if "scaling" in line else "")
            + wanted
        )
    for (pattern, threads), sparsity in crossovers(summary).items():
        least = min(line["sparsity"] for line in summary)
        text = "nowhere" if sparsity is None else f"from {sparsity:.0%} zeros"
        text += " or fewer, the least measured" if sparsity == least else ""
        print(f"{pattern} beats the best dense convolution {text}, {threads}T")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three layers, two sparsities, short timings")
    parser.add_argument("--families", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--pixels", type=int, nargs="+", default=None, help="only layers of so many, such as 49 196"
    )
    parser.add_argument("--seconds", type=float, default=None, help="per layer and number of threads")
    parser.add_argument("--isa", default=None, help="cap of our instruction set")
    parser.add_argument("--dry", action="store_true", help="print only, keep no result file")
    arguments = parser.parse_args()
    if arguments.isa:
        sc.cpu.use(arguments.isa)
        print(f"left out, as nothing holds it to {arguments.isa}: onnxruntime")
    families: dict[str, list[str]] = defaultdict(list)
    shapes: dict[str, dict[str, Any]] = {}
    for family in arguments.families:
        for shape in SHAPES[family]:
            families[shape["name"]].append(family)
            shapes[shape["name"]] = shape
    if arguments.pixels:
        shapes = {name: shape for name, shape in shapes.items() if shape["pixels"] in arguments.pixels}
    if arguments.quick:
        shapes = {name: shape for name, shape in shapes.items() if name in QUICK}
    sparsities = (0.7, 0.9) if arguments.quick else SPARSITIES
    seconds = arguments.seconds or (0.4 if arguments.quick else 1.0)
    threads = [number for number in arguments.threads if number <= torch.get_num_threads()]
    torch.set_flush_denormal(True)
    command = shlex.join(["python", "benchmarks/python/bench_conv.py", *sys.argv[1:]])
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        torch.set_num_threads(1)
        calls = cost_of_a_call(1, bool(arguments.isa))
        print("a call beside its kernel, us:", ", ".join(f"{name} {us:.2f}" for name, us in calls.items()))
        for number in threads:
            torch.set_num_threads(number)
            for name, shape in shapes.items():
                measured = measure(shape, sparsities, number, seconds, bool(arguments.isa))
                rows += [{"families": families[name], **row} for row in measured]
    show(summarise(rows))
    if not arguments.dry:
        capped = f"_{arguments.isa}" if arguments.isa else ""
        capped += "".join(f"_{pixels}" for pixels in arguments.pixels or ())
        header = describe(command, {str(number): roof.measured(number) for number in threads})
        header["call_us"] = calls
        path = write(f"conv{capped}", header, rows)
        print(f"written: {path.relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    main()
