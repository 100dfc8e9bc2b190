"""Figures: bytes of layers, the picture of a pattern, quality against latency. Needs the extra ``plot``.

Every function draws into ``ax`` (a new figure by default) and returns it; nothing is shown or saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore.formats.base import PackedWeight
from sparsecore.formats.matrices import to_matrix
from sparsecore.nn._packed import PackedLayer
from sparsecore.report import SparsityReport
from sparsecore.report import report as make_report


def _axes(ax: Any, size: tuple[float, float]) -> Any:
    if ax is not None:
        return ax
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot: needs matplotlib: pip install 'sparsecore[plot]'.") from error
    # Not through pyplot: figures made here belong to the caller alone.
    return Figure(figsize=size, layout="constrained").subplots()


def layers(model_or_report: nn.Module | SparsityReport, ax: Any = None) -> Any:
    """Bytes of every linear layer, dense and as it is.

    Args:
        model_or_report: A model, or what :func:`sparsecore.report` gave.
        ax: Axes to draw into.

    Returns:
        The axes.
    """
    found = model_or_report if isinstance(model_or_report, SparsityReport) else make_report(model_or_report)
    if not found.layers:
        raise ValueError("plot.layers: the model has no linear layer.")
    names = [layer.name or "(model)" for layer in found.layers]
    axes = _axes(ax, (7.0, 1.2 + 0.26 * len(names)))
    axes.barh(names, [layer.dense_bytes / 1e6 for layer in found.layers], color="0.85", label="dense")
    axes.barh(
        names, [layer.nbytes / 1e6 for layer in found.layers], color="tab:blue", height=0.5, label="as it is"
    )
    axes.invert_yaxis()
    axes.set_xlabel("MB")
    axes.set_title(f"{found.nbytes / 1e6:.2f} of {found.dense_bytes / 1e6:.2f} MB")
    axes.tick_params(axis="y", labelsize=7)
    axes.legend(loc="lower right")
    return axes


def pattern(
    weight: Tensor | PackedWeight | PackedLayer | nn.Linear | nn.Conv2d,
    ax: Any = None,
    *,
    max_size: int = 256,
) -> Any:
    """Which weights are kept: dark where they are, shades where several share a pixel.

    Args:
        weight: ``(out, in)``, packed or dense; or a layer, linear or convolution, packed or dense.
        ax: Axes to draw into.
        max_size: Most pixels of a side; larger weights are averaged.

    Returns:
        The axes.
    """
    if isinstance(weight, nn.Module):
        weight = to_matrix(weight.weight) if isinstance(weight, nn.Conv2d) else weight.weight
    mask = weight.mask() if isinstance(weight, PackedWeight) else weight.detach() != 0
    if mask.dim() != 2 or max_size < 1:
        raise ValueError(f"plot.pattern: needs a matrix and max_size >= 1, got shape {tuple(mask.shape)}.")
    image = mask.float()
    steps = [max(1, -(-size // max_size)) for size in mask.shape]
    if max(steps) > 1:
        pool = nn.functional.avg_pool2d
        image = pool(image[None, None], tuple(steps), ceil_mode=True, count_include_pad=False)[0, 0]
    axes = _axes(ax, (5.0, 5.0))
    axes.imshow(image.numpy(), cmap="Greys", vmin=0.0, vmax=1.0, interpolation="nearest", aspect="auto")
    axes.set_xlabel("inputs" if steps[1] == 1 else f"inputs, {steps[1]} a pixel")
    axes.set_ylabel("outputs" if steps[0] == 1 else f"outputs, {steps[0]} a pixel")
    kept = float(mask.float().mean()) if mask.numel() else 0.0
    axes.set_title(f"{mask.shape[0]} x {mask.shape[1]}, {1 - kept:.1%} zeros")
    return axes


def trade_off(
    points: Mapping[str, tuple[float, float]],
    ax: Any = None,
    *,
    engines: Mapping[str, float] | None = None,
    quality: str = "quality",
) -> Any:
    """Quality against latency; dense engines are lines, since their quality is that of the model.

    Args:
        points: ``(milliseconds, quality)`` by name.
        ax: Axes to draw into.
        engines: Milliseconds by name of dense engines.
        quality: What the vertical axis shows.

    Returns:
        The axes.
    """
    if not points:
        raise ValueError("plot.trade_off: there is no point.")
    axes = _axes(ax, (7.0, 4.5))
    for name, milliseconds in (engines or {}).items():
        axes.axvline(milliseconds, color="0.7", linewidth=0.8, linestyle="--")
        top = (milliseconds, 0.02)
        axes.annotate(name, top, xycoords=("data", "axes fraction"), rotation=90, fontsize=7, color="0.4")
    for name, (milliseconds, value) in points.items():
        axes.plot([milliseconds], [value], "o", color="tab:blue")
        axes.annotate(name, (milliseconds, value), xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("milliseconds, less is better")
    axes.set_ylabel(quality)
    axes.margins(x=0.15, y=0.12)
    return axes


def curve(advice: Any, ax: Any = None, *, points: int = 12) -> Any:
    """Cost against time of the best assignments of an :class:`~sparsecore.Advice`.

    Args:
        advice: From :func:`sparsecore.advise`.
        ax: Axes to draw into.
        points: Of the curve.

    Returns:
        The axes.
    """
    found = torch.tensor(advice.curve(points), dtype=torch.float64)
    axes = _axes(ax, (6.0, 4.0))
    axes.plot((found[:, 0] * 1e3).numpy(), found[:, 1].numpy(), "o-", color="tab:blue", markersize=3)
    axes.axvline(advice.dense_seconds * 1e3, color="0.7", linestyle="--", linewidth=0.8)
    axes.set_xlabel("milliseconds (dashed: dense)")
    axes.set_ylabel("mean estimated cost of a layer")
    return axes
