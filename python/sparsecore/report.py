"""What a converted model consists of, and what it saves."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from sparsecore.nn.linear import SparseLinear


@dataclass(frozen=True)
class LayerReport:
    """One linear layer.

    Attributes:
        name: In the model.
        pattern: In words, or ``"dense"``.
        layout: Of the weight.
        shape: ``(out_features, in_features)``.
        sparsity: Fraction of the weight that is not stored.
        dense_bytes: What the weight takes as an ``nn.Linear`` of the same dtype (int8: of float32).
        nbytes: What it takes now, indices, scales and planned copies included.
    """

    name: str
    pattern: str
    layout: str
    shape: tuple[int, int]
    sparsity: float
    dense_bytes: int
    nbytes: int


@dataclass(frozen=True)
class SparsityReport:
    """All linear layers of a model; ``str()`` is a table, ``to_dict()`` plain data, notebooks show HTML."""

    layers: tuple[LayerReport, ...]

    @property
    def dense_bytes(self) -> int:
        """Of all weights, were they dense."""
        return sum(layer.dense_bytes for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Of all weights as they are."""
        return sum(layer.nbytes for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Layers and totals as plain data."""
        return {
            "layers": [asdict(layer) for layer in self.layers],
            "dense_bytes": self.dense_bytes,
            "nbytes": self.nbytes,
        }

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("layer", "pattern", "layout", "shape", "zeros", "dense bytes", "bytes", "ratio")
        ]
        for layer in self.layers:
            rows.append(
                (
                    layer.name or "(model)",
                    layer.pattern,
                    layer.layout,
                    f"{layer.shape[0]}x{layer.shape[1]}",
                    f"{layer.sparsity:.1%}",
                    str(layer.dense_bytes),
                    str(layer.nbytes),
                    f"{layer.nbytes / max(layer.dense_bytes, 1):.3f}",
                )
            )
        total = ("total", "", "", "", "", str(self.dense_bytes), str(self.nbytes))
        rows.append((*total, f"{self.nbytes / max(self.dense_bytes, 1):.3f}"))
        return rows

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
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head, *body = self._rows()

        def line(cells: tuple[str, ...], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        return "<table>" + line(head, "th") + "".join(line(row, "td") for row in body) + "</table>"


def report(model: nn.Module) -> SparsityReport:
    """Pattern, zeros and bytes of every linear layer, packed or dense."""
    layers = []
    for name, module in model.named_modules():
        if isinstance(module, SparseLinear):
            weight = module.weight
            width = 4 if weight.scale is not None else weight.values.element_size()
            layers.append(
                LayerReport(
                    name,
                    str(weight.pattern),
                    weight.layout,
                    weight.shape,
                    weight.sparsity,
                    weight.shape[0] * weight.shape[1] * width,
                    module.nbytes - (0 if module.bias is None else module.bias.nbytes),
                )
            )
        elif isinstance(module, nn.Linear):
            shape = (module.out_features, module.in_features)
            zeros = float((module.weight == 0).sum()) / max(module.weight.numel(), 1)
            layers.append(
                LayerReport(name, "dense", "dense", shape, zeros, module.weight.nbytes, module.weight.nbytes)
            )
    return SparsityReport(tuple(layers))
