"""Tables of single layers: linear, decoding, training, WebAssembly."""

from __future__ import annotations

import math
from typing import Any

from tables import Result, by_machine, gpu, markdown, microseconds, origin, results
from tables.networks import readme_networks
from timing import geometric


def linear_summary(found: list[Result]) -> list[dict[str, Any]]:
    """Geometric means over the cells of one machine."""
    from bench_linear import summarise

    return summarise([row for result in found for row in result["rows"]])


# What the first screen shows; docs/performance.md has every row.
SHOWN = {
    "row lists, unstructured, float32": ("50%", "70%", "90%", "95%"),
    "row lists, float32": ("2:4", "1:4"),
    "shared lists of 16, float32": ("2:4", "1:4"),
    "shared lists of 64, float32": ("2:4", "1:8"),
    "shared lists of 64, int8 x int8": ("2:4", "1:8"),
}


def readme_table() -> str:
    """The first screen's table: one row per kernel and sparsity, one column per number of threads."""
    networks = next(iter(by_machine(results("networks")).values()), [])
    parts = [readme_networks(networks), _shown_rows(), _shown_groups(), gpu.readme_part(results("gpu"))]
    return "\n".join(part for part in parts if part) or "No results yet: `make bench` measures them.\n"


def _by_threads(lines: dict[tuple[str, str], dict[int, Result]]) -> str:
    threads = sorted({number for group in lines.values() for number in group})

    def cell(line: Result | None) -> str:
        return "" if line is None else f"{line['ratio']:.2f}x (worst {line['worst']:.2f}x)"

    head = ["kernel", "kept", *(f"{number} thread{'s' if number > 1 else ''}" for number in threads)]
    body = [
        [row, pattern, *(cell(group.get(number)) for number in threads)]
        for (row, pattern), group in lines.items()
    ]
    return markdown(head, body)


def _shown_rows() -> str:
    machines = by_machine(results("linear"))
    if not machines:
        return ""
    found = next(iter(machines.values()))
    rows: dict[tuple[str, str], dict[int, Result]] = {}
    for line in linear_summary(found):
        rows.setdefault((line["row"], line["pattern"]), {})[line["threads"]] = line
    shown = {
        (row, pattern): rows[row, pattern]
        for row, kept in SHOWN.items()
        for pattern in kept
        if (row, pattern) in rows
    }
    return (
        "Linear layers, times as fast as torch's dense layer of the same type in the same run and with the same "
        "threads: geometric mean over six shapes (384x1536 to 1024x4096) and 32, 128, 512 tokens, and the worst cell; "
        "unstructured rows say how many zeros there are. All numbers: [docs/performance.md](docs/performance.md).\n\n"
        f"{_by_threads(shown)}\n{origin(found)}"
    )


def _shown_groups() -> str:
    machines = by_machine(results("groups"))
    if not machines:
        return ""
    found = next(iter(machines.values()))
    cells: dict[tuple[str, float], dict[int, list[Result]]] = {}
    for row in (row for result in found for row in result["rows"]):
        if row["pattern"] in ("4x1", "16x1", "4x4"):
            cells.setdefault((row["pattern"], row["sparsity"]), {}).setdefault(row["threads"], []).append(row)
    threads = sorted({number for group in cells.values() for number in group})

    def ratios(rows: list[Result]) -> list[str]:
        return [
            f"{geometric(row['us'][peer][0] / row['us'][row['best']][0] for row in rows):.2f}x"
            for peer in ("torch dense", "oneDNN packed")
        ]

    head = ["groups, float32", "zeros"]
    for number in threads:
        head += [f"{number} thread{'s' * (number > 1)}: torch's layer", "oneDNN, packed"]
    body = [
        [pattern, f"{zeros:.0%}", *(cell for number in threads for cell in ratios(group[number]))]
        for (pattern, zeros), group in cells.items()
    ]
    return (
        "Weights kept in groups: times as fast as torch's dense layer, and as oneDNN's with its weight packed "
        f"beforehand, which on this processor is twice as fast. BERT's layers, 128 and 512 tokens.\n\n"
        f"{markdown(head, body)}\n{origin(found)}"
    )


def linear_section(found: list[Result]) -> str:
    """Means beside the targets."""
    from bench_linear import verdict

    head = [
        "kernel",
        "kept",
        "threads",
        "x torch",
        "worst cell",
        "x fastest dense",
        "target",
        "reached",
        "GFLOP/s on kept weights",
        "of peak",
        "dense GFLOP/s",
    ]
    body = [
        [
            line["row"],
            line["pattern"],
            str(line["threads"]),
            f"{line['ratio']:.2f}",
            f"{line['worst']:.2f}",
            f"{line['ratio_best']:.2f}",
            f"{line['must']:g} / {line['stretch']:g}",
            verdict(line),
            f"{line['gflops']:.0f}",
            f"{line['share_of_peak']:.0%}" if "share_of_peak" in line else "",
            f"{line['dense_gflops']:.0f}",
        ]
        for line in linear_summary(found)
    ]
    return (
        "Geometric means over six shapes and 32, 128 and 512 tokens. *x torch*: dense torch of the same type "
        "(for int8 the fastest of its int8 layers). *x fastest dense*: the fastest dense layer of any floating-point "
        "type here, weights packed beforehand. Targets: must / stretch.\n\n" + markdown(head, body)
    )


def decode_section(found: list[Result]) -> str:
    """Every case: bandwidth, share of the roof, ratio."""
    head = [
        "layout",
        "kept",
        "weights",
        "shape",
        "tokens",
        "threads",
        "GB/s",
        "share of roof",
        "roof",
        "x torch",
    ]
    body = [
        [
            row["layout"],
            row["pattern"],
            row["weights"],
            row["shape"],
            str(row["tokens"]),
            str(row["threads"]),
            f"{row['gb_per_s']:.1f}",
            f"{row['share_of_roof']:.2f}" if "roof" in row else "",
            row.get("roof", ""),
            f"{row['ratio']:.2f}",
        ]
        for result in found
        for row in result["rows"]
    ]
    limits = "; ".join(
        f"{number} thread{'s' if number != '1' else ''}: {limit['read_gb_per_s']:.1f} GB/s, "
        f"{limit['fma_float32']:.0f} GFLOP/s"
        for number, limit in found[0]["machine"]["roofs"].items()
        if limit
    )
    return (
        f"Weights rotate through more than 1 GB. Limits measured in the same run: {limits}.\n\n"
        + markdown(head, body)
    )


# Layouts of one N for the whole matrix that keep as many weights.
SAME_KEPT = {"n:16 50%": "2:4", "n:16 75%": "1:4", "n:16 87.5%": "1:8"}


def variable_nm_table() -> str:
    """Variable N:16 beside dense torch and beside layouts with one N."""
    found = [result for result in results("decode") if any(_is_variable(row) for row in result["rows"])]
    head = ["weights", "zeros", "tokens", "threads", "x dense", "GB/s", "same N everywhere"]
    head += ["row N:M: x dense", "GB/s", "shared lists of 64: x dense", "GB/s"]
    return (
        "4096 outputs of 4096 inputs, random weights that come from memory; *x dense*: torch's float32 layer over "
        "ours.\n\n" + "\n".join(f"{markdown(head, _variable_rows(each))}\n{origin([each])}" for each in found)
        if found
        else "No results yet: `python benchmarks/python/bench_decode.py` measures.\n"
    )


def _is_variable(row: Result) -> bool:
    return row["layout"] == "variable_nm" and row["shape"] == "4096x4096" and row["tokens"] in (1, 4, 8)


def _variable_rows(result: Result) -> list[list[str]]:
    case = ("weights", "shape", "tokens", "threads")

    def cells(row: Result, layout: str, pattern: str) -> list[str]:
        wanted = {"layout": layout, "pattern": pattern, **{key: row[key] for key in case}}
        same = next(each for each in result["rows"] if wanted.items() <= each.items())
        return [f"{same['ratio']:.2f}", f"{same['gb_per_s']:.1f}"]

    return [
        [
            row["weights"],
            row["pattern"].removeprefix("n:16 "),
            str(row["tokens"]),
            str(row["threads"]),
            *cells(row, "variable_nm", row["pattern"]),
            SAME_KEPT[row["pattern"]],
            *cells(row, "nm_decode", SAME_KEPT[row["pattern"]]),
            *cells(row, "shared_lists", SAME_KEPT[row["pattern"]]),
        ]
        for row in result["rows"]
        if _is_variable(row)
    ]


def sparse_section(found: list[Result]) -> str:
    """Ours beside other sparse products."""
    names = ["torch dense", "torch CSR", "torch BSR", "scipy CSR"]
    head = ["zeros", "shape", "tokens", "threads", "ours, us", *(f"x {name}" for name in names)]

    def ratio(row: dict[str, Any], name: str) -> str:
        return f"{row[name][0] / row['ours'][0]:.2f}" if name in row else ""

    body = [
        [
            f"{row['sparsity']:.0%}",
            row["shape"],
            str(row["tokens"]),
            str(row["threads"]),
            microseconds(row["ours"]),
            *(ratio(row, name) for name in names),
        ]
        for result in found
        for row in result["rows"]
    ]
    return markdown(head, body)


def training_section(found: list[Result]) -> str:
    """Forward and backward."""
    head = ["kept", "shape", "tokens", "threads", "ours, us", "dense, us", "x torch"]
    body = [
        [
            row["pattern"],
            row["shape"],
            str(row["tokens"]),
            str(row["threads"]),
            microseconds(row["us"]),
            microseconds(row["dense_us"]),
            f"{row['ratio']:.2f}",
        ]
        for result in found
        for row in result["rows"]
    ]
    return markdown(head, body)


def memory_section(found: list[Result]) -> str:
    """Highest resident memory while training."""
    head = ["kept", "tokens", "MiB", "of dense"]
    body = [
        [row["pattern"], str(row["tokens"]), f"{row['bytes'] / 2**20:.0f}", f"{row['of_dense']:.2f}"]
        for result in found
        for row in result["rows"]
    ]
    return (
        "Four layers of 2048 x 2048 with Adam: what a process grows by at most while it trains them.\n\n"
        + markdown(head, body)
    )


def wasm_section(found: list[Result]) -> str:
    """Means per build, kernel and sparsity."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in (row for result in found for row in result["rows"]):
        groups.setdefault((row["isa"], row["kernel"], row["pattern"]), []).append(row)
    head = ["build", "kernel", "kept", "x dense", "worst cell", "GFLOP/s on kept weights", "dense GFLOP/s"]

    def mean(cells: list[dict[str, Any]], name: str) -> float:
        return math.exp(sum(math.log(cell[name]) for cell in cells) / len(cells))

    body = [
        [
            *key,
            f"{mean(cells, 'ratio'):.2f}",
            f"{min(cell['ratio'] for cell in cells):.2f}",
            f"{mean(cells, 'gflops'):.1f}",
            f"{mean(cells, 'dense_gflops'):.1f}",
        ]
        for key, cells in groups.items()
    ]
    return (
        "float32, one thread, against the module's own dense layer, copies in and out of the module included. "
        "Geometric means over three shapes and 32 and 128 tokens.\n\n" + markdown(head, body)
    )
