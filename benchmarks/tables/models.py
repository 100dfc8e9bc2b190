"""Tables of whole models: the demo, advice, presets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tables import Result, markdown, origin, results
from tables.networks import accuracy_section


def demo_tables() -> str:
    """Whole networks: quality and speed of every variant, and the dense engines."""
    return (
        "\n".join(demo_table(result) for result in results("demo"))
        or "No results yet: `make demo` measures.\n"
    )


def make_demo_tables() -> str:
    """What ``make demo`` measures in minutes, for either model."""
    return (
        "\n".join(demo_table(result) for result in results("make_demo"))
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
        mark = "*" if "recovered_by" in values else ""
        after = f"{judged(values)} ({values['recovery_seconds']:.0f} s{mark})" if learned else ""
        first = judged(values["one_shot"] if learned else values)
        body.append([values["title"], f"{values['kept']:.0%}", first, after, *timed(values["title"])])
    titles = {values["title"] for values in result["variants"].values()}
    engines = dict.fromkeys(name for part in result["latency"].values() for name in part["engines"])
    body += [[f"{name}, dense", "100%", "", "", *timed(name)] for name in engines if name not in titles]
    facts = result["environment"]
    marks = [values["recovered_by"] for values in result["variants"].values() if "recovered_by" in values]
    note = (
        f"\n\\* Recovered at commit {marks[0]['commit']}, {marks[0]['date']}; the pruned model, whose one-shot quality "
        "is that of today, was timed.\n"
        if marks
        else ""
    )
    return (
        f"### {settings['model']}\n\n{settings['about'][0].upper()}{settings['about'][1:]}, "
        f"{settings['held_out']} of them; the dense model: {judged(dense)}. One input is {settings['shown']}; "
        f"float32 unless named; {' '.join(facts['details'][2].split())}; commit {facts['commit']}, {facts['date']}.\n\n"
        + markdown(head, body)
        + note
    )


def advise_tables() -> str:
    """Predicted against measured time, and advice against one pattern for all layers."""
    parts = []
    for result in results("advise_times"):
        body = [
            [
                str(row["threads"]),
                str(row["batch"]),
                f"{row['latency']:.0%}",
                f"{row['predicted_ms']:.1f}",
                f"{row['measured_ms']:.1f}",
                f"{row['error']:+.1%}",
            ]
            for row in result["rows"]
        ]
        worst = max(abs(row["error"]) for row in result["rows"])
        head = ["threads", "texts of 128 tokens", "budget, of dense", "predicted ms", "measured ms", "error"]
        parts.append(
            "## Do the times hold?\n\nall-MiniLM-L6-v2, whole model, float32. The largest error is "
            f"{worst:.0%}.\n\n{markdown(head, body)}\n{origin([result])}"
        )
    for result in results("advise_quality"):

        def judged(row: Result, name: str) -> str:
            return f"{row[name]['cosine']:.3f}, {row[name]['top1']:.2f}"

        body = [
            [
                row["pattern"],
                f"{row['predicted_ms']:.1f}",
                judged(row, "same"),
                judged(row, "advised"),
                ", ".join(f"{count} {title}" for title, count in sorted(row["assignment"].items())),
            ]
            for row in result["rows"]
        ]
        head = ["one pattern for all layers", "ms", "its cosine, top-1", "advised: cosine, top-1", "layers"]
        parts.append(
            "## Is it better than one pattern?\n\nThe same model pruned in one shot by ALPS: every layer to one "
            "pattern, and as advised for the same predicted time of one text on one thread. Cosine and top-1 retrieval "
            f"against the dense model on 256 held-out texts.\n\n{markdown(head, body)}\n{origin([result])}"
        )
    return "\n".join(parts) or "No results yet: `python benchmarks/python/bench_advise.py times` measures.\n"


def training_presets() -> str:
    """Accuracy by preset and share of zeros."""
    parts = []
    for result in results("presets_training"):
        rows: dict[str, dict[float, Result]] = {}
        for row in result["rows"]:
            rows.setdefault(row["preset"], {})[row["sparsity"]] = row
        dense = rows.pop("dense")[0.0]
        shares = sorted({share for group in rows.values() for share in group})

        def cell(row: Result | None) -> str:
            return "" if row is None else f"{row['accuracy']:.1%}"

        body = [[name, *(cell(group.get(share)) for share in shares)] for name, group in rows.items()]
        parts.append(
            "![Accuracy by share of zeros](figures/presets.png)\n\n"
            "Accuracy on the handwritten digits of scikit-learn (540 held out), a network of three linear layers, 1200 "
            f"steps for every preset but `imp`, which trains six times; means of {dense['seeds']} seeds. The dense "
            f"network: {dense['accuracy']:.1%}. Differences below half a point are noise.\n\n"
            + markdown(["recipe", *(f"{share:.4g} % zeros" for share in (100 * s for s in shares))], body)
            + f"\n{origin([result])}"
        )
    return "\n".join(parts) or (
        "No results yet: `python benchmarks/python/bench_presets.py training` measures.\n"
    )


def draw_presets(path: Path) -> None:
    """Accuracy of the training presets against the share of zeros."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = results("presets_training")
    if not found:
        return
    curves: dict[str, list[Result]] = {}
    for row in found[0]["rows"]:
        curves.setdefault(row["preset"], []).append(row)
    dense = curves.pop("dense")[0]["accuracy"]
    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    axes.axhline(100 * dense, color="grey", linewidth=1, linestyle="--", label="dense")
    places = {0.5: 0, 0.75: 1, 0.8: 2, 0.875: 3, 0.9: 4, 0.95: 5, 0.98: 6, 0.99: 7}
    colours = pyplot.get_cmap("tab20")
    for index, (name, rows) in enumerate(curves.items()):
        x = [places[row["sparsity"]] for row in rows]
        y = [100 * row["accuracy"] for row in rows]
        axes.plot(x, y, marker="o", markersize=3, linewidth=1.3, label=name, color=colours(index))
    axes.set_xticks(list(places.values()), [f"{100 * share:g}" for share in places])
    axes.set_ylim(70, 100)
    axes.set_xlabel("zeros, %")
    axes.set_ylabel("accuracy on digits, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, bbox_to_anchor=(1.01, 1.0), loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def image_networks() -> str:
    """Accuracy beside time of a small network for images."""
    found = results("accuracy")
    if not found:
        return "No results yet: `benchmarks/python/bench_accuracy.py` measures.\n"
    return f"{accuracy_section(found)}\n{origin(found)}"


def oneshot_methods() -> str:
    """Cosine by method and what is kept."""
    return _oneshot(
        "Cosine of all-MiniLM-L6-v2's sentence embeddings to the dense model's, 256 held-out texts, encoder layers "
        "pruned in one shot with 64 texts of calibration.",
        lambda row: "" if row["case"][-1].isalpha() else row["case"],
    )


def oneshot_allocations() -> str:
    """The same by allocation; shares alone are uniform."""

    def title(row: Result) -> str:
        case: str = row["case"]
        if row["preset"] != "wanda" or ":" in case:
            return ""
        return f"{case} Uniform" if case.endswith("%") else case

    return _oneshot(
        "Cosine of all-MiniLM-L6-v2's sentence embeddings to the dense model's, 256 held-out texts: the encoder pruned "
        "in one shot by Wanda, by how the zeros are split over its layers.",
        title,
    )


def _oneshot(text: str, title: Callable[[Result], str]) -> str:
    parts = []
    for result in results("presets_oneshot"):
        rows: dict[str, dict[str, Result]] = {}
        for row in result["rows"]:
            if title(row):
                rows.setdefault(title(row), {})[row["preset"]] = row
        rows = dict(sorted(rows.items(), key=lambda item: (":" in item[0], item[0][:2])))  # stable otherwise
        methods = list(dict.fromkeys(name for group in rows.values() for name in group))
        body = [
            [case, *(f"{group[name]['cosine']:.3f}" if name in group else "" for name in methods)]
            for case, group in rows.items()
        ]
        parts.append(f"{text}\n\n{markdown(['zeros', *methods], body)}\n{origin([result])}")
    return "\n".join(parts) or (
        "No results yet: `python benchmarks/python/bench_presets.py oneshot` measures.\n"
    )
