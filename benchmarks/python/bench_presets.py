"""What each preset keeps of a network's quality, by the share of zeros.

    python benchmarks/python/bench_presets.py training [--seeds N] [--dry]
    python benchmarks/python/bench_presets.py oneshot [--add] [--dry]

``training``: accuracy of a network of three linear layers on the handwritten digits of scikit-learn (1257 to learn
from, 540 to judge by), the same number of steps for every preset. ``oneshot``: cosine of all-MiniLM-L6-v2's sentence
embeddings to the dense model's, for the methods and for splits of the zeros over layers.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsecore as sc
from machine import RESULTS, ROOT, describe, slug, write
from sparsecore import sparsify
from sparsecore.demo.encoder import embed, minilm, quality
from sparsecore.sparsify._progress import bar

STEPS, BATCH = 1200, 64
SPARSITIES = (0.8, 0.9, 0.95, 0.98, 0.99)


class Digits:
    """Images as rows of 64 pixels, split once."""

    def __init__(self) -> None:
        from sklearn.datasets import load_digits

        found = load_digits()
        order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
        x = torch.tensor(found.data, dtype=torch.float32)[order] / 16.0
        y = torch.tensor(found.target)[order]
        self.learn, self.judge = (x[540:], y[540:]), (x[:540], y[:540])

    def batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(self.learn[0]), (BATCH,), generator=generator)
        return self.learn[0][chosen], self.learn[1][chosen]

    def accuracy(self, model: nn.Module) -> float:
        with torch.no_grad():
            return (model(self.judge[0]).argmax(1) == self.judge[1]).double().mean().item()


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def train(
    model: nn.Module, digits: Digits, seed: int, sparsifier: sparsify.Sparsifier | None, steps: int = STEPS
) -> None:
    """Adam, 1e-3 falling along a cosine."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if sparsifier is not None:
        sparsifier.attach(optimizer)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x, y = digits.batch(generator)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        falling.step()


def with_recipe(recipe: sparsify.Recipe) -> Callable[[Digits, int], nn.Module]:
    def run(digits: Digits, seed: int) -> nn.Module:
        model = network(seed)
        sparsifier = sparsify.Sparsifier(model, recipe)
        train(model, digits, seed, sparsifier)
        sparsifier.squash()
        return model

    return run


def before_training(find: Callable[[nn.Module, Digits], dict[str, Tensor]], sparsity: float) -> Any:
    """Masks of an untrained network, kept throughout."""

    def run(digits: Digits, seed: int) -> nn.Module:
        model = network(seed)
        masks = find(model, digits)
        recipe = sparsify.Recipe(sc.Unstructured(), allocation=sparsify.Uniform(sparsity))
        train(model, digits, seed, sparsify.Sparsifier(model, recipe, masks=masks))
        return model

    return run


def fixed(start: Callable[[nn.Module], dict[str, Tensor]]) -> Callable[[Digits, int], nn.Module]:
    """Half of the steps dense, then pruned once, then the other half."""

    def run(digits: Digits, seed: int) -> nn.Module:
        model = network(seed)
        train(model, digits, seed, None, STEPS // 2)
        start(model)
        optimizer = sparsify.MaskedOptimizer(torch.optim.Adam(model.parameters(), 5e-4), model)
        generator = torch.Generator().manual_seed(seed + 1000)
        for _ in range(STEPS // 2):
            x, y = digits.batch(generator)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        return model

    return run


def lottery(sparsity: float) -> Callable[[Digits, int], nn.Module]:
    """Six trainings, so six times the steps of the others."""

    def run(digits: Digits, seed: int) -> nn.Module:
        model = network(seed)
        sparsify.imp(
            model,
            lambda net, sparsifier, _: train(net, digits, seed, sparsifier),
            sparsity,
            rounds=5,
            rewind=50,
        )
        return model

    return run


def presets() -> dict[tuple[str, float], Callable[[Digits, int], nn.Module]]:
    """By name and share of zeros."""

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    def cooled(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]) / 200.0, batch[1])

    def hundred(digits: Digits) -> list[tuple[Tensor, Tensor]]:
        return [(digits.learn[0][:100], digits.learn[1][:100])]

    found: dict[tuple[str, float], Callable[[Digits, int], nn.Module]] = {
        ("dense", 0.0): lambda digits, seed: _dense(digits, seed),
        ("asp", 0.5): fixed(lambda model: sparsify.asp(model, pairs=None, progress=False)),
        ("sr_ste", 0.5): with_recipe(sparsify.sr_ste("2:4")),
        ("sr_ste", 0.75): with_recipe(sparsify.sr_ste("1:4")),
        ("sr_ste", 0.875): with_recipe(sparsify.sr_ste("1:8")),
    }
    for s in SPARSITIES:
        found[("gmp", s)] = with_recipe(
            sparsify.gmp(s, start=100, stop=STEPS * 3 // 4, every=20, allocation=sparsify.Global(s))
        )
        found[("static_random", s)] = with_recipe(sparsify.static_random(s))
        found[("evolutionary", s)] = with_recipe(sparsify.evolutionary(s, steps=STEPS, every=40))
        found[("rigl", s)] = with_recipe(sparsify.rigl(s, steps=STEPS, every=40))
        found[("granet", s)] = with_recipe(sparsify.granet(s, steps=STEPS, stop=STEPS * 3 // 4, every=40))
        found[("imp", s)] = lottery(s)
        found[("magnitude", s)] = fixed(
            lambda model, s=s: sparsify.magnitude(
                model, sc.Unstructured(), sparsity=sparsify.Global(s), progress=False
            )
        )
        for name, score, measure in (("snip", sparsify.snip, loss), ("grasp", sparsify.grasp, cooled)):
            found[(name, s)] = before_training(
                lambda model, digits, s=s, score=score, measure=measure: sparsify.masks_from_scores(
                    model, score(model, hundred(digits), measure), sparsify.Global(s)
                ),
                s,
            )
        found[("synflow", s)] = before_training(
            lambda model, digits, s=s: sparsify.synflow(model, digits.learn[0][:1], s), s
        )
    return found


def _dense(digits: Digits, seed: int) -> nn.Module:
    model = network(seed)
    train(model, digits, seed, None)
    return model


def zeros(model: nn.Module) -> float:
    weights = [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def training(seeds: int) -> list[dict[str, Any]]:
    digits, rows = Digits(), []
    runs = presets()
    with bar(len(runs), "training presets", None, "preset") as advance:
        for (name, sparsity), run in runs.items():
            accuracies = []
            for seed in range(seeds):
                model = run(digits, seed)
                accuracies.append(digits.accuracy(model))
                found = zeros(model)
                if found < sparsity - 0.01:  # what was grown onto a pixel that is always black stays zero
                    raise AssertionError(f"{name} was to reach {sparsity:.1%} zeros and has {found:.1%}")
            rows.append(
                {
                    "preset": name,
                    "sparsity": sparsity,
                    "accuracy": statistics.mean(accuracies),
                    "spread": statistics.pstdev(accuracies),
                    "seeds": seeds,
                }
            )
            print(
                {
                    key: round(value, 4) if isinstance(value, float) else value
                    for key, value in rows[-1].items()
                }
            )
            advance()
    return rows


def oneshot(
    before: list[dict[str, Any]], keep: Callable[[list[dict[str, Any]]], object]
) -> list[dict[str, Any]]:
    """Rows of all cases; those of ``before`` are not measured again, and every new one is kept at once."""
    source = minilm(256, 64, 128)
    reference = embed(source.make(), source.held_out)
    free = sc.Unstructured()
    cases: list[tuple[str, str, sc.Pattern, Any]] = [
        (method, f"{s:.0%}", free, s)
        for method in ("magnitude", "wanda", "sparsegpt", "alps")
        for s in (0.5, 0.6, 0.7)
    ]
    cases += [
        (method, spec, sc.pattern(spec), None)
        for method in ("magnitude", "wanda", "sparsegpt", "alps")
        for spec in ("2:4", "2:4/16")
    ]
    for s in (0.5, 0.7):
        for allocation in (
            sparsify.ERK(s, within="row"),
            sparsify.Global(s),
            sparsify.LAMP(s),
            sparsify.OWL(s, within="row"),
        ):
            cases.append(("wanda", f"{s:.0%} {type(allocation).__name__}", free, allocation))
    there = {(row["preset"], row["case"]): row for row in before}
    rows: list[dict[str, Any]] = []
    with bar(len(cases), "one-shot presets", None, "case") as advance:
        for method, title, pattern, sparsity in cases:
            if (method, title) in there:
                rows.append(there.pop((method, title)))
                advance()
                continue
            model = source.make()
            data = () if method == "magnitude" else (source.calibration,)
            getattr(sparsify, method)(
                model, pattern, *data, sparsity=sparsity, targets=source.targets, progress=False
            )
            judged = quality(embed(model, source.held_out), reference)
            rows.append(
                {"preset": method, "case": title, "zeros": _zeros_of(model, source.targets), **judged}
            )
            print(rows[-1], flush=True)
            keep(rows + list(there.values()))
            advance()
    return rows


def _zeros_of(model: nn.Module, targets: Any) -> float:
    weights = [
        m.weight
        for name, m in model.named_modules()
        if isinstance(m, nn.Linear) and name.startswith("encoder")
    ]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("training", "oneshot"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--add", action="store_true", help="only cases that the result file lacks (oneshot)")
    parser.add_argument("--dry", action="store_true", help="print only, keep no result file")
    arguments = parser.parse_args()
    name = f"presets_{arguments.what}"
    command = shlex.join(["python", "benchmarks/python/bench_presets.py", *sys.argv[1:]])
    header = describe(command, {})
    path = RESULTS / f"{name}_{slug()}.json"
    before: list[dict[str, Any]] = []
    if arguments.add and path.exists():
        found = json.loads(path.read_text())
        before = found["rows"]
        commits = dict.fromkeys([*found["machine"]["commit"].split(", "), header["commit"]])
        header["commit"] = ", ".join(commits)

    def keep(rows: list[dict[str, Any]]) -> None:
        if not arguments.dry:
            write(name, header, rows)

    rows = training(arguments.seeds) if arguments.what == "training" else oneshot(before, keep)
    keep(rows)
    if not arguments.dry:
        print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
