"""The results as plain tables and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsecore.demo.store import write_atomically

_MB = 1e6


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left and the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def text(line: Sequence[str]) -> str:
        first = line[0].ljust(widths[0])
        return "  ".join(
            [first, *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )

    return "\n".join([text(header), "  ".join("-" * width for width in widths), *(text(row) for row in rows)])


def quality_table(results: dict[str, Any]) -> str:
    """Quality and size of every model."""
    measures = results["settings"]["measures"]

    def cells(values: dict[str, Any]) -> list[str]:
        return [f"{values[key]:.3f}" for key in measures]

    nothing = [""] * len(measures)
    rows = [["dense", "100 %", *cells(results["dense"]), *nothing, *_sizes(results["dense"])]]
    for values in results["variants"].values():
        kept = f"{100 * values['kept']:.1f} %"
        learned = cells(values) if "one_shot" in values else nothing
        rows.append(
            [values["title"], kept, *cells(values.get("one_shot", values)), *learned, *_sizes(values)]
        )
    after = [f"{title}, recovered" if i == 0 else title for i, title in enumerate(measures.values())]
    head = ["model", "kept", *measures.values(), *after, "on disk", "resident"]
    return table(head, rows)


def _sizes(values: dict[str, Any]) -> list[str]:
    resident = values.get("resident_bytes")
    return [
        f"{values['disk_bytes'] / _MB:.1f} MB",
        "" if resident is None else f"{resident / _MB:.1f} MB",
    ]


def latency_table(title: str, timed: dict[str, Any]) -> str:
    """Engines of one setting, with the spread and the speed against eager torch and the best dense engine."""
    rows = []
    for name, values in timed["engines"].items():
        spread = f"{values['q1_ms']:.1f}-{values['q3_ms']:.1f}"
        best = f"{values['against_best']:.2f}x" + (" *" if name == timed["best_dense"] else "")
        rows.append([name, f"{values['median_ms']:.1f}", spread, f"{values['speedup']:.2f}x", best])
    rows += [[name, "-", reason[:40], "", ""] for name, reason in timed["missing"].items()]
    return table([title, "median ms", "quartiles", "vs eager", "vs best dense"], rows)


def text(results: dict[str, Any]) -> str:
    """Everything, for the terminal and for ``report.txt``."""
    settings = results["settings"]
    facts = results["environment"]
    where = "; ".join(" ".join(fact.split()) for fact in facts["details"][:4])
    parts = [
        f"{settings['model']}, its linear layers pruned in one shot ({settings['method']}, "
        f"{settings['calibration']} inputs); some recovered by distillation from the dense model, zeros fixed",
        f"{settings['about']}, {settings['held_out']} of them; time is measured with {settings['shown']}",
        f"commit {facts['commit']}, {facts['date']}, {where}",
        "",
        quality_table(results),
    ]
    for title, timed in results["latency"].items():
        parts += ["", latency_table(title, timed)]
    parts += ["", "float32 unless named; interleaved medians; * best dense float32 engine of this run"]
    return "\n".join(parts)


def figure(results: dict[str, Any], path: Path) -> None:
    """Two panels: speed of every engine, and speed against quality."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    first = next(iter(results["latency"]))
    engines = results["latency"][first]["engines"]
    titles = {values["title"]: values for values in results["variants"].values()}
    height = max(4.0, 1.2 + 0.25 * len(engines))
    chart, (left, right) = pyplot.subplots(1, 2, figsize=(11, height), layout="constrained")
    names = list(engines)
    colours = ["tab:blue" if name in titles else "tab:gray" for name in names]
    medians = [engines[name]["median_ms"] for name in names]
    spread = [
        [engines[name]["median_ms"] - engines[name]["q1_ms"] for name in names],
        [engines[name]["q3_ms"] - engines[name]["median_ms"] for name in names],
    ]
    left.barh(names, medians, xerr=spread, color=colours)
    left.invert_yaxis()
    left.set_xlabel("milliseconds, lower is better")
    left.set_title(f"{results['settings']['model']}, {results['settings']['shown']}, {first}", fontsize=10)
    right.axhline(1.0, color="tab:gray", linewidth=0.8)
    measure, measured = next(iter(results["settings"]["measures"].items()))
    right.plot([results["dense"][measure]], [1.0], "o", color="tab:gray")
    points = {name: (values[measure], engines[name]["speedup"]) for name, values in titles.items()}
    for name, (quality, speed) in points.items():
        if "one_shot" in titles[name]:
            before = titles[name]["one_shot"][measure]
            arrow = {"arrowstyle": "->", "color": "tab:blue", "linewidth": 0.8}
            right.annotate("", (quality, speed), (before, speed), arrowprops=arrow)
            right.plot([before], [speed], "o", color="tab:blue", fillstyle="none")
        right.plot([quality], [speed], "o", color="tab:blue")
    right.set_xlabel(measured)
    right.set_ylabel("speed against eager torch")
    right.margins(x=0.05, y=0.08)
    low, high = right.get_xlim()
    right.set_xlim(low, high + 0.6 * (high - low))
    for name, engine in engines.items():
        if name not in titles and name != "torch eager":
            right.axhline(engine["speedup"], color="tab:gray", linewidth=0.8, linestyle=":")
            right.annotate(name, (low, engine["speedup"]), fontsize=6, color="tab:gray", va="bottom")
    _label(right, points, high + 0.06 * (high - low))
    right.set_title("filled: as used; hollow: one shot, before recovery", fontsize=10)
    facts = results["environment"]
    chart.supxlabel(
        f"commit {facts['commit']}, {facts['date']}, {' '.join(facts['details'][2].split())}", fontsize=7
    )
    write_atomically(path, lambda target: chart.savefig(target, dpi=150))
    pyplot.close(chart)


def _label(axes: Any, points: dict[str, tuple[float, float]], x: float) -> None:
    """Names in a column at ``x``, in the order of the points' heights, none over another."""
    low, high = axes.get_ylim()
    gap = 0.045 * (high - low) * 4.0 / axes.figure.get_figheight()
    heights: list[float] = []
    for _, y in sorted(points.values(), key=lambda point: point[1]):
        heights.append(max(y, heights[-1] + gap) if heights else y)
    excess = max(0.0, heights[-1] - (high - gap)) if heights else 0.0
    order = sorted(points.items(), key=lambda item: item[1][1])
    for height, (name, point) in zip(heights, order, strict=True):
        line = {"arrowstyle": "-", "color": "0.8", "linewidth": 0.6, "shrinkB": 4}
        axes.annotate(name, point, (x, height - excess), fontsize=7, va="center", arrowprops=line)
