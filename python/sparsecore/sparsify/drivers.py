"""Loops around training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore.patterns import Pattern, Unstructured
from sparsecore.sparsify.allocation import Allocation, Global, Uniform
from sparsecore.sparsify.budget import choose_masks
from sparsecore.sparsify.recipe import Recipe
from sparsecore.sparsify.schedules import OneShot
from sparsecore.sparsify.scores import Magnitude, Statistics
from sparsecore.sparsify.sparsifier import Sparsifier

Train = Callable[[nn.Module, Sparsifier, int], Any]


def imp(
    model: nn.Module,
    train: Train,
    sparsity: float,
    *,
    rounds: int = 5,
    rewind: int | None = 0,
    pattern: Pattern | None = None,
    allocation: Callable[[float], Allocation] | None = None,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Iterative magnitude pruning: train, prune a share of what is left, rewind, again (the lottery ticket).

    Training happens ``rounds + 1`` times: once dense, then with every mask. After round r the fraction
    ``1 - (1 - sparsity) ** (r / rounds)`` is zero.

    Args:
        model: Changed in place; ends trained, with exact zeros.
        train: ``train(model, sparsifier, round)`` trains once. It makes its optimizer, calls
            ``sparsifier.attach(optimizer)`` and runs its loop.
        sparsity: Final fraction of zeros.
        rounds: Of pruning.
        rewind: The step to whose weights survivors return before each round: 0 is initialisation, None keeps the
            trained weights (fine-tuning).
        pattern: What is kept together; ``Unstructured()`` by default.
        allocation: Makes the split over layers from a sparsity; global magnitude by default.
        targets: As for :class:`Sparsifier`.
        ignore: The same.

    Returns:
        The last masks.

    Raises:
        ValueError: A training round ended before the step to rewind to, or used no attached optimizer.
    """
    if not 0.0 < sparsity < 1.0 or rounds < 1 or (rewind is not None and rewind < 0):
        raise ValueError(
            f"imp: needs 0 < sparsity < 1, rounds >= 1 and rewind >= 0 or None, got {sparsity}, {rounds}, {rewind}."
        )
    chosen = Unstructured() if pattern is None else pattern
    split = Global if allocation is None else allocation
    anchor = copy.deepcopy(model.state_dict()) if rewind == 0 else None
    masks: dict[str, Tensor] | None = None
    for turn in range(rounds + 1):
        share = 1.0 - (1.0 - sparsity) ** (turn / rounds)
        recipe = Recipe(chosen, Magnitude(), Uniform(share, "layer"), OneShot())
        sparsifier = Sparsifier(model, recipe, targets=targets, ignore=ignore, masks=masks)
        if turn == 0 and rewind:
            sparsifier.remember_at = rewind
        train(model, sparsifier, turn)
        if turn == 0 and rewind:
            anchor = sparsifier.remembered
            if anchor is None:
                raise ValueError(
                    f"imp: round 0 took {sparsifier.step} optimizer steps, so there is no step {rewind} to rewind to."
                )
        if sparsifier.step == 0:
            raise ValueError(
                "imp: train made no step with an attached optimizer. Call sparsifier.attach(optimizer)."
            )
        sparsifier.squash()
        if turn == rounds:
            return {name: mask.clone() for name, mask in sparsifier.masks.items()}
        share = 1.0 - (1.0 - sparsity) ** ((turn + 1) / rounds)
        scores = {
            name: Magnitude()(model.get_submodule(name).weight.detach().float(), Statistics())  # type: ignore[operator]
            for name in sparsifier.masks
        }
        masks = choose_masks(chosen, split(share), scores, sparsifier.masks)
        if anchor is not None:
            model.load_state_dict(anchor)
        with torch.no_grad():
            for name, mask in masks.items():
                model.get_submodule(name).weight.mul_(mask)  # type: ignore[operator]
    raise AssertionError
