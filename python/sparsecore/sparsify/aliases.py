"""The life cycle of ``torch.ao.pruning`` and torchao's pruners, over our recipes.

``prepare`` puts masks under the weights, ``step`` chooses them, training goes on in between, ``squash_mask`` bakes them
in, ``convert`` packs the layers for the sparse kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from sparsecore.convert import sparsify_
from sparsecore.patterns import NM, Group, Pattern, Unstructured, fixed_sparsity
from sparsecore.patterns import pattern as parse_pattern
from sparsecore.sparsify.allocation import Uniform
from sparsecore.sparsify.budget import choose_masks
from sparsecore.sparsify.gradients import MaskedWeight
from sparsecore.sparsify.kinds import stored_pattern
from sparsecore.sparsify.recipe import Recipe
from sparsecore.sparsify.scores import Magnitude, Statistics, Wanda
from sparsecore.sparsify.targets import find_targets


class StepSparsifier:
    """``prepare -> step -> squash_mask -> convert`` for a recipe.

    Args:
        recipe: Pattern, score and allocation are used; the caller is the schedule.
    """

    def __init__(self, recipe: Recipe) -> None:
        missing = recipe.score.requires - {"norm", "key"}
        if missing or recipe.trains:
            raise ValueError(
                f"{type(self).__name__}: needs a one-shot recipe with Magnitude, Wanda or Random as its score, "
                f"got {recipe.score} with {recipe.schedule}. Sparsifier follows an optimizer."
            )
        self.recipe = recipe
        self.model: nn.Module | None = None
        self._layers: dict[str, nn.Linear] = {}
        self._squares: dict[str, Tensor] = {}
        self._tokens: dict[str, int] = {}
        self._handles: list[RemovableHandle] = []
        self._squashed: dict[str, Tensor] = {}

    def prepare(self, model: nn.Module, config: Sequence[dict[str, str]] | None = None) -> nn.Module:
        """Puts a mask, all True, under the weight of each chosen layer.

        Args:
            model: Changed in place.
            config: ``[{"tensor_fqn": "0.weight"}, ...]``; None: every ``nn.Linear``.
        """
        if self.model is not None:
            raise ValueError(f"{type(self).__name__}.prepare: already prepared. Call squash_mask() first.")
        targets: list[str] = ["Linear"]
        if config is not None:
            names = [entry.get("tensor_fqn", "") for entry in config]
            odd = [name for name in names if not name.endswith("weight")]
            if odd:
                raise ValueError(
                    f'{type(self).__name__}.prepare: config needs {{"tensor_fqn": "layer.weight"}}, got {odd[0]!r}.'
                )
            targets = [name.removesuffix("weight").rstrip(".") for name in names]
        self._layers = find_targets(model, targets)
        missing = [] if config is None else sorted(set(targets) - set(self._layers))
        if missing:
            raise ValueError(f"{type(self).__name__}.prepare: the model has no layer {missing[0]!r}.")
        self.model = model
        for name, layer in self._layers.items():
            if "norm" in self.recipe.score.requires:
                self._handles.append(layer.register_forward_pre_hook(self._observer(name)))
            mask = torch.ones_like(layer.weight, dtype=torch.bool)
            parametrize.register_parametrization(layer, "weight", MaskedWeight(mask, None))
        return model

    def _observer(self, name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = args[0].detach().reshape(-1, args[0].shape[-1]).double()
            self._squares[name] = self._squares.get(name, torch.zeros_like(x[:0].sum(0))) + x.square().sum(0)
            self._tokens[name] = self._tokens.get(name, 0) + x.shape[0]

        return hook

    def _rule(self, name: str) -> tuple[Tensor, MaskedWeight]:
        listed: Any = self._layers[name].parametrizations
        return listed.weight.original, listed.weight[0]

    @property
    def masks(self) -> dict[str, Tensor]:
        """By layer name, True where kept."""
        return {name: self._rule(name)[1].mask for name in self._layers}

    @torch.no_grad()
    def step(self, sparsity: float | None = None) -> None:
        """Chooses the masks anew from the weights as they are.

        Args:
            sparsity: Fraction of zeros from now on, for patterns that leave it open.
        """
        if self.model is None:
            raise ValueError(f"{type(self).__name__}.step: nothing is prepared. Call prepare(model) first.")
        if sparsity is not None:
            self.recipe = replace(self.recipe, allocation=replace(self.recipe.allocation, sparsity=sparsity))
        scores: dict[str, Tensor] = {}
        for name in self._layers:
            norm = None
            if "norm" in self.recipe.score.requires:
                if not self._tokens.get(name):
                    raise ValueError(
                        f"{type(self).__name__}.step: {name!r} has seen no data. Run the model on calibration data "
                        f"between prepare and step."
                    )
                norm = (self._squares[name] / self._tokens[name]).sqrt().float()
            weight = self._rule(name)[0].detach().float()
            scores[name] = self.recipe.score(weight, Statistics(norm, key=name))
        for name, mask in choose_masks(self.recipe.pattern, self.recipe.allocation, scores).items():
            self._rule(name)[1].mask.copy_(mask)

    def squash_mask(self) -> nn.Module:
        """Bakes the zeros into plain weights and removes every trace of the masks.

        Returns:
            The model.
        """
        if self.model is None:
            raise ValueError(f"{type(self).__name__}.squash_mask: nothing is prepared.")
        self._squashed = {name: mask.clone() for name, mask in self.masks.items()}
        for handle in self._handles:
            handle.remove()
        self._handles = []
        for layer in self._layers.values():
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        model, self.model, self._layers = self.model, None, {}
        return model

    def convert(self, model: nn.Module, **options: Any) -> nn.Module:
        """Packs the pruned layers of ``model``, in place; squashes first where that was not done.

        Args:
            model: What :meth:`prepare` got.
            options: Of :func:`sparsecore.sparsify_`.
        """
        if self.model is not None:
            self.squash_mask()
        masks = self._squashed
        stored = stored_pattern(self.recipe.pattern, (1, 1))
        return sparsify_(model, stored, lambda _, name: name in masks, masks=masks, **options)


class WeightNormSparsifier(StepSparsifier):
    """Magnitude pruning with torch.ao's arguments.

    Args:
        sparsity_level: Fraction of blocks in which zeros are made.
        sparse_block_shape: ``(1, m)`` with ``zeros_per_block < m`` is N:M; ``(r, 1)`` are groups; ``(1, 1)`` single
            weights.
        zeros_per_block: Zeros in each block; None: all of it.
    """

    def __init__(
        self,
        sparsity_level: float = 1.0,
        sparse_block_shape: tuple[int, int] = (1, 4),
        zeros_per_block: int | None = 2,
    ) -> None:
        rows, columns = sparse_block_shape
        zeros = rows * columns if zeros_per_block is None else zeros_per_block
        pattern: Pattern
        sparsity: float | None = sparsity_level
        if rows == 1 and 0 < zeros < columns:
            if sparsity_level != 1.0:
                raise ValueError(
                    f"WeightNormSparsifier: {columns - zeros}:{columns} makes zeros in every block, which torch.ao "
                    f"calls sparsity_level=1.0; got {sparsity_level}."
                )
            pattern, sparsity = NM(columns - zeros, columns), None
        elif zeros == rows * columns:
            pattern = Unstructured() if zeros == 1 else Group(rows, columns)
        else:
            raise ValueError(
                f"WeightNormSparsifier: no kernel for blocks of {rows} x {columns} with {zeros} zeros. Use (1, m) "
                f"with zeros_per_block < m, or blocks whose weights go together."
            )
        super().__init__(Recipe(pattern, Magnitude(), Uniform(sparsity, "layer" if sparsity else "row")))


class WandaSparsifier(StepSparsifier):
    """Wanda with torchao's arguments: run calibration data through the model between ``prepare`` and ``step``.

    Args:
        sparsity_level: Fraction of zeros of each row.
        semi_structured_block_size: 4 makes 2:4, m makes m/2:m; None: any weight of a row.
        pattern: Instead of the two, any pattern.
    """

    def __init__(
        self,
        sparsity_level: float = 0.5,
        semi_structured_block_size: int | None = None,
        *,
        pattern: Pattern | str | None = None,
    ) -> None:
        sparsity: float | None = sparsity_level
        if pattern is not None:
            chosen = parse_pattern(pattern)
            sparsity = sparsity_level if fixed_sparsity(chosen) is None else None
        elif semi_structured_block_size is None:
            chosen = Unstructured()
        else:
            chosen = NM(semi_structured_block_size // 2, semi_structured_block_size)
            sparsity = None
        super().__init__(Recipe(chosen, Wanda(), Uniform(sparsity)))
