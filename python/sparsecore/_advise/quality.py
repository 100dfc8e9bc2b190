"""What a pattern costs a layer: the relative squared error of its output, estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsecore.formats.quantize import quantize_rows
from sparsecore.patterns import Pattern, pattern_name
from sparsecore.sparsify._progress import bar
from sparsecore.sparsify.calibration import Batch, Calibration
from sparsecore.sparsify.scores import Magnitude, Statistics, Wanda
from sparsecore.sparsify.selection import Selector, check


@dataclass(frozen=True)
class Candidate:
    """A pattern with its budget and how its values are stored.

    Attributes:
        pattern: What is kept together.
        sparsity: Fraction of zeros, where the pattern leaves it open.
        storage: ``"int8"``, or None for the dtype that is measured.
    """

    pattern: Pattern
    sparsity: float | None = None
    storage: str | None = None

    @property
    def name(self) -> str:
        """Short name of the pattern."""
        return pattern_name(self.pattern)


def model_costs(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    candidates: Sequence[Candidate],
    data: Sequence[Batch] | None,
    progress: bool,
) -> dict[str, list[float]]:
    """Costs of every candidate by layer: of the output over calibration tokens, or of the weight without data."""
    found: dict[str, list[float]] = {}
    with bar(len(layers), "judging layers", progress) as advance:
        if data is None:
            for name, layer in layers.items():
                found[name] = layer_costs(layer.weight.detach().float(), None, candidates)
                advance()
            return found
        training = model.training
        model.eval()
        try:
            calibration = Calibration(model, dict(layers), data, follow_dense=False)
            for stage in calibration.stages:
                second = calibration.collect(stage).second.float()
                for name in stage.names:
                    found[name] = layer_costs(layers[name].weight.detach().float(), second, candidates)
                    advance()
        finally:
            model.train(training)
    return found


def random_costs(shape: tuple[int, int], candidates: Sequence[Candidate]) -> list[float]:
    """Costs of a matrix of normal random numbers: what orders patterns where no weights are at hand."""
    rows, columns = min(shape[0], 256), min(shape[1], 1024)
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))
    return layer_costs(weight, None, candidates)


def layer_costs(weight: Tensor, second: Tensor | None, candidates: Sequence[Candidate]) -> list[float]:
    """``tr(D H D^T) / tr(W H W^T)`` of each candidate.

    ``D`` is the difference of ``W`` and what is left of it, ``H`` the second moment of the inputs (None: the unit
    matrix).

    Args:
        weight: ``(out, in)``, float32.
        second: ``(in, in)``, float32.
        candidates: To judge.

    Returns:
        A cost for each, 0 where nothing changes.
    """
    if second is None:
        score, whole = Magnitude()(weight, Statistics()), weight.square().sum()
    else:
        score = Wanda()(weight, Statistics(second.diagonal().clamp_min(0.0).sqrt()))
        whole = ((weight @ second) * weight).sum()
    found = []
    for candidate in candidates:
        selector = Selector(candidate.pattern, check(candidate.pattern, candidate.sparsity), "row")
        left = weight.masked_fill(~selector.mask(score), 0.0)
        if candidate.storage == "int8":
            values, scale = quantize_rows(left)
            left = values.float() * scale.unsqueeze(1)
        lost = weight - left
        error = lost.square().sum() if second is None else ((lost @ second) * lost).sum()
        found.append(max(float(error / whole.clamp_min(1e-30)), 0.0))
    return found
