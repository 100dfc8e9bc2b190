"""Tables and the figure of weights kept in groups: which layout is fastest, and from how many zeros on sparse wins."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from bench_crossover import crossover
from bench_groups import TARGETS
from tables import Result, markdown, results
from timing import geometric

LAYOUTS = ("group_lists", "shared_lists", "row_lists")
NAMES = {"avx512_bf16": "AVX-512", "avx512": "AVX-512", "avx512_fp16": "AVX-512", "avx2": "AVX2"}


def groups_section(found: list[Result]) -> str:
    """Geometric means over shapes and numbers of tokens."""
    cells: dict[Any, list[Result]] = defaultdict(list)
    for row in (row for result in found for row in result["rows"]):
        cells[row["pattern"], row["sparsity"], row["threads"]].append(row)

    def ratio(group: list[Result], name: str, other: str = "torch dense") -> float | None:
        if name not in group[0]["us"]:
            return None
        return geometric(row["us"][other][0] / row["us"][name][0] for row in group)

    body = []
    for (pattern, sparsity, threads), group in cells.items():
        ours = {name: ratio(group, name) for name in LAYOUTS}
        best = max(value for value in ours.values() if value is not None)
        must, stretch = TARGETS.get((pattern, sparsity), (0.0, 0.0))
        reached = "stretch" if best >= stretch else "must" if best >= must else f"{best / must - 1:+.0%}"
        values = [*ours.values(), ratio(group, "oneDNN packed"), ratio(group, "torch BSR 4x4")]
        shown = ("" if v is None else f"**{v:.2f}**" if v == best else f"{v:.2f}" for v in values)
        target = [f"{must:g} / {stretch:g}", reached] if must else ["", ""]
        body.append([pattern, f"{sparsity:.0%}", str(threads), *shown, *target])
    head = [
        "pattern",
        "zeros",
        "threads",
        *LAYOUTS,
        "oneDNN packed",
        "torch BSR 4x4",
        "target: must / stretch",
        "reached",
    ]
    return (
        "Times as fast as torch's dense layer, float32: geometric mean over four layers of BERT's sizes, 128 and 512 "
        "tokens. The fastest of ours is bold. *oneDNN packed* is a dense layer whose weight was packed beforehand; BSR "
        "has as many zeros in blocks of 4x4, whatever our pattern is. Targets are against torch's dense layer.\n\n"
        + markdown(head, body)
    )


def crossover_section(found: list[Result]) -> str:
    """Where each pattern starts to win."""
    head = ["instructions", "pattern", "layout", "wins from", "at 50 %", "at 70 %", "at 90 %", "at 95 %"]
    body = []
    for result in found:
        for pattern, rows in _by_pattern(result).items():
            at = {row["sparsity"]: row["ratio"] for row in rows}
            where = crossover(rows)
            least = min(at)
            text = "never" if where is None else f"below {least:.0%}" if where <= least else f"{where:.0%}"
            name = NAMES.get(result["machine"]["isa"], result["machine"]["isa"])
            layouts = ", ".join(dict.fromkeys(row["layout"] for row in rows))
            body.append([name, pattern, layouts, text, *(f"{at[s]:.2f}" for s in (0.5, 0.7, 0.9, 0.95))])
    return (
        "Times as fast as torch's dense layer under the same instructions: 768 outputs of 3072 inputs, 128 tokens, one "
        "thread, float32.\n\n![Speed by share of zeros](figures/crossover.png)\n\n" + markdown(head, body)
    )


def _by_pattern(result: Result) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for row in result["rows"]:
        found.setdefault(row["pattern"], []).append(row)
    return found


def draw_crossover(path: Path) -> None:
    """The curves of all instruction sets beside each other."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = results("crossover")
    if not found:
        return
    figure, axes = pyplot.subplots(1, len(found), figsize=(5 * len(found), 4), sharey=True, squeeze=False)
    for place, result in zip(axes[0], found, strict=True):
        for pattern, rows in _by_pattern(result).items():
            zeros, ratios = ([row[key] for row in rows] for key in ("sparsity", "ratio"))
            place.plot([100 * share for share in zeros], ratios, marker="o", markersize=3, label=pattern)
        place.axhline(1.0, color="grey", linewidth=1)
        place.set_yscale("log", base=2)
        place.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        place.set_xlabel("zeros, %")
        place.set_title(NAMES.get(result["machine"]["isa"], result["machine"]["isa"]), fontsize=10)
        place.legend(frameon=False)
        place.grid(alpha=0.3)
    axes[0][0].set_ylabel("times as fast as torch dense")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
