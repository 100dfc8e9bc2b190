"""Tables of image networks: whole ones, their 1x1 convolutions, the same in WebAssembly, accuracy beside speed."""

from __future__ import annotations

from tables import Result, by_machine, markdown, origin, results

TITLES = {
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_small": "MobileNetV3-small",
    "efficientnet_b0": "EfficientNet-B0",
    "resnet50": "ResNet-50",
}


def _milliseconds(microseconds: list[float]) -> str:
    return f"{microseconds[0] / 1e3:.2f} ({microseconds[1] / 1e3:.2f} to {microseconds[2] / 1e3:.2f})"


def networks_section(found: list[Result]) -> str:
    """A table per network: ours by pattern, then the dense engines."""
    parts = [
        "Batch 1, 224 x 224, float32, random weights: these tables are about time alone. *x best dense*: the fastest "
        "of the other engines in the same run. Targets, on MobileNetV1: must / stretch.\n"
    ]
    rows = [row for result in found for row in result["rows"]]
    threads = sorted({row["threads"] for row in rows})
    handover = [
        limit["handover_ns"]
        for result in found
        for limit in result["machine"]["roofs"].values()
        if "handover_ns" in limit
    ]
    if handover:
        parts.append(
            f"After these runs a word took at most {max(handover):.0f} ns from one of the two "
            "processors to the other; the nearer they are, the more small networks gain from a second thread.\n"
        )
    for network in sorted({row["network"] for row in rows}, key=list(TITLES).index):
        mine = [row for row in rows if row["network"] == network]
        head = ["engine", "network", "target"]
        for number in threads:
            head += [f"{number} thread{'s' * (number > 1)}: ms", "x best dense", "x our dense"]
        body = []
        for engine, name in dict.fromkeys((row["engine"], row["name"]) for row in mine):
            ours = engine == "sparsecore"
            line = [engine, name if ours else "dense", _target(network, name) if ours else ""]
            for number in threads:
                row = next((r for r in mine if r["name"] == name and r["threads"] == number), None)
                line += ["", "", ""] if row is None else _network_cells(row)
            body.append(line)
        best = {row["threads"]: row["best"] for row in mine if "best" in row}
        fastest = ", ".join(f"{name} at {number}" for number, name in sorted(best.items()))
        parts.append(f"### {TITLES.get(network, network)}\n\n{markdown(head, body)}")
        if fastest:
            parts.append(f"The best dense engine by threads: {fastest}.\n")
    absent: dict[str, str] = {}
    for result in found:
        title = TITLES[result["rows"][0]["network"]]
        for name, why in result["machine"]["missing"].items():
            absent[f"{title} by {name}"] = why
        absent |= dict.fromkeys(result["machine"]["left_out"], "nothing holds it to this cap")
    if absent:
        parts.append(f"Not measured: {'; '.join(f'{name} ({why})' for name, why in absent.items())}.\n")
    return "\n".join(parts)


def apart_section(found: list[Result]) -> str:
    """The same tables from runs in which the processors did not share a cache."""
    return (
        "A virtual machine is moved about by its host. These runs met it with its two processors apart: what one "
        "thread wrote the other reads late, and networks of many short steps, sparse ones above all, gain less from "
        "a second thread.\n\n" + networks_section(found)
    )


def readme_networks(found: list[Result]) -> str:
    """MobileNetV1 on the first screen."""
    rows = [row for result in found for row in result["rows"] if row["network"] == "mobilenet_v1"]
    threads = sorted({row["threads"] for row in rows})
    shown = (
        "dense",
        "unstructured 80%",
        "unstructured 90%",
        "unstructured 95%",
        "4x1 80%",
        "4x1 90%",
        "4x1 95%",
    )
    body = []
    for name in shown:
        mine = {row["threads"]: row for row in rows if row["name"] == name and row["engine"] == "sparsecore"}
        if mine:
            cells = (mine.get(number) for number in threads)
            body.append(
                [
                    name,
                    *(
                        "" if r is None else f"{r['us'][0] / 1e3:.2f} ms, {r.get('ratio', 0.0):.2f}x"
                        for r in cells
                    ),
                ]
            )
    best = {row["threads"]: row["best"] for row in rows if "best" in row}
    if not body or not best:
        return ""
    head = ["MobileNetV1", *(f"{number} thread{'s' * (number > 1)}" for number in threads)]
    engines = ", ".join(f"{name} with {number}" for number, name in sorted(best.items()))
    return (
        "Whole image networks by `sc.compile`, batch 1, 224 x 224, float32, beside the fastest dense engine of the "
        f"same run (by threads: {engines}).\n\n{markdown(head, body)}\n{origin(found)}"
    )


def _network_cells(row: Result) -> list[str]:
    return [
        _milliseconds(row["us"]),
        f"{row['ratio']:.2f}" if "ratio" in row else "",
        f"{row['ratio_own']:.2f}" if "ratio_own" in row else "",
    ]


def _target(network: str, name: str) -> str:
    from bench_networks import OVER_OWN_DENSE, VARIANTS

    if network != "mobilenet_v1":
        return ""
    if name in OVER_OWN_DENSE:
        return "{:g} / {:g} x our dense".format(*OVER_OWN_DENSE[name])
    variant = next((each for each in VARIANTS if each.label == name), None)
    return f"{variant.must:g} / {variant.stretch:g}" if variant and variant.must else ""


def _cost_of_calls(found: list[Result]) -> str:
    """What a call of each kind costs, where a result has it."""
    costs = next((result["machine"]["call_us"] for result in found if "call_us" in result["machine"]), None)
    if not costs:
        return ""
    listed = ", ".join(f"{name} {microseconds:.1f}" for name, microseconds in costs.items())
    return (
        " Ours and onnxruntime have inputs and outputs bound; what a call costs beside the kernel, by a layer too "
        f"small to count, in microseconds: {listed}."
    )


def conv_section(found: list[Result]) -> str:
    """Geometric means over the 1x1 layers of all networks, and where each pattern starts to win."""
    from bench_conv import TARGETS, crossovers, summarise

    # A run over all layers counts before one over some of them.
    rows = {
        (row["shape"], row["pattern"], row["sparsity"], row["threads"]): row
        for result in sorted(found, key=lambda result: len(result["rows"]))
        for row in result["rows"]
    }
    summary = summarise(list(rows.values()))
    head = [
        "layers of",
        "pattern",
        "zeros",
        "threads",
        "x best dense",
        "worst layer",
        "target",
        "bound",
        "of it",
    ]
    head += ["x one thread", "GFLOP/s"]
    body = []
    for line in summary:
        target = TARGETS[line["pattern"]].get(line["sparsity"]) if line["family"] == "all" else None
        body.append(
            [
                f"**{line['family']}**" if line["family"] == "all" else line["family"],
                line["pattern"],
                f"{line['sparsity']:.0%}",
                str(line["threads"]),
                f"{line['ratio']:.2f}",
                f"{line['worst']:.2f}",
                f"{target[0]:g} / {target[1]:g}" if target else "",
                f"{line['reachable']:.2f}" if "reachable" in line else "",
                f"{line['share_of_bound']:.0%}" if "reachable" in line else "",
                f"{line['scaling']:.2f}" if "scaling" in line else "",
                f"{line['gflops']:.0f}",
            ]
        )
    least = min(line["sparsity"] for line in summary)
    wins = []
    for (pattern, threads), sparsity in crossovers(summary).items():
        at = "nowhere" if sparsity is None else f"from {sparsity:.0%} zeros"
        wins.append(f"{pattern} {at}{' or fewer' * (sparsity == least)} ({threads}T)")
    return (
        "Batch 1, planes where they lie. Geometric means over layers; *best dense* is the fastest of torch's conv2d on "
        "planes and on pixels, torch's product, and onnxruntime, layer by layer. Targets: must / stretch. *Bound*: the "
        "ratio of layers that take no longer than their products, their loads from the level 1 cache, or reading x and "
        "writing y once, at the rates this machine reaches."
        f"{_cost_of_calls(found)}\n\n"
        f"{markdown(head, body)}\nSparse beats the best dense convolution: {'; '.join(wins)}.\n"
    )


def wasm_networks_section(found: list[Result]) -> str:
    """MobileNetV1 in node or a browser, beside the dense engines from npm."""
    head = ["network", "engine", "variant", "ms", "x best dense peer"]
    body = [
        [
            TITLES.get(row["network"], row["network"]),
            row["engine"],
            row["variant"].replace("_", " "),
            "{:.2f} ({:.2f} to {:.2f})".format(*row["ms"]),
            f"{row['ratio']:.2f}" if "ratio" in row else "",
        ]
        for result in found
        for row in result["rows"]
    ]
    return "Batch 1, 224 x 224, float32, one thread; the peers run the dense network.\n\n" + markdown(
        head, body
    )


# The same patterns in benchmarks of whole networks.
LABELS = {
    "dense": "dense",
    "80 %, single weights": "unstructured 80%",
    "90 %, single weights": "unstructured 90%",
    "80 %, 4x1 groups": "4x1 80%",
    "90 %, 4x1 groups": "4x1 90%",
    "30 %, 16x1 groups": "16x1 30%",
    "30 %, 16x1 groups, rearranged": "16x1 30%",
}


def accuracy_section(found: list[Result]) -> str:
    """A small network trained on images: what zeros cost and what they buy, there and in MobileNetV1."""
    large = {
        row["name"]: row
        for result in next(iter(by_machine(results("networks")).values()), [])
        for row in result["rows"]
        if row["network"] == "mobilenet_v1" and row["threads"] == 1
    }

    def ratios(setting: str) -> list[str]:
        row = large.get(LABELS[setting], {})
        return [f"{row[key]:.2f}" if key in row else "" for key in ("ratio_own", "ratio")]

    parts = []
    for result in found:
        rows, machine = result["rows"], result["machine"]
        dense = rows[0]["us"][0]
        body = [
            [
                row["setting"],
                f"{row['zeros']:.0%}",
                f"{row['accuracy']:.2%}",
                f"{row['spread']:.2%}",
                f"{row['us'][0]:.1f}",
                f"{dense / row['us'][0]:.2f}",
                *ratios(row["setting"]),
            ]
            for row in rows
        ]
        head = ["1x1 convolutions", "zeros", "accuracy", "deviation", "us an image", "x our dense"]
        head += ["MobileNetV1: x our dense", "x best dense"]
        parts.append(
            f"A small MobileNet on {machine['test_images']} held-out handwritten digits of 28 x 28 pixels, mean and "
            f"deviation of {rows[0]['seeds']} seeds; every network trained on from one dense one, six epochs. Times "
            f"are through `sc.compile` on one thread, {machine['batch']} images in a call; the dense network takes "
            f"torch {machine['torch_us'][0]:.0f} us an image. Planes of 14 to 4 pixels a side leave little to save, so "
            "the last two columns give what the same patterns do to MobileNetV1 at 224 x 224, one image on one thread, "
            "beside our own dense network and beside the fastest dense engine.\n\n" + markdown(head, body)
        )
    return "\n".join(parts)
