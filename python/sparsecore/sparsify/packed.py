"""Dynamic sparse training of layers that are packed already: nothing dense outlives an update.

A packed layer trains on its kept weights alone: forward, input gradient and weight gradient run
on the sparse kernels, and optimizer state exists for kept weights only. What a fixed mask lacks is the exchange of weak
connections for new ones. Here it is done layer by layer, with one layer's weight dense for a moment.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsecore.formats.base import PackedWeight
from sparsecore.formats.pack import pack
from sparsecore.formats.select import mask_units, score_units, spread_units
from sparsecore.nn._packed import PackedLayer
from sparsecore.patterns import NM
from sparsecore.sparsify.exchange import exchange_units
from sparsecore.sparsify.scores import Magnitude, Score, SignedMagnitude, Statistics, uniform

_LAYOUTS = (
    "row_lists",
    "shared_lists",
    "group_lists",
    "semi_structured",
    "bitmap_decode",
    "block_sparse",
    "vnm",
)
_SCORES: dict[str, Score] = {"magnitude": Magnitude(), "signed": SignedMagnitude()}


@torch.no_grad()
def exchange_(
    model: nn.Module,
    optimizer: Optimizer | None,
    fraction: float,
    *,
    step: int = 0,
    seed: int = 0,
    score: str = "signed",
    init: float = 0.0,
) -> int:
    """Drops the weakest kept weights of every packed layer and grows as many random ones (SET), in place.

    Each layer keeps its count and its pattern. Under V:N:M half of the exchange may be of whole columns that a run has
    picked, for which it picks others, and rows grow among what their run picks. New weights start at ``init`` times
    standard normal numbers, with fresh optimizer state; survivors keep theirs.

    Args:
        model: Its packed layers of every pattern that trains are changed, convolutions too; other layers stay.
        optimizer: That trains them, or None.
        fraction: Share of the kept weights to exchange, in ``[0, 1]``.
        step: Training step: another draw for each.
        seed: Of the draws.
        score: ``"signed"`` (SET: nearest to zero of either sign) or ``"magnitude"``.
        init: Standard deviation of new weights.

    Returns:
        Weights exchanged.

    Raises:
        ValueError: No packed layer to train, one of a two-way pattern, or an argument outside its range.
    """
    if not 0.0 <= fraction <= 1.0 or not init >= 0.0 or score not in _SCORES:
        raise ValueError(
            f"exchange_: needs fraction in [0, 1], init >= 0 and score of {sorted(_SCORES)}, got {fraction}, {init}, "
            f"{score!r}."
        )
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, PackedLayer)]
    layers = [(name, layer) for name, layer in layers if isinstance(layer.weight_values, nn.Parameter)]
    layers = [(name, layer) for name, layer in layers if layer.layout in _LAYOUTS]
    for name, layer in layers:
        if isinstance(layer.pattern, NM) and layer.pattern.two_way:
            raise ValueError(
                f"exchange_: {name!r} keeps {layer.pattern}, where a free place of a row is rarely free in its column, "
                "so that single weights cannot change places. Train it under a Sparsifier with this pattern and pack "
                "it afterwards, or pack it as NM(2, 4)."
            )
    if not layers:
        raise ValueError(
            "exchange_: the model has no trainable SparseLinear or SparseConv2d of a layout that can change. Call "
            "sparsify_ first."
        )
    return sum(
        _exchange_layer(name, layer, optimizer, fraction, step, seed, _SCORES[score], init)
        for name, layer in layers
    )


def _exchange_layer(
    name: str,
    layer: PackedLayer,
    optimizer: Optimizer | None,
    fraction: float,
    step: int,
    seed: int,
    score: Score,
    init: float,
) -> int:
    old = layer.weight
    dense, mask = old.to_dense(), old.mask()
    active = mask_units(mask, old.pattern)
    worth = score_units(score(dense.float(), Statistics()), old.pattern)
    growth = score_units(uniform(dense, seed, f"grow {name}", step), old.pattern)
    count = int(fraction * int(active.sum()))
    units = exchange_units(old.pattern, "layer", active, worth, growth, count)
    new = spread_units(units, old.pattern, old.shape)
    grown = new & ~mask
    if init:
        generator = torch.Generator().manual_seed(seed + 1_000_003 * step)
        fresh = init * torch.randn(int(grown.sum()), generator=generator)
        dense[grown] = fresh.to(dense)
    packed = pack(dense, old.pattern, new, layout=old.layout)
    for state, key in _states(layer, optimizer):
        state[key] = _moved(old, state[key], new, packed)
    layer.replace_weight(packed)
    return int(grown.sum())


def _states(layer: PackedLayer, optimizer: Optimizer | None) -> Iterator[tuple[dict[str, Tensor], str]]:
    """Where the optimizer keeps something for each kept weight."""
    if optimizer is None:
        return
    state = optimizer.state.get(layer.weight_values, {})
    for key, value in state.items():
        if isinstance(value, Tensor) and value.shape == layer.weight_values.shape:
            yield state, key


def _moved(old: PackedWeight, state: Tensor, mask: Tensor, packed: PackedWeight) -> Tensor:
    """What stood at old places at the new ones; zero where nothing stood."""
    dense = old.with_values(state).to_dense() * old.mask()
    found = pack(dense, old.pattern, mask, layout=old.layout).values
    assert found.shape == packed.values.shape
    return found
