"""Advice: which layer takes which pattern on this machine, by measurement, within a budget of time or of quality.

Every distinct layer shape is timed here with each candidate pattern beside the dense product, with weights that come
from memory as they do inside a model. What a pattern costs in quality is estimated layer by layer:

    with data       ||(W - V) x||^2 / ||W x||^2 over calibration tokens, V being W pruned by Wanda's score
    without data    ||W - V||^2 / ||W||^2, V being W pruned by magnitude

Costs of layers are added up. That is a surrogate: errors of different layers neither add exactly nor matter equally,
and better pruning than Wanda's, or training, lowers all of them. It orders assignments; it does not predict accuracy.

The assignment is a multiple-choice knapsack (one pattern per layer, least cost within the time), solved exactly on a
grid of a few thousand time steps.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import quantiles
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore.convert import sparsify_
from sparsecore.formats.pack import pack
from sparsecore.nn.linear import SparseLinear
from sparsecore.patterns import NM, Pattern, pattern_name
from sparsecore.patterns import pattern as parse_pattern
from sparsecore.sparsify._progress import bar
from sparsecore.sparsify.calibration import Batch, Calibration, run_model
from sparsecore.sparsify.once import apply_recipe
from sparsecore.sparsify.recipe import Recipe
from sparsecore.sparsify.recipes import load_recipe
from sparsecore.sparsify.scores import Magnitude, Statistics, Wanda
from sparsecore.sparsify.selection import Selector, check
from sparsecore.sparsify.targets import find_targets

Candidate = tuple[Pattern, float | None]
Shape = tuple[int, int]

CANDIDATES: tuple[tuple[str, float | None], ...] = (
    ("unstructured", 0.5),
    ("unstructured", 0.7),
    ("unstructured", 0.8),
    ("unstructured", 0.9),
    ("unstructured", 0.95),
    ("2:4", None),
    ("1:4", None),
    ("2:4/16", None),
    ("2:4/64", None),
    ("1:4/64", None),
    ("16x1", 0.75),
    ("16x1", 0.9),
)
# Weights of a candidate are rotated over copies of about this size, so that they come from memory as in a model.
_COLD_BYTES = 48 << 20
_BINS = 4000


@dataclass(frozen=True)
class Option:
    """What one pattern would do to one layer.

    Attributes:
        pattern: Short name, or ``"dense"``.
        sparsity: Fraction of zeros where the pattern leaves it open.
        seconds: Median time of the layer.
        spread: Quartile range of the time.
        cost: Estimated relative squared error of the output; 0 for dense.
    """

    pattern: str
    sparsity: float | None
    seconds: float
    spread: float
    cost: float


@dataclass(frozen=True)
class LayerAdvice:
    """One layer: all options, dense first, and the one proposed.

    Attributes:
        name: In the model.
        shape: ``(out_features, in_features)``.
        tokens: It sees at once.
        options: Dense first.
        chosen: Index of the proposal.
    """

    name: str
    shape: Shape
    tokens: int
    options: tuple[Option, ...]
    chosen: int = 0

    @property
    def choice(self) -> Option:
        """The proposal."""
        return self.options[self.chosen]


@dataclass(frozen=True)
class Advice:
    """A proposal for every layer; ``str()`` is a table, notebooks show HTML.

    Attributes:
        layers: In the model's order.
        threads: While measuring.
        dtype: Of weights and inputs.
        estimate: What costs rest on: ``"calibration"``, ``"weights"`` or ``"none"`` (shapes only).
        rest_seconds: The dense model outside these layers, or None where no model was timed.
        budget: What was asked for.
    """

    layers: tuple[LayerAdvice, ...]
    threads: int
    dtype: str
    estimate: str
    rest_seconds: float | None = None
    budget: str = "none"

    @property
    def assignment(self) -> dict[str, tuple[str, float | None]]:
        """Pattern and sparsity of every layer that is not to stay dense."""
        return {
            layer.name: (layer.choice.pattern, layer.choice.sparsity)
            for layer in self.layers
            if layer.choice.pattern != "dense"
        }

    @property
    def dense_seconds(self) -> float:
        """All layers dense, plus the rest of the model where it was timed."""
        return sum(layer.options[0].seconds for layer in self.layers) + (self.rest_seconds or 0.0)

    @property
    def seconds(self) -> float:
        """The proposal, plus the rest of the model where it was timed."""
        return sum(layer.choice.seconds for layer in self.layers) + (self.rest_seconds or 0.0)

    @property
    def cost(self) -> float:
        """Mean estimated cost over layers."""
        return sum(layer.choice.cost for layer in self.layers) / max(len(self.layers), 1)

    def choose(self, *, latency: float | None = None, quality: float | None = None) -> Advice:
        """The same measurements under another budget.

        Args:
            latency: Largest share of the dense time, in (0, 1]; the least cost within it.
            quality: Largest mean cost; the least time within it.

        Raises:
            ValueError: Both or neither, or a budget no assignment meets.
        """
        if (latency is None) == (quality is None):
            raise ValueError("Advice.choose: give latency or quality, one of them.")
        if latency is not None:
            if not 0.0 < latency <= 1.0:
                raise ValueError(
                    f"Advice.choose: latency is a share of the dense time in (0, 1], got {latency}."
                )
            chosen = _cheapest(self.layers, latency * self.dense_seconds - (self.rest_seconds or 0.0))
            words = f"latency at most {latency:g} of dense"
        else:
            assert quality is not None
            if not quality >= 0.0:
                raise ValueError(
                    f"Advice.choose: quality is the largest mean cost, not negative, got {quality}."
                )
            chosen = _fastest(self.layers, quality * len(self.layers))
            words = f"mean cost at most {quality:g}"
        layers = tuple(replace(layer, chosen=index) for layer, index in zip(self.layers, chosen, strict=True))
        return replace(self, layers=layers, budget=words)

    def curve(self, points: int = 12) -> list[tuple[float, float]]:
        """``(seconds, mean cost)`` of the best assignments between the fastest and dense."""
        fastest = sum(min(option.seconds for option in layer.options) for layer in self.layers)
        dense = sum(layer.options[0].seconds for layer in self.layers)
        rest = self.rest_seconds or 0.0
        found = []
        for index in range(points):
            budget = fastest + (dense - fastest) * (index + 1) / points
            advice = self.choose(latency=min(1.0, (budget + rest) / (dense + rest)))
            found.append((advice.seconds, advice.cost))
        return found

    def apply_(
        self,
        model: nn.Module,
        data: Iterable[Batch] | None = None,
        *,
        method: str = "alps",
        progress: bool = True,
    ) -> nn.Module:
        """Prunes each layer to its pattern and packs it, in place; layers that stay dense are not touched.

        Args:
            model: The one advised on, or another of its architecture.
            data: Calibration batches; None prunes by magnitude.
            method: ``"alps"``, ``"sparsegpt"``, ``"wanda"`` or ``"magnitude"``.
            progress: Show a progress bar.

        Returns:
            The model.
        """
        recipes: dict[str, Recipe] = {}
        for name, (pattern, sparsity) in self.assignment.items():
            given = {
                "preset": method if data is not None else "magnitude",
                "pattern": pattern,
                "sparsity": sparsity,
            }
            recipes[name] = load_recipe(given)[0].recipe
        if not recipes:
            return model
        masks = apply_recipe(model, recipes, data=data, progress=progress)
        for chosen in dict.fromkeys(recipe.pattern for recipe in recipes.values()):
            mine = {name: masks[name] for name, recipe in recipes.items() if recipe.pattern == chosen}
            model = sparsify_(model, chosen, lambda _, name, mine=mine: name in mine, masks=mine)  # type: ignore[misc]
        return model

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self) | {
            "dense_seconds": self.dense_seconds,
            "seconds": self.seconds,
            "cost": self.cost,
        }

    @staticmethod
    def from_dict(state: Mapping[str, Any]) -> Advice:
        """The inverse of :meth:`to_dict`."""
        try:
            layers = tuple(
                LayerAdvice(
                    layer["name"],
                    (layer["shape"][0], layer["shape"][1]),
                    layer["tokens"],
                    tuple(Option(**option) for option in layer["options"]),
                    layer["chosen"],
                )
                for layer in state["layers"]
            )
            plain = {key: state[key] for key in ("threads", "dtype", "estimate", "rest_seconds", "budget")}
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"Advice.from_dict: malformed ({error!r}).") from error
        if any(not 0 <= layer.chosen < len(layer.options) for layer in layers):
            raise ValueError("Advice.from_dict: a chosen option does not exist.")
        return Advice(layers, **plain)

    def _rows(self) -> list[tuple[str, ...]]:
        head = (
            "layer",
            "shape",
            "tokens",
            "proposal",
            "ms",
            "dense ms",
            "x dense",
            "cost",
            "slower than dense",
        )
        rows: list[tuple[str, ...]] = [head]
        for layer in self.layers:
            choice, dense = layer.choice, layer.options[0]
            losing = [_title(option) for option in layer.options[1:] if option.seconds >= dense.seconds]
            rows.append(
                (
                    layer.name,
                    f"{layer.shape[0]}x{layer.shape[1]}",
                    str(layer.tokens),
                    _title(choice),
                    f"{choice.seconds * 1e3:.3f}",
                    f"{dense.seconds * 1e3:.3f}",
                    f"{dense.seconds / choice.seconds:.2f}",
                    "" if self.estimate == "none" else f"{choice.cost:.4f}",
                    ", ".join(losing),
                )
            )
        return rows

    def _summary(self) -> str:
        what = "layers" if self.rest_seconds is None else "model"
        text = (
            f"{what}: {self.dense_seconds * 1e3:.2f} ms dense, {self.seconds * 1e3:.2f} ms proposed "
            f"({self.dense_seconds / max(self.seconds, 1e-12):.2f}x), {self.threads} thread"
            f"{'s' * (self.threads > 1)}, {self.dtype}; budget: {self.budget}"
        )
        kinds = {
            "calibration": "; mean output error {:.4f} (Wanda masks on the data, an upper guess)",
            "weights": "; mean weight error {:.4f} (magnitude, no data)",
            "none": "; quality unknown: shapes only",
        }
        return text + kinds[self.estimate].format(self.cost)

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if i in (0, 1, 3, 8) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, "", self._summary()])

    def _repr_html_(self) -> str:
        head, *body = self._rows()

        def line(cells: tuple[str, ...], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        table = "<table>" + line(head, "th") + "".join(line(row, "td") for row in body) + "</table>"
        return f"{table}<p>{html.escape(self._summary())}</p>"


def _title(option: Option) -> str:
    return option.pattern + ("" if option.sparsity is None else f" {option.sparsity:.0%}")


def advise(
    model_or_shapes: nn.Module | Mapping[str, Shape] | Sequence[Shape],
    *,
    batch: int = 128,
    threads: int | None = None,
    seconds: float = 10.0,
    patterns: Sequence[str | Pattern | tuple[str | Pattern, float | None]] | None = None,
    quality: float | None = None,
    latency: float | None = None,
    data: Iterable[Batch] | None = None,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
    dtype: torch.dtype = torch.float32,
    progress: bool = True,
) -> Advice:
    """Measures candidate patterns for every linear layer on this machine and proposes an assignment.

    Args:
        model_or_shapes: A model, or ``(out_features, in_features)`` of layers, by name or in a list.
        batch: Tokens a layer sees at once; with ``data`` the number in its first batch counts instead.
        threads: torch threads while measuring; None: as they are.
        seconds: Time for the measurements, packing not counted.
        patterns: Candidates: patterns or short names, or pairs with a sparsity where the pattern leaves it open. None:
            a dozen from unstructured 50 % to 16x1 groups.
        quality: Largest mean cost; the proposal is the fastest within it.
        latency: Largest share of the dense time; the proposal costs least within it. With neither budget each layer
            gets its fastest option, and :meth:`Advice.curve` shows what lies between.
        data: Calibration batches: token counts, quality and the time of the whole model are then known.
        targets: Layers, as for :func:`sparsecore.sparsify.prune_once`.
        ignore: The same, to leave out.
        dtype: Of weights and inputs while measuring.
        progress: Show a progress bar.

    Returns:
        The advice; nothing is changed.

    Raises:
        ValueError: No layer, an unknown pattern, or a budget no assignment meets.
    """
    if batch < 1 or not seconds > 0.0:
        raise ValueError(f"advise: needs batch >= 1 and seconds > 0, got {batch} and {seconds}.")
    if quality is not None and latency is not None:
        raise ValueError("advise: give a latency or a quality budget, not both.")
    candidates = _candidates(patterns)
    batches = None if data is None else list(data)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        layers, shapes, estimate = {}, {}, "none"
        if isinstance(model_or_shapes, nn.Module):
            layers = find_targets(model_or_shapes, targets, ignore)
            shapes = {name: (layer.out_features, layer.in_features) for name, layer in layers.items()}
            estimate = "weights" if batches is None else "calibration"
        else:
            shapes = _named_shapes(model_or_shapes)
        tokens = dict.fromkeys(shapes, batch)
        whole = None
        if layers and batches is not None:
            tokens = _token_counts(model_or_shapes, layers, batches[0])  # type: ignore[arg-type]
            whole = _model_seconds(model_or_shapes, batches[0], dtype)  # type: ignore[arg-type]
        distinct = list(dict.fromkeys((shapes[name], tokens[name]) for name in shapes))
        times: dict[tuple[Shape, int], list[tuple[float, float]]] = {}
        with bar(len(distinct), "measuring layers", progress, "shape") as advance:
            for shape, count in distinct:
                times[shape, count] = _measure(shape, count, candidates, seconds / len(distinct), dtype)
                advance()
        costs = _costs(model_or_shapes, layers, candidates, batches, progress) if layers else {}
        found = []
        for name, shape in shapes.items():
            timed = times[shape, tokens[name]]
            options = [Option("dense", None, *timed[0], 0.0)]
            for index, (chosen, sparsity) in enumerate(candidates):
                cost = costs[name][index] if name in costs else 0.0
                options.append(Option(pattern_name(chosen), sparsity, *timed[index + 1], cost))
            found.append(LayerAdvice(name, shape, tokens[name], tuple(options)))
        used = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    rest = None if whole is None else max(whole - sum(layer.options[0].seconds for layer in found), 0.0)
    advice = Advice(tuple(found), used, str(dtype).removeprefix("torch."), estimate, rest)
    if latency is None and quality is None:
        fastest = tuple(
            replace(layer, chosen=min(range(len(layer.options)), key=lambda i: layer.options[i].seconds))
            for layer in found
        )
        return replace(advice, layers=fastest, budget="none: each layer's fastest option")
    return advice.choose(latency=latency, quality=quality)


def _candidates(
    patterns: Sequence[str | Pattern | tuple[str | Pattern, float | None]] | None,
) -> list[Candidate]:
    found: list[Candidate] = []
    for entry in CANDIDATES if patterns is None else patterns:
        given, sparsity = entry if isinstance(entry, tuple) else (entry, None)
        pattern = parse_pattern(given)
        if not isinstance(pattern, NM) and sparsity is None:
            raise ValueError(
                f"advise: {pattern} leaves the sparsity open. Pass ({pattern_name(pattern)!r}, 0.5), say."
            )
        check(pattern, None if isinstance(pattern, NM) else sparsity)
        found.append((pattern, None if isinstance(pattern, NM) else sparsity))
    if not found:
        raise ValueError("advise: patterns is empty.")
    return found


def _named_shapes(shapes: Mapping[str, Shape] | Sequence[Shape]) -> dict[str, Shape]:
    named = dict(shapes) if isinstance(shapes, Mapping) else {str(i): shape for i, shape in enumerate(shapes)}
    if not named:
        raise ValueError("advise: there is no layer to advise on.")
    for name, shape in named.items():
        if len(shape) != 2 or min(shape) < 1:
            raise ValueError(f"advise: {name!r} must be (out_features, in_features), got {tuple(shape)}.")
    return {name: (int(shape[0]), int(shape[1])) for name, shape in named.items()}


def _token_counts(model: nn.Module, layers: Mapping[str, nn.Linear], batch: Batch) -> dict[str, int]:
    counts = dict.fromkeys(layers, 0)

    def counter(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            counts[name] += args[0].numel() // max(args[0].shape[-1], 1)

        return hook

    handles = [layer.register_forward_pre_hook(counter(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            run_model(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name, count in counts.items() if not count]
    if missing:
        raise ValueError(f"advise: data never reaches {missing[0]!r}. Add it to ignore.")
    return counts


def _model_seconds(model: nn.Module, batch: Batch, dtype: torch.dtype) -> float | None:
    """Median time of the dense model, if it computes in the dtype that is measured."""
    if any(parameter.is_floating_point() and parameter.dtype != dtype for parameter in model.parameters()):
        return None
    training = model.training
    model.eval()
    times: list[float] = []
    try:
        with torch.inference_mode():
            run_model(model, batch)
            begin = time.perf_counter()
            while len(times) < 5 or (time.perf_counter() - begin < 1.0 and len(times) < 50):
                start = time.perf_counter()
                run_model(model, batch)
                times.append(time.perf_counter() - start)
    finally:
        model.train(training)
    return sorted(times)[len(times) // 2]


@dataclass
class _Rotation:
    """Copies of one candidate's layer, used in turn."""

    layers: list[nn.Module]
    times: list[float] = field(default_factory=list)

    def run(self, input: Tensor, turn: int) -> float:
        layer = self.layers[turn % len(self.layers)]
        start = time.perf_counter()
        layer(input)
        return time.perf_counter() - start


def _measure(
    shape: Shape, tokens: int, candidates: Sequence[Candidate], seconds: float, dtype: torch.dtype
) -> list[tuple[float, float]]:
    """``(median, quartile range)`` of dense and of every candidate, interleaved."""
    n, k = shape
    weight = torch.randn(n, k, dtype=torch.float32).to(dtype)
    dense_bytes = weight.nbytes
    copies = max(1, min(32, math.ceil(_COLD_BYTES / max(dense_bytes, 1))))
    dense = []
    for _ in range(copies):
        linear = nn.Linear(k, n, dtype=dtype, device="meta")
        linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
        linear.bias = nn.Parameter(torch.zeros(n, dtype=dtype), requires_grad=False)
        dense.append(linear)
    rotations = [_Rotation(list(dense))]
    bias = torch.zeros(n, dtype=dtype)
    for pattern, sparsity in candidates:
        packed = pack(weight, pattern, sparsity=sparsity)
        layers: list[nn.Module] = []
        for _ in range(copies):
            owned: dict[str, Any] = {name: tensor.clone() for name, tensor in packed.tensors().items()}
            layers.append(SparseLinear.from_packed(replace(packed, **owned), bias, trainable=False))
        rotations.append(_Rotation(layers))
    inputs = [torch.randn(tokens, k, dtype=torch.float32).to(dtype) for _ in range(2)]
    with torch.inference_mode():
        for rotation in rotations:
            rotation.run(inputs[0], 0)
        begin, turn = time.perf_counter(), 0
        while turn < 7 or (time.perf_counter() - begin < seconds and turn < 400):
            for rotation in rotations:
                rotation.times.append(rotation.run(inputs[turn % 2], turn))
            turn += 1
    found = []
    for rotation in rotations:
        low, middle, high = quantiles(rotation.times, n=4, method="inclusive")
        found.append((middle, high - low))
    return found


def _costs(
    model: Any,
    layers: Mapping[str, nn.Linear],
    candidates: Sequence[Candidate],
    data: Sequence[Batch] | None,
    progress: bool,
) -> dict[str, list[float]]:
    """Relative squared error of every candidate on every layer."""
    found: dict[str, list[float]] = {}
    with bar(len(layers), "judging layers", progress) as advance:
        if data is None:
            for name, layer in layers.items():
                found[name] = _layer_costs(layer.weight.detach().float(), None, candidates)
                advance()
            return found
        training = model.training
        model.eval()
        try:
            calibration = Calibration(model, dict(layers), data, follow_dense=False)
            for stage in calibration.stages:
                second = calibration.collect(stage).second.float()
                for name in stage.names:
                    found[name] = _layer_costs(layers[name].weight.detach().float(), second, candidates)
                    advance()
        finally:
            model.train(training)
    return found


def _layer_costs(weight: Tensor, second: Tensor | None, candidates: Sequence[Candidate]) -> list[float]:
    if second is None:
        score, whole = Magnitude()(weight, Statistics()), weight.square().sum()
    else:
        score = Wanda()(weight, Statistics(second.diagonal().sqrt()))
        whole = ((weight @ second) * weight).sum()
    found = []
    for pattern, sparsity in candidates:
        selector = Selector(pattern, check(pattern, sparsity), "row")
        lost = weight.masked_fill(selector.mask(score), 0.0)
        error = lost.square().sum() if second is None else ((lost @ second) * lost).sum()
        found.append(float(error / whole.clamp_min(1e-30)))
    return found


def _table(layers: Sequence[LayerAdvice], budget: float) -> tuple[list[list[float]], list[list[int]]]:
    """``best[b]`` after each layer: the least cost within b time steps; and which option each layer took there.

    Times are rounded up, so that a solution on the grid keeps to the real budget.
    """
    step = max(budget, 1e-12) / _BINS
    width = _BINS + 1
    best = torch.zeros(width, dtype=torch.float64)
    picks: list[list[int]] = []
    history = [best.tolist()]
    for layer in layers:
        # The tiny allowance keeps a budget that is exactly the sum of some options within reach.
        shifts = [max(0, math.ceil(option.seconds / step - 1e-6)) for option in layer.options]
        rows = torch.full((len(layer.options), width), math.inf, dtype=torch.float64)
        for index, (option, shift) in enumerate(zip(layer.options, shifts, strict=True)):
            if shift < width:
                rows[index, shift:] = best[: width - shift] + option.cost
        best, pick = rows.min(0)
        picks.append(pick.tolist())
        history.append(best.tolist())
    return history, picks


def _trace(
    layers: Sequence[LayerAdvice], budget: float, picks: Sequence[Sequence[int]], end: int
) -> list[int]:
    step = max(budget, 1e-12) / _BINS
    chosen: list[int] = []
    for layer, pick in zip(reversed(layers), reversed(picks), strict=True):
        index = pick[end]
        chosen.append(index)
        end -= max(0, math.ceil(layer.options[index].seconds / step - 1e-6))
    return chosen[::-1]


def _cheapest(layers: Sequence[LayerAdvice], budget: float) -> list[int]:
    """Least cost within ``budget`` seconds; dense wherever all of them may stay dense."""
    if sum(layer.options[0].seconds for layer in layers) <= budget * (1 + 1e-9):
        return [0] * len(layers)
    fastest = sum(min(option.seconds for option in layer.options) for layer in layers)
    history, picks = _table(layers, budget) if budget > 0.0 else ([[math.inf]], [])
    if not math.isfinite(history[-1][-1]):
        raise ValueError(
            f"advise: no assignment runs within {budget * 1e3:.3f} ms; the fastest takes {fastest * 1e3:.3f} ms. Allow "
            f"more time or pass sparser patterns."
        )
    return _trace(layers, budget, picks, _BINS)


def _fastest(layers: Sequence[LayerAdvice], budget: float) -> list[int]:
    """Least time with costs that sum to at most ``budget``."""
    dense = sum(layer.options[0].seconds for layer in layers)
    # Options slower than dense and not cheaper can only hurt; the grid spans the dense time.
    history, picks = _table(layers, dense * (1.0 + (len(layers) + 1) / _BINS))
    best = history[-1]
    allowed = budget * (1 + 1e-9) + 1e-15
    end = next((b for b, cost in enumerate(best) if cost <= allowed), None)
    if end is None:
        return [0] * len(layers)
    return _trace(layers, dense * (1.0 + (len(layers) + 1) / _BINS), picks, end)
