"""The advice itself: what was measured, what is proposed, and how to use it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from sparsecore._advise.knapsack import Knapsack
from sparsecore._advise.timing import ModelClock, count_tokens
from sparsecore.convert import _replace_all
from sparsecore.nn.linear import SparseLinear
from sparsecore.sparsify.calibration import Batch
from sparsecore.sparsify.once import apply_recipe
from sparsecore.sparsify.recipe import Recipe
from sparsecore.sparsify.recipes import load_recipe

_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


@dataclass(frozen=True)
class Option:
    """What one pattern would do to one layer.

    Attributes:
        pattern: Short name, or ``"dense"``.
        sparsity: Fraction of zeros where the pattern leaves it open.
        seconds: Time of the layer in one forward: inside the model where one was timed, else alone.
        spread: Quartile range of the time.
        cost: Estimated relative squared change of the model's output, without data of the weight; 0 for dense.
        storage: ``"int8"`` if the values are stored as such, else None.
        layout: The layout that was fastest; ``"auto"`` is what packing chooses by itself.
    """

    pattern: str
    sparsity: float | None
    seconds: float
    spread: float
    cost: float
    storage: str | None = None
    layout: str = "auto"

    @property
    def title(self) -> str:
        """In words."""
        share = "" if self.sparsity is None else f" {self.sparsity:.0%}"
        return self.pattern + share + ("" if self.storage is None else f" {self.storage}")


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
    shape: tuple[int, int]
    tokens: int
    options: tuple[Option, ...]
    chosen: int = 0

    @property
    def choice(self) -> Option:
        """The proposal."""
        return self.options[self.chosen]


@dataclass(frozen=True)
class Check:
    """Predicted against measured, in seconds.

    Attributes:
        predicted: The whole model; None if advice was given without timing one.
        measured: The whole model, median.
        spread: Quartile range of it.
        layers_predicted: All advised layers together.
        layers_measured: The same, while the model ran.
    """

    predicted: float | None
    measured: float
    spread: float
    layers_predicted: float
    layers_measured: float

    @property
    def error(self) -> float | None:
        """Of the whole model: 0.1 means that 10 % more was predicted than measured."""
        return None if self.predicted is None else self.predicted / self.measured - 1.0

    @property
    def layers_error(self) -> float:
        """Of the layers."""
        return self.layers_predicted / self.layers_measured - 1.0

    def __str__(self) -> str:
        text = (
            f"layers: {self.layers_predicted * 1e3:.2f} ms predicted, {self.layers_measured * 1e3:.2f} ms measured "
            f"({self.layers_error:+.1%})"
        )
        if self.predicted is None or self.error is None:
            return f"{text}; model: {self.measured * 1e3:.2f} ms measured"
        return (
            f"{text}; model: {self.predicted * 1e3:.2f} ms predicted, {self.measured * 1e3:.2f} ms measured "
            f"({self.error:+.1%})"
        )


@dataclass(frozen=True)
class Advice:
    """A proposal for every layer; ``str()`` is a table, notebooks show HTML.

    Attributes:
        layers: In the model's order.
        threads: While measuring.
        dtype: Of weights and inputs.
        estimate: What costs rest on: ``"calibration"``, ``"weights"``, or ``"random"`` (shapes only).
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

    @cached_property
    def _knapsack(self) -> Knapsack:
        return Knapsack(
            [[option.seconds for option in layer.options] for layer in self.layers],
            [[option.cost for option in layer.options] for layer in self.layers],
        )

    def _with(self, chosen: Iterable[int], budget: str) -> Advice:
        layers = tuple(replace(layer, chosen=index) for layer, index in zip(self.layers, chosen, strict=True))
        return replace(self, layers=layers, budget=budget)

    def choose(self, *, latency: float | str | None = None, quality: float | None = None) -> Advice:
        """The same measurements under another budget.

        Args:
            latency: Longest time: a share of the dense time in (0, 1], or ``"12ms"`` (``s``, ``ms``, ``us``); the least
                cost within it.
            quality: Largest mean cost; the least time within it.

        Raises:
            ValueError: Both or neither, or a budget no assignment meets.
        """
        if (latency is None) == (quality is None):
            raise ValueError("Advice.choose: give latency or quality, one of them.")
        if latency is None:
            assert quality is not None
            if not quality >= 0.0:
                raise ValueError(
                    f"Advice.choose: quality is the largest mean cost, not negative, got {quality}."
                )
            found = self._knapsack.within_cost(quality * len(self.layers))
            assert found is not None  # dense costs nothing
            return self._with(found, f"mean cost at most {quality:g}")
        budget, words = _time_budget(latency, self.dense_seconds)
        rest = self.rest_seconds or 0.0
        # The allowance is for sums of the same numbers in another order.
        found = self._knapsack.within_time(budget * (1 + 1e-9) - rest)
        if found is None:
            raise ValueError(
                f"advise: no assignment runs within {budget * 1e3:.3f} ms; the fastest takes "
                f"{(self._knapsack.fastest + rest) * 1e3:.3f} ms{' with the rest of the model' if rest else ''}. Allow "
                f"more time or pass sparser patterns."
            )
        return self._with(found, words)

    def fastest(self) -> Advice:
        """Every layer at its fastest option, whatever it costs; dense where nothing is faster."""
        chosen = [
            min(range(len(layer.options)), key=lambda i, options=layer.options: options[i].seconds)  # type: ignore[misc]
            for layer in self.layers
        ]
        return self._with(chosen, "none: each layer's fastest option")

    def curve(self, points: int = 12) -> list[tuple[float, float]]:
        """``(seconds, mean cost)`` of the best assignments between the fastest and the one that costs nothing."""
        if points < 1:
            raise ValueError(f"Advice.curve: needs points >= 1, got {points}.")
        low, high = self._knapsack.fastest, self._knapsack.slowest
        found = []
        for index in range(points):
            chosen = self._knapsack.within_time(low + (high - low) * index / max(points - 1, 1))
            assert chosen is not None
            advice = self._with(chosen, "")
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

        Layers are pruned in the order the model calls them, each calibrated on what the pruned ones before it pass on.

        Args:
            model: The one advised on, or another of its architecture.
            data: Calibration batches; None prunes by magnitude.
            method: ``"alps"``, ``"sparsegpt"``, ``"wanda"`` or ``"magnitude"``.
            progress: Show a progress bar.

        Returns:
            The model; a bare ``nn.Linear`` is returned converted.

        Raises:
            ValueError: A layer is missing, has another shape, or is not a plain ``nn.Linear``; nothing is changed.
        """
        chosen = {layer.name: layer for layer in self.layers if layer.choice.pattern != "dense"}
        if not chosen:
            return model
        found = dict(model.named_modules())
        for name, layer in chosen.items():
            module = found.get(name)
            if type(module) is not nn.Linear or tuple(module.weight.shape) != layer.shape:
                raise ValueError(
                    f"Advice.apply_: {name!r} must be an nn.Linear with a weight of {layer.shape[0]}x{layer.shape[1]}, "
                    f"the model has {module}. Advise on this model first."
                )
        recipes: dict[str, Recipe] = {}
        for name, layer in chosen.items():
            given = {"preset": method if data is not None else "magnitude", "pattern": layer.choice.pattern}
            recipes[name] = load_recipe(given | {"sparsity": layer.choice.sparsity})[0].recipe
        masks = apply_recipe(model, recipes, data=data, progress=progress)
        packed: dict[int, nn.Module] = {}
        for name, layer in chosen.items():
            linear = found[name]
            assert isinstance(linear, nn.Linear)
            dtype = torch.int8 if layer.choice.storage == "int8" else None
            packed[id(linear)] = SparseLinear.from_dense(
                linear, layer.choice.pattern, masks[name], dtype=dtype, layout=layer.choice.layout
            )
        # A layer used under two names stays one layer.
        names = model.named_modules(remove_duplicate=False)
        replacements = {name: packed[id(module)] for name, module in names if id(module) in packed}
        found.clear()
        return _replace_all(model, replacements)

    def check(self, model: nn.Module, inputs: Batch, *, seconds: float = 2.0) -> Check:
        """Times a converted model and compares it with the prediction.

        Args:
            model: After :meth:`apply_`.
            inputs: A batch with as many tokens as advice was given for.
            seconds: To spend.

        Returns:
            The comparison; ``str()`` says it in words.

        Raises:
            ValueError: The model is not what this advice proposes, or sees another number of tokens.
        """
        found = dict(model.named_modules())
        missing = [layer.name for layer in self.layers if layer.name not in found]
        if missing:
            raise ValueError(f"Advice.check: the model has no layer {missing[0]!r}.")
        layers = {layer.name: found[layer.name] for layer in self.layers}
        for layer in self.layers:
            if (layer.choice.pattern == "dense") == isinstance(layers[layer.name], SparseLinear):
                raise ValueError(
                    f"Advice.check: {layer.name!r} is to be {layer.choice.title}, the model has "
                    f"{layers[layer.name]}. Call apply_ on the dense model first."
                )
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            calls = count_tokens(model, layers, inputs)
            for layer in self.layers:
                tokens = round(sum(calls[layer.name]) / len(calls[layer.name]))
                if tokens != layer.tokens:
                    raise ValueError(
                        f"Advice.check: {layer.name!r} sees {tokens} tokens of these inputs, and advice was given for "
                        f"{layer.tokens}."
                    )
            clock = ModelClock(model, layers, inputs)
            clock.look(seconds, least=5)
            timed = clock.timing()
        finally:
            torch.set_num_threads(before)
        return Check(
            None if self.rest_seconds is None else self.seconds,
            timed.seconds,
            timed.spread,
            self.seconds - (self.rest_seconds or 0.0),
            sum(timed.layers.values()),
        )

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
        rows: list[tuple[str, ...]] = [
            (
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
        ]
        for layer in self.layers:
            choice, dense = layer.choice, layer.options[0]
            losing = [option.title for option in layer.options[1:] if option.seconds >= dense.seconds]
            rows.append(
                (
                    layer.name or "(model)",
                    f"{layer.shape[0]}x{layer.shape[1]}",
                    str(layer.tokens),
                    choice.title,
                    f"{choice.seconds * 1e3:.3f}",
                    f"{dense.seconds * 1e3:.3f}",
                    f"{dense.seconds / choice.seconds:.2f}",
                    f"{choice.cost:.4f}",
                    ", ".join(losing) or "none",
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
            "calibration": "; mean change of the output by a layer {:.4f} (Wanda masks on the data, an upper guess)",
            "weights": "; mean weight error {:.4f} (magnitude, no data)",
            "random": "; mean weight error {:.4f} of random weights (quality unknown: shapes only)",
        }
        text += kinds.get(self.estimate, "; mean cost {:.4f}").format(self.cost)
        if self.budget.startswith("none"):
            points = ", ".join(f"{seconds * 1e3:.2f} ms at {cost:.4f}" for seconds, cost in self.curve(6))
            text += f"\nbest mean cost by time: {points}"
        return text

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
        return f"{table}<p>{html.escape(self._summary()).replace(chr(10), '<br>')}</p>"


def _time_budget(latency: float | str, dense: float) -> tuple[float, str]:
    """Seconds, and the budget in words."""
    if isinstance(latency, str):
        found = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*(s|ms|us)\s*", latency)
        try:
            seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
        except ValueError:
            seconds = 0.0
        if not seconds > 0.0:
            raise ValueError(
                f'Advice.choose: a latency in words is "12ms", "300us" or "0.5s", got {latency!r}.'
            )
        return seconds, f"latency at most {latency.strip()}"
    if not 0.0 < latency <= 1.0:
        raise ValueError(
            f'Advice.choose: latency is a share of the dense time in (0, 1], or a time like "12ms", got {latency}.'
        )
    return latency * dense, f"latency at most {latency:g} of dense"
