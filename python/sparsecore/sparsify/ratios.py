"""Layer-wise ratios on their own: taken from a score and kept without its mask, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore.sparsify.allocation import Allocation, Global, Layer, PerLayer, Scope
from sparsecore.sparsify.calibration import run_model
from sparsecore.sparsify.scores import Magnitude, Statistics
from sparsecore.sparsify.targets import find_trainable


def from_scores(scores: Mapping[str, Tensor], sparsity: float, within: Scope = "layer") -> PerLayer:
    """The ratios one threshold over all layers leads to, as an allocation: the mask itself is forgotten.

    Random masks with the ratios of SNIP or GraSP train about as well as theirs (Frankle et al. 2021, Liu et al. 2022).

    Args:
        scores: By layer name, higher is better; negative ones count as they are.
        sparsity: Fraction of zeros over all layers.
        within: What competes inside a layer later.

    Returns:
        Plain numbers, so that a recipe with them can be saved.

    Raises:
        ValueError: No scores, scores that are not finite, or so few units that a layer keeps none.
    """
    if not scores or not all(torch.isfinite(score).all() for score in scores.values()):
        raise ValueError("from_scores: needs a finite score for every weight of at least one layer.")
    layers = {name: Layer(tuple(score.shape), score.numel()) for name, score in scores.items()}
    kept = Global(sparsity).kept(layers, scores)
    empty = [name for name, count in kept.items() if not count]
    if empty:
        raise ValueError(f"from_scores: {empty[0]!r} keeps nothing at a sparsity of {sparsity}. Lower it.")
    return PerLayer({name: 1.0 - kept[name] / layer.units for name, layer in layers.items()}, within=within)


@dataclass(frozen=True)
class LayerCost:
    """What a layer keeps.

    Attributes:
        name: Dotted name.
        parameters: Weights of the dense layer.
        kept: Weights that stay.
        positions: Products with the weight per call: tokens, or places of a convolution times its batch.
    """

    name: str
    parameters: int
    kept: int
    positions: int

    @property
    def density(self) -> float:
        """Fraction of weights that stay."""
        return self.kept / max(self.parameters, 1)

    @property
    def flops(self) -> int:
        """Multiplications and additions with the weights that stay."""
        return 2 * self.kept * self.positions

    @property
    def dense_flops(self) -> int:
        """The same for the dense layer."""
        return 2 * self.parameters * self.positions


@dataclass(frozen=True)
class AllocationReport:
    """Parameters and operations an allocation leaves; ``print`` it for a table."""

    layers: tuple[LayerCost, ...]

    @property
    def density(self) -> float:
        """Fraction of all weights that stay."""
        return sum(layer.kept for layer in self.layers) / max(
            sum(layer.parameters for layer in self.layers), 1
        )

    @property
    def flops_share(self) -> float:
        """Operations that stay, as a fraction of the dense layers'."""
        dense = sum(layer.dense_flops for layer in self.layers)
        return sum(layer.flops for layer in self.layers) / max(dense, 1)

    def __str__(self) -> str:
        width = max(5, *(len(layer.name) for layer in self.layers))
        lines = [f"{'layer':{width}}  {'weights':>11}  {'kept':>11}  density  {'flops':>14}"]
        lines += [
            f"{layer.name:{width}}  {layer.parameters:11,}  {layer.kept:11,}  {layer.density:7.2%}  {layer.flops:14,}"
            for layer in self.layers
        ]
        lines.append(f"{self.density:.2%} of the weights, {self.flops_share:.2%} of the operations")
        return "\n".join(lines)


def allocation_report(
    model: nn.Module,
    allocation: Allocation,
    inputs: Any = None,
    *,
    scores: Mapping[str, Tensor] | None = None,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
) -> AllocationReport:
    """What an allocation would leave of each layer, without pruning anything.

    Args:
        model: Any module.
        allocation: How zeros are split; units are single weights.
        inputs: One batch, to count operations by; without it every layer counts as called with one token.
        scores: By layer name, for allocations that compare layers by them; magnitudes by default.
        targets: Layers, as for :class:`~sparsecore.sparsify.Sparsifier`; name ``"Conv2d"`` for convolutions.
        ignore: The same, to leave out.

    Raises:
        ValueError: ``OWL`` without scores, convolutions without inputs, or a layer the inputs never reach.
    """
    chosen = find_trainable(model, targets, ignore)
    weights: dict[str, Tensor] = {name: layer.weight.detach() for name, layer in chosen.items()}  # type: ignore[operator]
    if allocation.requires and scores is None:
        if "norm" in allocation.requires:
            raise ValueError(
                f"allocation_report: {type(allocation).__name__} compares activations. Pass scores=, w^2 E[x^2]."
            )
        scores = {name: Magnitude()(weight.float(), Statistics()) for name, weight in weights.items()}
    if inputs is None and any(weight.dim() > 2 for weight in weights.values()):
        raise ValueError(
            "allocation_report: operations of a convolution depend on its input. Pass inputs=, a batch."
        )
    layers = {name: Layer(tuple(weight.shape), weight.numel()) for name, weight in weights.items()}
    kept = allocation.kept(layers, scores)
    positions = dict.fromkeys(chosen, 1) if inputs is None else _positions(model, chosen, inputs)
    return AllocationReport(
        tuple(LayerCost(name, layer.units, kept[name], positions[name]) for name, layer in layers.items())
    )


def _positions(model: nn.Module, layers: Mapping[str, nn.Module], inputs: Any) -> dict[str, int]:
    found = dict.fromkeys(layers, 0)

    def hook_for(name: str, outputs: int) -> Any:
        def hook(_: nn.Module, __: Any, result: Tensor) -> None:
            found[name] += result.numel() // outputs

        return hook

    handles = [
        layer.register_forward_hook(hook_for(name, layer.weight.shape[0]))  # type: ignore[index,arg-type]
        for name, layer in layers.items()
    ]
    training = {name: module.training for name, module in model.named_modules()}
    model.eval()
    try:
        with torch.no_grad():
            run_model(model, inputs)
    finally:
        for handle in handles:
            handle.remove()
        for name, module in model.named_modules():
            module.training = training[name]
    missed = [name for name, count in found.items() if not count]
    if missed:
        raise ValueError(f"allocation_report: the inputs never reach {missed[0]!r}. Add it to ignore.")
    return found
