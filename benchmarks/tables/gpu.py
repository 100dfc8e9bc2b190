"""Tables of GPUs: what a visit has found out, and what nobody has measured yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpu.families import FAMILIES
from gpu.families.base import Shape, Target, Variant
from tables import Result, markdown

PEERS = ("cuBLAS", "cuSPARSELt", "CUTLASS 2:4", "torch BSR", "Triton BSR", "copy")
UNMEASURED = "unmeasured"


def gpu_section(found: list[Result]) -> str:
    """A part per GPU that was visited; without any, the rows that a visit would fill, as unmeasured."""
    if not found:
        return (
            "**Nothing has been measured on a GPU yet.** The kernels are tested on an "
            "[emulator](cuda_emulator.md), which knows nothing of time. This is what "
            "[a visit to one](gpu_visit.md) measures.\n\n" + _unmeasured()
        )
    return "\n".join(_visited(result) for result in found)


def _targets(targets: Iterable[Target]) -> str:
    return "; ".join(f"{t.must:g} / {t.stretch:g} x {t.against}" for t in targets)


def _targets_of(variant: Variant) -> str:
    """Every target of a variant's shapes, with the tokens it stands for."""
    tokens: dict[str, list[int]] = {}
    for layer in variant.layers[:1]:
        for count in sorted(variant.tokens):
            if text := _targets(variant.targets(Shape(*layer, count))):
                tokens.setdefault(text, []).append(count)
    return "; ".join(f"{text} ({', '.join(map(str, counts))} tokens)" for text, counts in tokens.items())


def _unmeasured() -> str:
    body = []
    for family in FAMILIES:
        for variant in family.variants:
            count = len(variant.layers) * len(variant.tokens)
            if count:
                body.append(
                    [variant.name, f"{count} layers and token counts", _targets_of(variant), UNMEASURED]
                )
        for task in family.tasks:
            body.append([f"{family.name}: {task.name}", "", _targets(task.targets), UNMEASURED])
    return markdown(["kernel", "what", "target: must / stretch", "result"], body)


def _visited(result: Result) -> str:
    machine, rows = result["machine"], result["rows"]
    parts = [
        f"### {machine['gpu']}\n",
        f"driver {machine['driver']}; torch {machine['torch']}; {machine['compiler']}; commit {machine['commit']}; "
        f"{machine['date']}; `{machine['command']}`.\n",
        _right(rows),
    ]
    timings = [row for row in rows if row["stage"] == "timings"]
    names = list(dict.fromkeys(row.get("variant", row["item"]) for row in timings if "us" in row))
    if names:
        parts.append(
            "Microseconds of a CUDA graph's replay (median, quartiles), L2 flushed before each, all candidates in "
            "turns; eager beside. *x*: the peer's time over ours, below 1 we lose.\n"
        )
    for name in names:
        parts += [f"#### {name}\n", _timings([row for row in timings if row.get("variant") == name])]
    missing = [v.name for f in FAMILIES for v in f.variants if v.layers and v.name not in names]
    if missing:
        parts.append(f"Not measured: {', '.join(missing)}.\n")
    parts.append(_questions([row for row in rows if row["stage"] == "questions"]))
    return "\n".join(parts)


def _right(rows: list[Result]) -> str:
    """What was checked, in a row per stage, and what failed by name."""
    body = []
    for stage in ("conformance", "correctness", "sanitizer", "tests"):
        mine = [row for row in rows if row["stage"] == stage]
        wrong = [row["item"] for row in mine if not row.get("ok", True)]
        count = sum(row.get("passed", 1) for row in mine)
        wrong += [name for row in mine for name in row.get("failed", {})]
        body.append([stage, str(count) if mine else UNMEASURED, ", ".join(wrong) or ("none" if mine else "")])
    return markdown(["stage", "checks", "wrong"], body)


def _timings(rows: list[Result]) -> str:
    peers = [name for name in PEERS if any(name in row.get("ratios", {}) for row in rows)]
    body = []
    for row in sorted(rows, key=lambda row: row.get("shape", [])):
        graph, eager = row.get("us_graph", {}).get("ours"), row.get("us", {}).get("ours")
        ratios = row.get("ratios", {})
        shape = row.get("shape")
        reached = "; ".join(_reached(target, ratios) for target in row.get("targets", []))
        body.append(
            [
                f"{shape[0]} x {shape[1]}" if shape else row["item"],
                str(shape[2]) if shape else "",
                _microseconds(graph),
                _microseconds(eager),
                *(f"{ratios[name]:.2f}" if name in ratios else "" for name in peers),
                reached,
            ]
        )
    head = [
        "layer",
        "tokens",
        "us",
        "us, eager",
        *(f"x {name}" for name in peers),
        "target: must / stretch, reached",
    ]
    return markdown(head, body)


def _microseconds(timing: list[float] | None) -> str:
    return "" if timing is None else "{:.1f} ({:.1f} to {:.1f})".format(*timing)


def _reached(target: dict[str, Any], ratios: dict[str, float]) -> str:
    wanted = f"{target['must']:g} / {target['stretch']:g} x {target['against']}"
    ratio = ratios.get(target["against"])
    if ratio is None:
        return f"{wanted}: no comparison"
    reached = "stretch" if ratio >= target["stretch"] else "must" if ratio >= target["must"] else "missed"
    return f"{wanted}: {reached}"


def _questions(rows: list[Result]) -> str:
    if not rows:
        return ""
    body = [
        [
            row["item"],
            f"{row['us']:.1f}" if "us" in row else "",
            f"{row['operations_per_cycle']:.0f}" if "operations_per_cycle" in row else "",
            f"{row['tflops']:.0f}" if row.get("tflops") else "",
            f"{row['gbytes_per_second']:.0f}" if row.get("gbytes_per_second") else "",
            f"{row['bytes_in_flight'] / 1024:.0f}" if "bytes_in_flight" in row else "",
        ]
        for row in rows
    ]
    head = ["question", "us", "operations per cycle and multiprocessor", "TFLOP/s", "GB/s", "KB in flight"]
    return "#### What the machine gives\n\n" + markdown(head, body)
