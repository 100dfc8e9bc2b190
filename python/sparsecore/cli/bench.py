"""``sparsecore bench``: sparse layers beside torch's dense ones, here and now."""

from __future__ import annotations

import time
from statistics import quantiles
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import nn

from sparsecore import cpu
from sparsecore.cli._common import emit, reported, table, watched
from sparsecore.nn.linear import SparseLinear
from sparsecore.patterns import pattern as parse_pattern
from sparsecore.sparsify._progress import bar

FAMILIES = {"linear": (32, 128, 512), "groups": (128, 512), "decode": (1, 4), "training": (512,)}
PATTERNS: tuple[tuple[str, float | None], ...] = (
    ("2:4", None),
    ("2:4/64", None),
    ("1:4/64", None),
    ("unstructured", 0.5),
    ("unstructured", 0.9),
)
GROUPS: tuple[tuple[str, float | None], ...] = (
    ("4x1", 0.75),
    ("4x1", 0.9),
    ("16x1", 0.9),
    ("4x4", 0.9),
    ("1x16", 0.9),
)


def bench(
    family: Annotated[str, typer.Argument(help=f"{', '.join(FAMILIES)}.")] = "linear",
    shapes: Annotated[
        list[str] | None, typer.Option("--shape", help="out x in, as 768x3072; repeatable.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads.")] = None,
    seconds: Annotated[float, typer.Option(help="Time for each row of the table.")] = 0.3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Times sparse layers and torch's dense layer in turns, float32; rows that lose are shown too.

    Weights are warm: they stay in cache between the calls, for both. The repository's make bench measures more.

    Examples: sparsecore bench; sparsecore bench decode --shape 4096x4096 --threads 1 --json
    """
    with reported():
        if family not in FAMILIES:
            raise ValueError(f"bench: the family must be one of {', '.join(FAMILIES)}, got {family!r}.")
        if not seconds > 0.0:
            raise ValueError(f"bench: --seconds must be positive, got {seconds}.")
        sizes = [_shape(text) for text in shapes or ("768x768", "768x3072")]
        before = torch.get_num_threads()
        torch.set_num_threads(threads or before)
        cells = [(shape, tokens) for shape in sizes for tokens in FAMILIES[family]]
        rows: list[dict[str, Any]] = []
        with bar(len(cells), "measuring", watched(), "cell") as advance:
            for shape, tokens in cells:
                rows += _cell(shape, tokens, seconds, family)
                advance()
        used = torch.get_num_threads()
        torch.set_num_threads(before)
    facts = {"threads": used, "isa": cpu.isa(), "torch": torch.__version__, "family": family}

    def show(console: Console) -> None:
        head = ("pattern", "shape", "tokens", "us", "quartiles", "dense us", "x dense")
        body = [
            (
                row["pattern"],
                row["shape"],
                str(row["tokens"]),
                f"{row['us']:.0f}",
                f"{row['q1_us']:.0f}-{row['q3_us']:.0f}",
                f"{row['dense_us']:.0f}",
                f"{row['ratio']:.2f}",
            )
            for row in rows
        ]
        console.print(table(head, body, left=2))
        console.print(
            f"{facts['isa']}, {used} threads, torch {facts['torch']}, float32, medians", highlight=False
        )

    emit({"facts": facts, "rows": rows}, as_json, show)


def _shape(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ValueError(f"bench: --shape must be OUTxIN, as 768x3072, got {text!r}.")
    return int(parts[0]), int(parts[1])


def _cell(shape: tuple[int, int], tokens: int, seconds: float, family: str) -> list[dict[str, Any]]:
    n, k = shape
    train = family == "training"
    patterns = GROUPS if family == "groups" else PATTERNS
    dense = nn.Linear(k, n)
    layers: dict[str, nn.Module] = {"dense": dense}
    for spec, sparsity in patterns:
        title = spec + ("" if sparsity is None else f" {sparsity:.0%}")
        layers[title] = SparseLinear.from_dense(dense, parse_pattern(spec), sparsity=sparsity)
    input = torch.randn(tokens, k, requires_grad=train)
    direction = torch.randn(tokens, n)

    def run(layer: nn.Module) -> float:
        start = time.perf_counter()
        if train:
            layer(input).backward(direction)
            layer.zero_grad()
            input.grad = None
        else:
            with torch.inference_mode():
                layer(input)
        return time.perf_counter() - start

    times: dict[str, list[float]] = {name: [] for name in layers}
    for layer in layers.values():
        run(layer)
    end = time.perf_counter() + seconds * len(patterns)
    while time.perf_counter() < end or len(times["dense"]) < 5:
        for name, layer in layers.items():
            times[name].append(run(layer))
    cut = {name: quantiles(values, n=4, method="inclusive") for name, values in times.items()}
    return [
        {
            "pattern": name,
            "shape": f"{n}x{k}",
            "tokens": tokens,
            "us": middle * 1e6,
            "q1_us": low * 1e6,
            "q3_us": high * 1e6,
            "dense_us": cut["dense"][1] * 1e6,
            "ratio": cut["dense"][1] / middle,
        }
        for name, (low, middle, high) in cut.items()
        if name != "dense"
    ]
