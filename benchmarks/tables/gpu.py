"""Tables of GPUs: what a visit has found out, and what nobody has measured yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import geometric_mean

from gpu.conclusions import conclude
from gpu.families import FAMILIES
from gpu.families.base import Shape, Target, Variant
from gpu.targets import REACHED, Reached, line, reached, times_of
from gpu.timings import per_visited_flop
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


def readme_part(found: list[Result]) -> str:
    """For the first screen: what was reached on each GPU, or that nothing was measured."""
    if not found:
        return (
            "On GPUs nothing has been measured: [what is unmeasured](docs/performance.md#cuda-kernels-on-gpus), and "
            "[the visit that measures it](docs/gpu_visit.md).\n"
        )
    return "\n".join(_readme_gpu(result) for result in found)


def _readme_gpu(result: Result) -> str:
    """A row for each kernel and peer that a target is set against."""
    groups: dict[tuple[str, str, float, float], list[Reached]] = {}
    for row in _timed(result):
        for target in reached(row["variant"], row):
            if target.ours == "ours":
                groups.setdefault((target.item, target.against, target.must, target.stretch), []).append(
                    target
                )
    body = []
    for (kernel, against, must, stretch), targets in groups.items():
        ratios = [target.ratio for target in targets if target.ratio is not None]
        got = f"{geometric_mean(ratios):.2f}x (worst {min(ratios):.2f}x)" if ratios else UNMEASURED
        body.append([kernel, against, f"{must:g}x / {stretch:g}x", got])
    machine = result["machine"]
    head = ["CUDA kernel", "beside", "must / stretch", "times as fast: geometric mean, worst"]
    return (
        f"{machine['gpu']}, by CUDA graphs, L2 flushed, candidates in turns; all rows, the losing ones too: "
        f"[docs/performance.md](docs/performance.md#cuda-kernels-on-gpus).\n\n{markdown(head, body)}"
    )


def _timed(result: Result) -> list[Result]:
    return [row for row in result["rows"] if row["stage"] == "timings" and times_of(row)]


def _what_is_timed(variant: Variant) -> Iterator[tuple[str, str, str]]:
    """The rows of a variant: their name, how many, targets."""
    if count := len(variant.layers) * len(variant.tokens):
        yield variant.name, f"{count} layers and token counts", _targets_of(variant)
    for outputs, inputs, tokens in variant.trained:
        yield f"{variant.name}, forward and backward", str(Shape(outputs, inputs, tokens)), ""
    if variant.by_kernel:
        targets = [
            t for tokens in variant.by_kernel for t in per_visited_flop(variant, tokens, variant.kernels)
        ]
        yield (
            f"{variant.name}, by kernel",
            f"{', '.join(variant.kernels)} at {', '.join(map(str, variant.by_kernel))} tokens",
            "; ".join(dict.fromkeys(f"{t.must:g} x {t.against} by {t.ours}, few tokens" for t in targets)),
        )


def _unmeasured() -> str:
    body = []
    for family in FAMILIES:
        for variant in family.variants:
            body += [[*row, UNMEASURED] for row in _what_is_timed(variant)]
        body += [
            [f"{family.name}: {task.name}", "", _targets(task.targets), UNMEASURED] for task in family.tasks
        ]
    return markdown(["kernel", "what", "target: must / stretch", "result"], body)


def _visited(result: Result) -> str:
    machine, rows, timings = result["machine"], result["rows"], _timed(result)
    parts = [
        f"### {machine['gpu']}\n",
        f"driver {machine['driver']}; torch {machine['torch']}; {machine['compiler']}; commit {machine['commit']}; "
        f"{machine['date']}; `{machine['command']}`.\n",
        _right(rows),
        _incomplete(machine),
        _reached(timings),
        _conclusions(rows),
    ]
    names = list(dict.fromkeys(row["variant"] for row in timings))
    if names:
        parts.append(
            "Microseconds of a CUDA graph's replay (median, quartiles), L2 flushed before each, all candidates in "
            "turns; eager beside. *x*: the peer's time over ours, below 1 we lose.\n"
        )
    for name in names:
        mine = [row for row in timings if row["variant"] == name]
        parts += [f"#### {name}\n", _kernels(mine) if "kernels" in mine[0] else _timings(mine)]
    missing = [
        name
        for family in FAMILIES
        for name in (
            *(name for variant in family.variants for name, *_ in _what_is_timed(variant)),
            *(task.name for task in family.tasks),
        )
        if name not in names
    ]
    if missing:
        parts.append(f"Not measured: {', '.join(missing)}.\n")
    parts.append(_questions([row for row in rows if row["stage"] == "questions"]))
    return "\n".join(parts)


def _incomplete(machine: Result) -> str:
    """What the visit had no time for, and whom it gave up."""
    parts = [f"{left['items']} items of {stage}" for stage, left in machine.get("left", {}).items()]
    for stage, groups in machine.get("left_out", {}).items():
        parts += [
            f"{count} items of {stage} of {group}, since two hung or crashed"
            for group, count in groups.items()
        ]
    parts += [f"{peer}, since it hung or crashed" for peer in machine.get("peers", {})]
    return f"Left out: {'; '.join(parts)}.\n" if parts else ""


def _reached(timings: list[Result]) -> str:
    """Every target that was set, with what was measured; those that were missed first."""
    targets = [target for row in timings for target in reached(row["item"], row)]
    if not targets:
        return ""
    order = ("missed", "no comparison", "must", "stretch")
    targets.sort(key=lambda target: order.index(target.verdict))
    counts = ", ".join(
        f"{count} {verdict}" for verdict in REACHED if (count := sum(t.verdict == verdict for t in targets))
    )
    head = ["target", "must", "stretch", "measured", "reached"]
    return f"#### Targets: {counts}\n\n{markdown(head, map(line, targets))}"


def _conclusions(rows: list[Result]) -> str:
    stages: dict[str, dict[str, Result]] = {}
    for row in rows:
        stages.setdefault(row["stage"], {})[row["item"]] = row
    found = conclude(stages)
    return "#### What follows\n\n" + markdown(["question", "answer"], map(list, found)) if found else ""


def _right(rows: list[Result]) -> str:
    """What was checked, in a row per stage, and what failed by name."""
    body = []
    for stage in ("conformance", "correctness", "sanitizer", "tests"):
        mine = [row for row in rows if row["stage"] == stage and row.get("ran", True)]
        wrong = [row["item"] for row in mine if not row.get("ok", True)]
        count = sum(row.get("passed", 1) for row in mine)
        wrong += [name for row in mine for name in row.get("failed", {})]
        body.append([stage, str(count) if mine else UNMEASURED, ", ".join(wrong) or ("none" if mine else "")])
    return markdown(["stage", "checks", "wrong"], body)


def _timings(rows: list[Result]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row.get("ratios", {})))
    peers = sorted(names, key=lambda name: PEERS.index(name) if name in PEERS else len(PEERS))
    body = []
    for row in sorted(rows, key=lambda row: row.get("shape", [])):
        ratios = row.get("ratios", {})
        body.append(
            [
                *_layer(row),
                _microseconds(row.get("us_graph", {}).get("ours")),
                _microseconds(row.get("us", {}).get("ours")),
                *(f"{ratios[name]:.2f}" if name in ratios else "" for name in peers),
            ]
        )
    return markdown(["layer", "tokens", "us", "us, eager", *(f"x {name}" for name in peers)], body)


def _kernels(rows: list[Result]) -> str:
    """Every kernel's time beside each other's, and beside what the chooser takes."""
    names = ["ours", *rows[0]["kernels"], "cuBLAS"]
    body = [
        [*_layer(row), *(_microseconds(times_of(row).get(name)) for name in names)]
        for row in sorted(rows, key=lambda row: row.get("shape", []))
    ]
    return markdown(["layer", "tokens", "us, as chosen", *(f"us, {name}" for name in names[1:])], body)


def _layer(row: Result) -> list[str]:
    if "shape" not in row:
        return [row["item"], ""]
    outputs, inputs, tokens = row["shape"]
    return [f"{outputs} x {inputs}", str(tokens)]


def _microseconds(timing: list[float] | None) -> str:
    return "" if timing is None else "{:.1f} ({:.1f} to {:.1f})".format(*timing)


def _questions(rows: list[Result]) -> str:
    rows = [row for row in rows if row.get("ok")]
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
