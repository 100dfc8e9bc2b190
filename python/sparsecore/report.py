"""What a model consists of, what is zero in it, and what a conversion saves."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sparsecore._advise.advice import Advice
from sparsecore.nn._packed import PackedLayer
from sparsecore.nn.conv import SparseConv2d
from sparsecore.nn.plan import Plan

_STYLE = (
    "body{font:14px/1.4 sans-serif;margin:2em;color:#222}table{border-collapse:collapse}"
    "th,td{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:left;white-space:nowrap}"
    "td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}"
    "tr:last-child td{font-weight:bold;border-top:1px solid #888}"
)


@dataclass(frozen=True)
class LayerReport:
    """One linear layer or convolution.

    Attributes:
        name: In the model.
        pattern: In words, or ``"dense"``.
        layout: Of the weight.
        shape: ``(out_features, in_features)``; of a convolution the matrix it multiplies by,
            ``(out_channels, in_channels / groups * kernel size)`` (transposed: ``in`` and ``out`` trade places).
        sparsity: Fraction of zeros in a dense weight; fraction that is not stored of a packed one.
        dense_bytes: What the weight takes as a dense layer of the same dtype (int8: of float32).
        nbytes: What it takes now, indices, scales and planned copies included.
        kind: Class of the layer.
        seconds: Time of the layer as it is, where timings were given.
        dense_seconds: Time of the same layer dense, measured beside it.
    """

    name: str
    pattern: str
    layout: str
    shape: tuple[int, int]
    sparsity: float
    dense_bytes: int
    nbytes: int
    kind: str = "Linear"
    seconds: float | None = None
    dense_seconds: float | None = None


@dataclass(frozen=True)
class SparsityReport:
    """All linear layers and convolutions of a model.

    ``str()`` is a table, :meth:`to_markdown` another, :meth:`to_dict` plain data, :meth:`to_html` a page; notebooks
    show the table.

    Attributes:
        layers: In the model's order.
        weights: Parameters of the whole model, packed layers counted as if dense; embeddings and norms included.
        zeros: How many of them are zero or not stored.
    """

    layers: tuple[LayerReport, ...]
    weights: int = 0
    zeros: int = 0

    @property
    def dense_bytes(self) -> int:
        """Of the weights of all layers, were they dense."""
        return sum(layer.dense_bytes for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Of the weights of all layers as they are."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """Fraction of zeros among the weights of all layers."""
        sizes = [layer.shape[0] * layer.shape[1] for layer in self.layers]
        zeros = sum(layer.sparsity * size for layer, size in zip(self.layers, sizes, strict=True))
        return zeros / max(sum(sizes), 1)

    @property
    def model_sparsity(self) -> float:
        """Fraction of zeros among all parameters of the model."""
        return self.zeros / max(self.weights, 1)

    def to_dict(self) -> dict[str, Any]:
        """Layers and totals as plain data."""
        return {
            "layers": [asdict(layer) for layer in self.layers],
            "dense_bytes": self.dense_bytes,
            "nbytes": self.nbytes,
            "sparsity": self.sparsity,
            "weights": self.weights,
            "zeros": self.zeros,
            "model_sparsity": self.model_sparsity,
        }

    @property
    def _timed(self) -> bool:
        return any(layer.seconds is not None for layer in self.layers)

    def _rows(self) -> list[tuple[str, ...]]:
        """Head, layers and total; the first four columns are words, the others numbers."""
        head = ("layer", "pattern", "layout", "shape", "zeros", "dense bytes", "bytes", "ratio")
        rows = [head + (("ms", "dense ms", "x dense") if self._timed else ())]
        for layer in self.layers:
            rows.append(
                (
                    layer.name or "(model)",
                    layer.pattern if layer.kind == "Linear" else f"{layer.pattern} {layer.kind}",
                    layer.layout,
                    f"{layer.shape[0]}x{layer.shape[1]}",
                    f"{layer.sparsity:.1%}",
                    str(layer.dense_bytes),
                    str(layer.nbytes),
                    f"{layer.nbytes / max(layer.dense_bytes, 1):.3f}",
                    *(_times(layer.seconds, layer.dense_seconds) if self._timed else ()),
                )
            )
        timed = [
            (layer.seconds, layer.dense_seconds)
            for layer in self.layers
            if layer.seconds is not None and layer.dense_seconds is not None
        ]
        rows.append(
            (
                "total",
                "",
                "",
                "",
                f"{self.sparsity:.1%}",
                str(self.dense_bytes),
                str(self.nbytes),
                f"{self.nbytes / max(self.dense_bytes, 1):.3f}",
                *(_times(sum(t for t, _ in timed), sum(d for _, d in timed)) if self._timed else ()),
            )
        )
        return rows

    def _summary(self) -> str:
        return (
            f"model: {self.weights} parameters, {self.model_sparsity:.1%} zeros; layers above take "
            f"{self.nbytes / 1e6:.2f} of {self.dense_bytes / 1e6:.2f} MB"
        )

    def __str__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if i < 4 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, "", self._summary()])

    def to_markdown(self) -> str:
        """A table for a README or an issue, with the line about the whole model below it."""
        head, *body = [[cell.replace("|", "\\|") for cell in row] for row in self._rows()]
        rules = ["---" if i < 4 else "---:" for i in range(len(head))]
        lines = ["| " + " | ".join(cells) + " |" for cells in (head, rules, *body)]
        return "\n".join([*lines, "", self._summary()])

    def _repr_html_(self) -> str:
        head, *body = self._rows()

        def line(cells: tuple[str, ...], tag: str) -> str:
            opened = [f"<{tag}>" if i < 4 else f'<{tag} class="number">' for i in range(len(cells))]
            inner = (f"{start}{html.escape(cell)}</{tag}>" for start, cell in zip(opened, cells, strict=True))
            return "<tr>" + "".join(inner) + "</tr>"

        table = "<table>" + line(head, "th") + "".join(line(row, "td") for row in body) + "</table>"
        return f"{table}<p>{html.escape(self._summary())}</p>"

    def to_html(self, title: str = "Sparsity report") -> str:
        """A page of its own, with no reference to anything outside it.

        Args:
            title: Of the page.
        """
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f"<style>{_STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1>\n{self._repr_html_()}\n"
            "</body></html>\n"
        )


def _times(seconds: float | None, dense: float | None) -> tuple[str, str, str]:
    if seconds is None or dense is None:
        return ("", "", "")
    return (f"{seconds * 1e3:.3f}", f"{dense * 1e3:.3f}", f"{dense / max(seconds, 1e-12):.2f}")


def report(model: nn.Module, *, timings: Advice | Iterable[Plan] | None = None) -> SparsityReport:
    """Pattern, zeros and bytes of every linear layer and convolution, packed or dense.

    Args:
        model: Any module; nothing is changed.
        timings: What :func:`sparsecore.advise` or :func:`sparsecore.plan_` returned for this model, to have times in
            the table. Of a plan the largest number of tokens counts.

    Returns:
        The report.

    Raises:
        ValueError: The model has parameters without a shape yet, or timings name none of its layers.
    """
    _require_shapes(model)
    measured = {} if timings is None else _measured(model, timings)
    layers = []
    for name, module in model.named_modules():
        times = measured.get(name, (None, None))
        if isinstance(module, PackedLayer):
            weight = module.weight
            width = 4 if weight.scale is not None else weight.values.element_size()
            stored = module.nbytes - (0 if module.bias is None else module.bias.nbytes)
            dense = weight.shape[0] * weight.shape[1] * width
            pattern, layout, zeros = str(weight.pattern), weight.layout, weight.sparsity
            kind = "Conv2d" if isinstance(module, SparseConv2d) else "Linear"
            layers.append(
                LayerReport(name, pattern, layout, weight.shape, zeros, dense, stored, kind, *times)
            )
        elif isinstance(module, (nn.Linear, _ConvNd)):
            matrix = module.weight
            shape = (matrix.shape[0], matrix.numel() // max(matrix.shape[0], 1))
            zeros = _zeros(matrix) / max(matrix.numel(), 1)
            kind = type(module).__name__ if isinstance(module, _ConvNd) else "Linear"
            size = matrix.nbytes
            layers.append(LayerReport(name, "dense", "dense", shape, zeros, size, size, kind, *times))
    return SparsityReport(tuple(layers), *_whole(model))


def _zeros(tensor: Tensor) -> int:
    """How many entries are zero; none where there are no values."""
    return 0 if tensor.is_meta else tensor.numel() - int(torch.count_nonzero(tensor.detach()))


def _whole(model: nn.Module) -> tuple[int, int]:
    """Parameters of the model and zeros among them, each counted once."""
    total = zeros = 0
    packed: set[int] = set()
    for module in model.modules():
        if isinstance(module, PackedLayer):
            values = module.weight_values
            packed.add(id(values))
            size = module.matrix_shape[0] * module.matrix_shape[1]
            total += size
            zeros += size - (values.numel() - _zeros(values))
    for parameter in model.parameters():
        if id(parameter) not in packed:
            total += parameter.numel()
            zeros += _zeros(parameter)
    return total, zeros


def _require_shapes(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(f"report: {name!r} has no shape yet. Run the model once on an input first.")


def _measured(
    model: nn.Module, timings: Advice | Iterable[Plan]
) -> dict[str, tuple[float | None, float | None]]:
    """``(seconds, dense seconds)`` by the name of the layer."""
    modules = dict(model.named_modules())
    found: dict[str, tuple[float | None, float | None]] = {}
    if isinstance(timings, Advice):
        for layer in timings.layers:
            if layer.name in modules:
                dense = layer.options[0].seconds
                packed = isinstance(modules[layer.name], PackedLayer)
                found[layer.name] = (layer.choice.seconds if packed else dense, dense)
    else:
        for plan in timings:
            name = "" if isinstance(model, PackedLayer) else plan.name
            if name in modules and plan.choices:
                last = max(plan.choices, key=lambda choice: choice.tokens)
                found[name] = (last.seconds[last.kept], last.seconds["dense"])
    if not found:
        raise ValueError(
            "report: timings name no layer of this model. Pass what advise or plan_ returned for it."
        )
    return found
