"""ASP: 2:4 by magnitude after a channel permutation (Mishra et al. 2021, Pool and Yu 2021)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sparsecore.patterns import NM
from sparsecore.sparsify.hidden import find_pairs
from sparsecore.sparsify.permute import Pairs, order_hidden_
from sparsecore.sparsify.presets import magnitude


def asp(
    model: nn.Module,
    *,
    pairs: Pairs | None = (),
    seconds: float = 10.0,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Tensor]:
    """2:4 by magnitude, after a channel permutation where the model allows one.

    Args:
        model: Pruned in place.
        pairs: Layers whose hidden units may be reordered, as for :func:`order_hidden_`; None: those that
            :func:`find_pairs` finds; empty: none.
        seconds: For each pair.
        targets: As for :func:`~sparsecore.sparsify.prune_once`.
        ignore: The same.
        progress: Show progress bars.

    Returns:
        Masks by layer name.
    """
    chosen = find_pairs(model) if pairs is None else pairs
    if chosen:
        order_hidden_(model, chosen, NM(2, 4), score="absolute", seconds=seconds, progress=progress)
    return magnitude(model, NM(2, 4), targets=targets, ignore=ignore, progress=progress)
