"""Writes docs/performance.md and the tables of README.md and docs/which_pattern.md from benchmarks/results.

    python benchmarks/table.py [--check]

``--check`` writes nothing and fails where a page is not what the results give.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- bench-table:start -->", "<!-- bench-table:end -->"
Result = dict[str, Any]
sys.path.insert(0, str(ROOT / "benchmarks" / "python"))


def results(prefix: str) -> list[Result]:
    """Every result file of one benchmark, by name."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(f"{prefix}_*.json"))]


def markdown(head: list[str], rows: Iterable[list[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def machine_of(result: Result) -> str:
    """What names the machine in headings."""
    machine = result["machine"]
    return f"{machine['processor']}, {machine.get('isa', 'WebAssembly')}"


def origin(found: list[Result]) -> str:
    """How tables came to be, in one sentence."""
    machine = found[0]["machine"]
    commits = sorted({result["machine"]["commit"] for result in found})
    command = re.sub(r" --(isa|rows) [\w ]+", "", machine["command"])
    if "node" in machine:
        built = f"node {machine['node']} (V8 {machine['v8']})"
    else:
        built = f"torch {machine['torch']} ({machine['torch_cpu']}); {machine['compiler']}"
    return f"{machine_of(found[0])}; {built}; commit {', '.join(commits)}; {machine['date']}; `{command}`.\n"


def by_machine(found: list[Result]) -> dict[str, list[Result]]:
    """Results grouped by processor and instruction set, the widest first."""
    groups: dict[str, list[Result]] = {}
    for result in found:
        groups.setdefault(machine_of(result), []).append(result)
    return dict(sorted(groups.items(), key=lambda item: "avx512" not in item[0]))


def microseconds(timing: list[float]) -> str:
    """A median with its quartiles."""
    middle, low, high = timing
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def linear_summary(found: list[Result]) -> list[dict[str, Any]]:
    """Geometric means over the cells of one machine."""
    from bench_linear import summarise

    return summarise([row for result in found for row in result["rows"]])


def readme_table() -> str:
    """The first screen's table: one row per kernel and sparsity, one column per number of threads."""
    groups = by_machine(results("linear"))
    if not groups:
        return "No results yet: `make bench` measures them.\n"
    found = next(iter(groups.values()))
    rows: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for line in linear_summary(found):
        rows.setdefault((line["row"], line["pattern"]), {})[line["threads"]] = line
    threads = sorted({number for group in rows.values() for number in group})

    def cell(line: dict[str, Any] | None) -> str:
        return "" if line is None else f"{line['ratio']:.2f}x (worst {line['worst']:.2f}x)"

    head = ["kernel", "kept", *(f"{number} thread{'s' if number > 1 else ''}" for number in threads)]
    body = [
        [row, pattern, *(cell(group.get(number)) for number in threads)]
        for (row, pattern), group in rows.items()
    ]
    return (
        "Times as fast as torch's dense layer of the same type, in the same run and with the same threads: geometric "
        "mean over six shapes (384x1536 to 1024x4096) and 32, 128, 512 tokens, and the worst cell. All numbers: "
        f"[docs/performance.md](docs/performance.md).\n\n{markdown(head, body)}\n{origin(found)}"
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


SECTIONS: dict[str, tuple[str, Callable[[list[Result]], str]]] = {
    "linear": ("Linear layers, 32 to 512 tokens", linear_section),
    "decode": ("Few tokens, weights from memory", decode_section),
    "sparse": ("Beside other sparse products", sparse_section),
    "wasm": ("WebAssembly", wasm_section),
    "training": ("A training step: forward, input gradient, weight gradient, Adam", training_section),
    "memory": ("Memory of training", memory_section),
}


def performance_page() -> str:
    """docs/performance.md."""
    parts = [
        "# Measured performance\n",
        "Written by `python benchmarks/table.py` from `benchmarks/results`; `make bench` measures. A ratio is the time "
        "of the peer over ours in the same run, interleaved, medians; below 1 we lose. Activations are packed, outputs "
        "written and bias added inside every timing. Nothing here was measured on a GPU or on ARM hardware.\n",
    ]
    for name, (title, section) in SECTIONS.items():
        for machine, found in by_machine(results(name)).items():
            parts += [f"## {title}: {machine}\n", origin(found), section(found)]
    return "\n".join(parts)


def demo_tables() -> str:
    """Whole networks: quality and speed of every variant, and the dense engines."""
    return (
        "\n".join(demo_table(result) for result in results("demo"))
        or "No results yet: `make demo` measures.\n"
    )


def demo_table(result: Result) -> str:
    """One network."""
    settings, dense = result["settings"], result["dense"]
    measures = settings["measures"]

    def judged(values: dict[str, Any]) -> str:
        return ", ".join(f"{values[key]:.3f}" for key in measures)

    def timed(name: str) -> list[str]:
        found = [part["engines"].get(name) for part in result["latency"].values()]
        return [f"{each['median_ms']:.1f}, {each['speedup']:.2f}x" if each else "" for each in found]

    head = ["model", "kept", f"one shot: {', '.join(measures.values())}", "recovered"]
    head += [f"{title}: ms, x eager" for title in result["latency"]]
    body = []
    for values in result["variants"].values():
        learned = "one_shot" in values
        after = f"{judged(values)} ({values['recovery_seconds']:.0f} s)" if learned else ""
        first = judged(values["one_shot"] if learned else values)
        body.append([values["title"], f"{values['kept']:.0%}", first, after, *timed(values["title"])])
    titles = {values["title"] for values in result["variants"].values()}
    engines = dict.fromkeys(name for part in result["latency"].values() for name in part["engines"])
    body += [[f"{name}, dense", "100%", "", "", *timed(name)] for name in engines if name not in titles]
    facts = result["environment"]
    return (
        f"### {settings['model']}\n\n{settings['about'][0].upper()}{settings['about'][1:]}, "
        f"{settings['held_out']} of them; the dense model: {judged(dense)}. One input is {settings['shown']}; "
        f"float32 unless named; {' '.join(facts['details'][2].split())}; commit {facts['commit']}, {facts['date']}.\n\n"
        + markdown(head, body)
    )


def marked(page: Path, text: str) -> str:
    """A page with another table between its marks."""
    before, rest = page.read_text(encoding="utf-8").split(START)
    return f"{before}{START}\n{text}{END}{rest.split(END)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page would change")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    patterns = ROOT / "docs" / "which_pattern.md"
    wanted = {
        readme: marked(readme, readme_table()),
        patterns: marked(patterns, demo_tables()),
        ROOT / "docs" / "performance.md": performance_page(),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text("utf-8") != text]
    if arguments.check and stale:
        sys.exit(
            f"{', '.join(path.name for path in stale)}: not what the results give. Run benchmarks/table.py."
        )
    for path in [] if arguments.check else stale:
        path.write_text(wanted[path], encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
