"""What a pattern costs: how far the model's output moves where there is data to see it, else the weight; estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from sparsecore.formats.quantize import quantize_rows
from sparsecore.patterns import Pattern, pattern_name
from sparsecore.sparsify._progress import bar
from sparsecore.sparsify.calibration import Batch, Calibration, flat_tokens, run_model
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
    """Costs of every candidate by layer.

    Without data a cost is the relative squared error of the weight. With data it is what the model's output changes
    by, relative to its variance: each layer is pruned once, alone, with its candidate of the middle error, and the
    model runs over the largest batch; the other candidates follow in proportion to their errors at the layer's own
    output.
    """
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
            batch = max(data, key=_elements)
            with torch.no_grad():
                reference = _outputs(run_model(model, batch), batch)
            calibration = Calibration(model, dict(layers), data, follow_dense=False)
            for stage in calibration.stages:
                second = calibration.collect(stage).second.float()
                for name in stage.names:
                    weight = layers[name].weight.detach()
                    errors = layer_costs(weight.float(), second, candidates)
                    found[name] = errors
                    # A weight may have a candidate's zeros already: nothing would change.
                    judged = sorted(
                        (i for i, error in enumerate(errors) if error > 0), key=errors.__getitem__
                    )
                    if judged:
                        probed = judged[len(judged) // 2]
                        score = _score(weight.float(), second)
                        pruned = _pruned(weight.float(), score, candidates[probed]).to(weight.dtype)
                        change = _change(model, {f"{name}.weight".lstrip("."): pruned}, batch, reference)
                        found[name] = [error * (change / errors[probed]) for error in errors]
                    advance()
        finally:
            model.train(training)
    return found


def _change(
    model: nn.Module, weights: Mapping[str, Tensor], batch: Batch, reference: Sequence[Tensor]
) -> float:
    """Squared change of the output when ``weights`` replace the model's, relative to its variance; mean of outputs."""

    def replaced(*args: Any, **kwargs: Any) -> Any:
        return functional_call(model, dict(weights), args, kwargs)

    with torch.no_grad():
        outputs = _outputs(run_model(replaced, batch), batch)
    shares = [
        float((now - before).square().sum() / _spread(before).square().sum().clamp_min(1e-30))
        for now, before in zip(outputs, reference, strict=True)
    ]
    return sum(shares) / len(shares)


def _outputs(output: Any, batch: Batch) -> list[Tensor]:
    """The floating tensors of an output as ``(tokens, features)``."""
    found = [
        flat_tokens(leaf if leaf.dim() > 1 else leaf.reshape(-1, 1), batch).float()
        for leaf in tree_leaves(output)
        if isinstance(leaf, Tensor) and leaf.is_floating_point()
    ]
    if not found:
        raise ValueError(
            f"advise: judging layers needs a model that returns floating tensors, got {type(output).__name__}. "
            "Leave data out to judge by weights."
        )
    return found


def _spread(output: Tensor) -> Tensor:
    """What differs between tokens; all of it where there is one token, or no difference."""
    centred = output - output.mean(0)
    return centred if centred.any() else output


def _elements(batch: Batch) -> int:
    return sum(leaf.numel() for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))


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
    score = _score(weight, second)
    whole = _energy(weight, second).clamp_min(1e-30)
    return [
        max(float(_energy(weight - _pruned(weight, score, one), second) / whole), 0.0) for one in candidates
    ]


def _score(weight: Tensor, second: Tensor | None) -> Tensor:
    if second is None:
        return Magnitude()(weight, Statistics())
    return Wanda()(weight, Statistics(second.diagonal().clamp_min(0.0).sqrt()))


def _energy(weight: Tensor, second: Tensor | None) -> Tensor:
    return (weight if second is None else weight @ second).mul(weight).sum()


def _pruned(weight: Tensor, score: Tensor, candidate: Candidate) -> Tensor:
    selector = Selector(candidate.pattern, check(candidate.pattern, candidate.sparsity), "row")
    left = weight.masked_fill(~selector.mask(score), 0.0)
    if candidate.storage == "int8":
        values, scale = quantize_rows(left)
        left = values.float() * scale.unsqueeze(1)
    return left
