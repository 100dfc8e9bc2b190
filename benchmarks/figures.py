"""Draws docs/figures/axes and docs/figures/presets: what each value of an axis and each preset does.

    python benchmarks/figures.py [NAME ...]

The library itself runs on small layers and networks made here; accuracies and cosines come from benchmarks/results. All
names are drawn without arguments, in a minute or two.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path[:0] = [str(Path(__file__).parent)]

import sparsecore as sc  # noqa: E402
from sparsecore import sparsify  # noqa: E402
from tables import ROOT, results  # noqa: E402

FIGURES = ROOT / "docs" / "figures"
GREY, BLUE = "0.75", "tab:blue"
STEPS = 240
Axes = Any


def panels(count: int, width: float = 7.6, height: float = 2.6) -> tuple[Any, list[Axes]]:
    """An empty figure with panels side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    found = figure.subplots(1, count)
    return figure, [found] if count == 1 else list(found)


# What figures are drawn of


def correlated(rows: int = 512, width: int = 64, seed: int = 0) -> Tensor:
    """Inputs ``(rows, width)`` whose columns depend on each other and differ in size, as hidden states do."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator) / 8 + torch.eye(width)
    scale = torch.linspace(-1.2, 1.2, width)[torch.randperm(width, generator=generator)].exp()
    return (torch.randn(rows, width, generator=generator) @ mix) * scale


def layer(outputs: int = 48, inputs: int = 64, seed: int = 0) -> nn.Sequential:
    """One linear layer, as a model."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False))


def spread_layer(outputs: int = 48, inputs: int = 64) -> nn.Sequential:
    """A layer some of whose outputs and inputs weigh more than others."""
    model = layer(outputs, inputs)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model[0].weight.mul_((0.7 * torch.randn(outputs, 1, generator=generator)).exp())
        model[0].weight.mul_((0.7 * torch.randn(1, inputs, generator=generator)).exp())
    return model


def network(seed: int = 0) -> nn.Sequential:
    """The network of the preset benchmark."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def batches(count: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Inputs and the classes that a fixed sparse teacher gives them."""
    teacher = network(99)
    sparsify.magnitude(teacher, sc.Unstructured(), sparsity=0.9, progress=False)
    found = []
    for index in range(count):
        x = torch.randn(64, 64, generator=torch.Generator().manual_seed(1000 * seed + index))
        with torch.no_grad():
            found.append((x, teacher(x).argmax(1)))
    return found


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def follow(
    recipe: sparsify.Recipe, model: nn.Module | None = None, steps: int = STEPS, every: int = 4
) -> dict[str, list[float]]:
    """Trains with a recipe and looks at the masks every few steps.

    Returns:
        ``step``, ``sparsity``, ``changed`` (share of positions that changed since the look before), ``ever`` (share of
        positions that have been active).
    """
    model = network() if model is None else model
    sparsifier = sparsify.Sparsifier(model, recipe)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    sparsifier.attach(optimizer)
    found: dict[str, list[float]] = {"step": [], "sparsity": [], "changed": [], "ever": []}
    before = {name: mask.clone() for name, mask in sparsifier.masks.items()}
    ever = {name: mask.clone() for name, mask in sparsifier.masks.items()}
    total = sum(mask.numel() for mask in before.values())
    for step, batch in enumerate(batches(steps)):
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
        if step % every == 0:
            masks = {name: mask.clone() for name, mask in sparsifier.masks.items()}
            ever = {name: ever[name] | mask for name, mask in masks.items()}
            changed = sum(int((masks[name] != before[name]).sum()) for name in masks)
            found["step"].append(step)
            found["sparsity"].append(1 - sum(int(mask.sum()) for mask in masks.values()) / total)
            found["changed"].append(changed / total)
            found["ever"].append(sum(int(mask.sum()) for mask in ever.values()) / total)
            before = masks
    return found


# Panels


def show_mask(axes: Axes, weight: Tensor, title: str) -> None:
    axes.imshow((weight != 0).numpy(), cmap="Greys", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def show_run(axes: Axes, found: dict[str, list[float]]) -> None:
    """Sparsity over the steps, and how much of the mask moves."""
    axes.plot(found["step"], [100 * value for value in found["sparsity"]], color=BLUE)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("step", fontsize=8)
    axes.set_ylabel("zeros, %", fontsize=8, color=BLUE)
    other = axes.twinx()
    other.bar(
        found["step"], [100 * value for value in found["changed"]], width=3.0, color="tab:orange", alpha=0.6
    )
    other.set_ylabel("of the mask changed, %", fontsize=8, color="tab:orange")
    for each in (axes, other):
        each.tick_params(labelsize=7)
    axes.set_title("a run of it", fontsize=9)


def show_accuracy(axes: Axes, name: str) -> None:
    """Accuracy on the digits of every preset, one of them in colour."""
    rows = [row for result in results("presets_training") for row in result["rows"]]
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row["sparsity"]:
            curves.setdefault(row["preset"], []).append((100 * row["sparsity"], 100 * row["accuracy"]))
    for other, points in sorted(curves.items(), key=lambda item: item[0] == name):
        mine = other == name
        axes.plot(
            *zip(*sorted(points), strict=True),
            marker="o",
            markersize=4 if mine else 2,
            color=BLUE if mine else GREY,
            linewidth=1.8 if mine else 0.8,
        )
    dense = next(row["accuracy"] for row in rows if row["preset"] == "dense")
    axes.axhline(100 * dense, color="black", linewidth=0.8, linestyle="--")
    axes.set_ylim(70, 99)
    axes.set_xlabel("zeros, %", fontsize=8)
    axes.set_ylabel("accuracy, %", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_title("digits; grey: the other presets; dashed: dense", fontsize=9)


def show_cosines(axes: Axes, name: str) -> None:
    """Cosine of the encoder's embeddings, one method in colour."""
    rows = [row for result in results("presets_oneshot") for row in result["rows"]]
    methods = ("magnitude", "wanda", "sparsegpt", "alps")
    found = {(row["preset"], row["case"]): row["cosine"] for row in rows}
    cases = [case for case in dict.fromkeys(row["case"] for row in rows) if (name, case) in found]
    cases = [case for case in cases if not case[-1].isalpha()]
    for index, method in enumerate(methods):
        places = [place + 0.2 * (index - 1.5) for place in range(len(cases))]
        values = [found.get((method, case), 0.0) for case in cases]
        axes.bar(places, values, 0.18, color=BLUE if method == name else GREY)
    axes.set_xticks(range(len(cases)), cases)
    axes.set_ylim(0, 1)
    axes.tick_params(labelsize=7)
    axes.set_title("encoder, cosine; grey: " + ", ".join(m for m in methods if m != name), fontsize=8)


def output_errors() -> dict[str, list[tuple[float, float]]]:
    """Relative squared error of a layer's output by method and share of zeros, on inputs it was not pruned with."""
    inputs = correlated(1024)
    data, held_out = [inputs[:768]], inputs[768:]
    methods: dict[str, Callable[..., Any]] = {
        "magnitude": sparsify.magnitude,
        "wanda": sparsify.wanda,
        "sparsegpt": sparsify.sparsegpt,
        "alps": sparsify.alps,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for share in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        for name, method in methods.items():
            model = layer()
            with torch.no_grad():
                wanted = model(held_out)
                given = () if name == "magnitude" else (data,)
                method(model, sc.Unstructured(), *given, sparsity=share, progress=False)
                error = (model(held_out) - wanted).square().sum() / wanted.square().sum()
            found[name].append((100 * share, float(error)))
    return found


def show_errors(axes: Axes, name: str | None) -> None:
    for index, (other, points) in enumerate(output_errors().items()):
        colour = f"C{index}" if name is None else BLUE if other == name else GREY
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=other)
    axes.set_yscale("log")
    axes.set_xlabel("zeros, %", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.set_title("error of a layer's output", fontsize=9)


def kept_by_layer(axes: Axes, masks: dict[str, dict[str, Tensor]]) -> None:
    """Kept share of every layer, a group of bars for each split."""
    width = 0.8 / len(masks)
    for index, (title, found) in enumerate(masks.items()):
        places = [place + width * (index - (len(masks) - 1) / 2) for place in range(len(found))]
        shares = [100 * float(mask.float().mean()) for mask in found.values()]
        axes.bar(places, shares, width * 0.9, label=title, color=BLUE if len(masks) == 1 else None)
    names = list(next(iter(masks.values())))
    axes.set_xticks(range(len(names)), names)
    axes.set_xlabel("layer", fontsize=8)
    axes.set_ylabel("kept, %", fontsize=8)
    axes.tick_params(labelsize=7)


# Axes


def axis_target() -> Any:
    model = nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 256), nn.Linear(256, 64), nn.Linear(64, 10))
    chosen = {"0", "1"}
    sc.sparsify_(model, "1:4", lambda _, name: name in chosen)
    figure, axes = panels(1, 5.0, 1.9)
    sc.plot.layers(model, axes[0])
    axes[0].set_title('targets=["re:[01]"]', fontsize=9)
    return figure


def axis_pattern() -> Any:
    kinds: dict[str, tuple[sc.Pattern, float | None]] = {
        "unstructured 75 %": (sc.Unstructured(), 0.75),
        "1:4": (sc.NM(1, 4), None),
        "1:4 by 16 rows": (sc.NM(1, 4, vector=16), None),
        "16x1 groups": (sc.Group(16, 1), 0.75),
        "4x4 groups": (sc.Group(4, 4), 0.75),
        "channels": (sc.Channel("out"), 0.75),
    }
    figure, axes = panels(len(kinds), 9.6, 1.8)
    for one, (title, (pattern, share)) in zip(axes, kinds.items(), strict=True):
        model = spread_layer()
        sparsify.magnitude(model, pattern, sparsity=share, progress=False)
        show_mask(one, model[0].weight.detach(), title)
    return figure


def axis_score() -> Any:
    figure, axes = panels(5, 9.6, 2.0)
    data = [correlated()]
    norm = data[0].square().mean(0).sqrt()
    axes[0].bar(range(64), norm.tolist(), width=1.0, color=GREY)
    axes[0].set_title("size of the inputs", fontsize=9)
    axes[0].set_xticks([])
    axes[0].tick_params(labelsize=7)
    rules: dict[str, dict[str, Any]] = {
        "Magnitude": {"score": sparsify.Magnitude()},
        "Wanda": {"score": sparsify.Wanda(), "data": data},
        "OBSScore": {"score": sparsify.OBSScore(), "weights": sparsify.OBS(), "data": data},
        "Random": {"score": sparsify.Random(0)},
    }
    for one, (title, options) in zip(axes[1:], rules.items(), strict=True):
        model = layer()
        sparsify.prune_once(
            model, sc.Unstructured(), sparsity=sparsify.Uniform(0.7, "row"), progress=False, **options
        )
        show_mask(one, model[0].weight.detach(), title)
    return figure


def axis_allocation() -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(a, b) for a, b in ((64, 256), (256, 256), (256, 64), (64, 16))),
    )
    with torch.no_grad():
        for index, part in enumerate(model):
            part.weight.mul_(1.0 + index)
    x = [correlated(256)]
    splits: list[sparsify.allocation.Allocation] = [
        sparsify.Uniform(0.8, "layer"),
        sparsify.UniformPlus(0.8),
        sparsify.ERK(0.8),
        sparsify.Global(0.8),
        sparsify.LAMP(0.8),
        sparsify.OWL(0.8),
    ]
    masks = {}
    for split in splits:
        data = {"data": x} if isinstance(split, sparsify.OWL) else {}
        masks[type(split).__name__] = sparsify.prune_once(
            copy.deepcopy(model), sc.Unstructured(), sparsity=split, progress=False, **data
        )
    figure, axes = panels(1, 7.0, 2.8)
    kept_by_layer(axes[0], masks)
    axes[0].set_xticks(range(4), ["256x64", "256x256", "64x256", "16x64"])
    axes[0].legend(fontsize=7, frameon=False, ncols=3)
    return figure


def axis_schedule() -> Any:
    schedules: dict[str, Any] = {
        "OneShot": sparsify.OneShot(),
        "Cubic(20, 180, every=10)": sparsify.Cubic(20, 180, 10),
        "Cubic(..., initial=0.5)": sparsify.Cubic(20, 180, 10, initial=0.5),
        "Constant(every=20, stop=180)": sparsify.Constant(20, 180),
    }
    figure, axes = panels(1, 7.0, 2.8)
    for index, (title, schedule) in enumerate(schedules.items()):
        share, shares = 0.9 if schedule.starts_sparse else 0.0, []
        if isinstance(schedule, sparsify.Cubic):
            share = schedule.initial
        updates = []
        for step in range(STEPS):
            if schedule.is_update(step):
                share = schedule.sparsity(0.9, step)
                updates.append((step, 100 * share))
            shares.append(100 * share)
        width = 4.0 if isinstance(schedule, sparsify.OneShot) else 1.2  # it lies beneath Constant
        axes[0].plot(range(STEPS), shares, label=title, color=f"C{index}", linewidth=width)
        if updates:
            axes[0].plot(*zip(*updates, strict=True), ".", color=f"C{index}", markersize=5)
    axes[0].set_xlabel("step; dots: the mask is chosen anew", fontsize=8)
    axes[0].set_ylabel("zeros, %", fontsize=8)
    axes[0].tick_params(labelsize=7)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def axis_grow() -> Any:
    figure, axes = panels(2)
    fraction = sparsify.Fraction(0.3, STEPS)
    rules: list[Any] = [
        sparsify.RandomGrow(fraction),
        sparsify.UnfiredGrow(fraction),
        sparsify.GradientGrow(fraction),
        sparsify.MomentumGrow(fraction),
    ]
    for rule in rules:
        split = sparsify.ERK(0.9, within="layer")
        recipe = sparsify.Recipe(
            sc.Unstructured(),
            allocation=split,
            schedule=sparsify.Constant(8),
            grow=rule,
            start=sparsify.Start(sparsify.Random(0), split),
        )
        found = follow(recipe, every=8)
        axes[0].plot(
            found["step"], [100 * value for value in found["ever"]], label=type(rule).__name__, linewidth=1.2
        )
    axes[0].set_title("positions that have ever been active, %", fontsize=9)
    axes[0].legend(fontsize=7, frameon=False)
    for decay in ("cosine", "linear", "constant"):
        shares = sparsify.Fraction(0.3, 180, decay)
        axes[1].plot(
            range(STEPS), [100 * shares.at(step) for step in range(STEPS)], label=decay, linewidth=1.2
        )
    axes[1].set_title("share exchanged, %: Fraction(0.3, 180, decay)", fontsize=9)
    axes[1].legend(fontsize=7, frameon=False)
    for one in axes:
        one.set_xlabel("step", fontsize=8)
        one.tick_params(labelsize=7)
    return figure


def axis_gradient() -> Any:
    figure, axes = panels(2)
    rules: dict[str, tuple[Any, Any]] = {
        "Hard, Constant": (sparsify.Hard(), sparsify.Constant(1)),
        "STE, EveryForward": (sparsify.STE(), sparsify.EveryForward()),
        "SRSTE(2e-3), EveryForward": (sparsify.SRSTE(2e-3), sparsify.EveryForward()),
    }
    for title, (rule, schedule) in rules.items():
        recipe = sparsify.Recipe(sc.NM(2, 4), schedule=schedule, gradient=rule)
        model = network()
        found = follow(recipe, model, every=2)
        axes[0].plot(
            found["step"][1:], [100 * value for value in found["changed"][1:]], label=title, linewidth=1.0
        )
        layer_ = model[2]
        dense = (
            layer_.parametrizations.weight.original if hasattr(layer_, "parametrizations") else layer_.weight
        )
        mask = layer_.weight.detach() != 0
        hidden = dense.detach().abs()[~mask]
        axes[1].hist(hidden.numpy(), bins=40, range=(0, 0.1), histtype="step", label=title, linewidth=1.2)
    axes[0].set_title("of a 2:4 mask changed in two steps, %", fontsize=9)
    axes[0].set_xlabel("step", fontsize=8)
    axes[1].set_title("sizes of the weights beneath the mask, in the end", fontsize=9)
    axes[1].set_yscale("log")
    for one in axes:
        one.tick_params(labelsize=7)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def axis_weights() -> Any:
    figure, axes = panels(1, 5.0, 2.8)
    show_errors(axes[0], None)
    rules = {"magnitude": "Keep, by Magnitude", "wanda": "Keep, by Wanda", "sparsegpt": "OBS", "alps": "ADMM"}
    lines = axes[0].get_lines()
    axes[0].legend(lines, [rules[line.get_label()] for line in lines], fontsize=7, frameon=False)
    return figure


def axis_penalty() -> Any:
    torch.manual_seed(0)
    blocks = [nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32)) for _ in range(4)]
    teacher = nn.Sequential(*blocks).eval()
    with torch.no_grad():  # hidden states of different sizes, as in deep networks
        for index, block in enumerate(teacher):
            block[2].weight.mul_(4.0 if index % 2 == 0 else 1.0)
    data = [torch.randn(64, 32) for _ in range(16)]
    held_out = torch.randn(256, 32)
    pruned = copy.deepcopy(teacher)
    sparsify.magnitude(pruned, sc.NM(1, 4), progress=False)

    def errors(model: nn.Module) -> list[float]:
        found, s, t = [], held_out, held_out
        with torch.no_grad():
            for mine, theirs in zip(model, teacher, strict=True):
                s, t = mine(s), theirs(t)
                found.append(float((s - t).square().sum() / t.square().sum()))
        return found

    figure, axes = panels(1, 5.6, 2.8)
    shown = {"before": errors(pruned)}
    for penalty in (sparsify.LayerDistillation(), sparsify.SquareHead()):
        model = copy.deepcopy(pruned)
        sparsify.recover(model, teacher, data, steps=300, lr=2e-3, penalty=penalty, progress=False)
        shown[type(penalty).__name__] = errors(model)
    for index, (title, values) in enumerate(shown.items()):
        axes[0].bar([p + 0.27 * (index - 1) for p in range(4)], values, 0.25, label=title)
    axes[0].set_yscale("log")
    axes[0].set_xticks(range(4), [f"block {index + 1}" for index in range(4)])
    axes[0].set_title("error of the hidden states after 300 steps", fontsize=9)
    axes[0].tick_params(labelsize=7)
    axes[0].legend(fontsize=7, frameon=False)
    return figure


def axis_driver() -> Any:
    figure, axes = panels(2)
    model = network()
    shares: list[float] = []
    losses: list[float] = []
    ends: list[int] = []

    def train(net: nn.Module, sparsifier: sparsify.Sparsifier, turn: int) -> None:
        optimizer = torch.optim.Adam(net.parameters(), 2e-3)
        sparsifier.attach(optimizer)
        for batch in batches(60):
            optimizer.zero_grad()
            value = loss(net, batch)
            value.backward()
            optimizer.step()
            losses.append(value.item())
        total = sum(mask.numel() for mask in sparsifier.masks.values())
        shares.append(100 * (1 - sum(int(mask.sum()) for mask in sparsifier.masks.values()) / total))
        ends.append(len(losses))

    sparsify.imp(model, train, 0.9, rounds=5, rewind=10)
    axes[0].bar(range(len(shares)), shares, color=BLUE)
    axes[0].set_xlabel("round", fontsize=8)
    axes[0].set_title("zeros while a round trains, %", fontsize=9)
    axes[1].plot(losses, color=BLUE, linewidth=0.8)
    for end in ends[:-1]:
        axes[1].axvline(end, color=GREY, linewidth=0.8)
    axes[1].set_xlabel("step of all rounds; each goes back to step 10", fontsize=8)
    axes[1].set_title("loss", fontsize=9)
    for one in axes:
        one.tick_params(labelsize=7)
    return figure


# Presets


def oneshot(name: str) -> Any:
    figure, axes = panels(2)
    show_errors(axes[0], name)
    show_cosines(axes[1], name)
    return figure


def trained(name: str, recipe: sparsify.Recipe) -> Any:
    figure, axes = panels(2)
    show_run(axes[0], follow(recipe))
    show_accuracy(axes[1], name)
    return figure


def initial(name: str, masks: dict[str, Tensor]) -> Any:
    """Kept share by layer beside the accuracy."""
    figure, axes = panels(2)
    kept_by_layer(axes[0], {name: masks})
    axes[0].set_xticks(range(3), ["256x64", "256x256", "10x256"])
    axes[0].set_title("kept of each layer, 90 % zeros overall", fontsize=9)
    show_accuracy(axes[1], name)
    return figure


def scored(name: str) -> Any:
    model, data = network(), batches(4)
    if name == "synflow":
        return initial(name, sparsify.synflow(model, data[0][0][:1], 0.9))
    if name == "static_random":
        return initial(name, sparsify.Sparsifier(model, sparsify.static_random(0.9)).masks)
    score = getattr(sparsify, name)(model, data, loss)
    return initial(name, sparsify.masks_from_scores(model, score, sparsify.Global(0.9)))


def preset_asp() -> Any:
    figure, axes = panels(2)
    torch.manual_seed(0)
    gains: dict[str, list[float]] = {"as it was": [], "ordered": []}
    spreads = (0.0, 0.5, 1.0, 1.5)
    for spread in spreads:
        for title, pairs in (("as it was", ()), ("ordered", [("0", "2")])):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, 64))
            with torch.no_grad():
                model[2].weight.mul_((spread * torch.randn(128)).exp())
                total = model[2].weight.abs().sum()
                sparsify.asp(model, pairs=pairs, seconds=5.0, progress=False)
                gains[title].append(100 * float(model[2].weight.abs().sum() / total))
    for title, values in gains.items():
        axes[0].plot(spreads, values, marker="o", markersize=4, label=title)
    axes[0].set_xlabel("how much the columns differ (sigma of their log)", fontsize=8)
    axes[0].set_title("sum of |w| that 2:4 keeps, %", fontsize=9)
    axes[0].tick_params(labelsize=7)
    axes[0].legend(fontsize=7, frameon=False)
    show_accuracy(axes[1], "asp")
    return figure


def preset_imp() -> Any:
    figure, axes = panels(2)
    rounds = range(6)
    axes[0].bar(rounds, [100 * (1 - 0.1 ** (turn / 5)) for turn in rounds], color=BLUE)
    axes[0].set_xlabel("round", fontsize=8)
    axes[0].set_title("zeros while a round trains, %", fontsize=9)
    axes[0].tick_params(labelsize=7)
    show_accuracy(axes[1], "imp")
    return figure


def image_network(name: str, wanted: Callable[[str], bool]) -> Any:
    """A mask of a 1x1 convolution, and accuracy beside time."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 48, 3, 2, 1), nn.ReLU(), nn.Conv2d(48, 64, 1), nn.ReLU(), nn.Conv2d(64, 48, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip
    with torch.no_grad():
        model[2].weight.mul_((0.3 * torch.randn(64, 1, 1, 1)).exp())
    if name == "fast_sparse_convnets":
        found = sparsify.fast_sparse_convnets(model, 0.8, start=0, stop=10, every=1, block=4, wide=64)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        found.attach(optimizer)
        for _ in range(12):
            optimizer.zero_grad()
            model(torch.randn(8, 3, 16, 16)).square().mean().backward()
            optimizer.step()
    else:
        found = sparsify.sparse_byte_nn(model, 0.5, n=16, example=torch.randn(1, 3, 16, 16))
    figure, axes = panels(2)
    show_mask(
        axes[0], found.masks["2"].flatten(1), f"a 1x1 convolution of {found.masks['2'].shape[0]} outputs"
    )
    for result in results("accuracy"):
        for row in result["rows"]:
            mine = wanted(row["setting"])
            axes[1].plot([row["us"][0]], [100 * row["accuracy"]], "o", color=BLUE if mine else GREY)
            if mine or row["setting"] == "dense":
                axes[1].annotate(
                    row["setting"], (row["us"][0], 100 * row["accuracy"]), xytext=(4, 3), fontsize=7,
                    textcoords="offset points",
                )  # fmt: skip
    axes[1].margins(x=0.3, y=0.15)
    axes[1].set_xlabel("microseconds for an image, one thread", fontsize=8)
    axes[1].set_ylabel("accuracy, %", fontsize=8)
    axes[1].tick_params(labelsize=7)
    return figure


DRAWN: dict[str, Callable[[], Any]] = {
    "axes/target": axis_target,
    "axes/pattern": axis_pattern,
    "axes/score": axis_score,
    "axes/allocation": axis_allocation,
    "axes/schedule": axis_schedule,
    "axes/grow": axis_grow,
    "axes/gradient": axis_gradient,
    "axes/weights": axis_weights,
    "axes/penalty": axis_penalty,
    "axes/driver": axis_driver,
    **{
        f"presets/{name}": lambda name=name: oneshot(name)  # type: ignore[misc]
        for name in ("magnitude", "wanda", "sparsegpt", "alps")
    },
    "presets/asp": preset_asp,
    "presets/gmp": lambda: trained("gmp", sparsify.gmp(0.9, start=20, stop=180, every=10)),
    "presets/sr_ste": lambda: trained("sr_ste", sparsify.sr_ste("1:4")),
    "presets/evolutionary": lambda: trained(
        "evolutionary", sparsify.evolutionary(0.9, steps=STEPS, every=12)
    ),
    "presets/rigl": lambda: trained("rigl", sparsify.rigl(0.9, steps=STEPS, every=12)),
    "presets/granet": lambda: trained("granet", sparsify.granet(0.9, steps=STEPS, stop=160, every=12)),
    **{
        f"presets/{name}": lambda name=name: scored(name)  # type: ignore[misc]
        for name in ("static_random", "snip", "grasp", "synflow")
    },
    "presets/imp": preset_imp,
    "presets/fast_sparse_convnets": lambda: image_network(
        "fast_sparse_convnets", lambda setting: "single" in setting or "4x1" in setting
    ),
    "presets/sparse_byte_nn": lambda: image_network("sparse_byte_nn", lambda setting: "16x1" in setting),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(DRAWN))
    chosen = parser.parse_args().names or list(DRAWN)
    unknown = [name for name in chosen if name not in DRAWN]
    if unknown:
        parser.error(f"there is no figure {unknown[0]!r}")
    torch.set_num_threads(1)
    for name in chosen:
        path = FIGURES / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        DRAWN[name]().savefig(path, dpi=90, metadata={"Software": None})
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
