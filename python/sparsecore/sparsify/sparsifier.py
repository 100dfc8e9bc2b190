"""``Sparsifier``: keeps a model sparse, or makes it so, while anybody's loop trains it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sparsecore.convert import can_pack, sparsify_
from sparsecore.formats.matrices import from_matrix, to_matrix
from sparsecore.formats.select import mask_units, score_units, spread_units
from sparsecore.patterns import NM, Pattern
from sparsecore.sparsify import distributed
from sparsecore.sparsify.budget import choose_masks
from sparsecore.sparsify.exchange import exchange_units
from sparsecore.sparsify.gradients import MaskedWeight
from sparsecore.sparsify.grow import Candidates
from sparsecore.sparsify.kinds import as_matrix, as_weight, stored_pattern
from sparsecore.sparsify.recipe import Recipe
from sparsecore.sparsify.scores import Score, Statistics
from sparsecore.sparsify.sparse_products import follows, multiply_densely_, multiply_sparsely_
from sparsecore.sparsify.targets import find_trainable

STATE_VERSION = 1


class Sparsifier:
    """Masks of a model's layers, and when and how they change.

    ```python
    sparsifier = Sparsifier(model, rigl(0.9, steps=len(loader)))
    sparsifier.attach(optimizer)
    for x, y in loader:                      # the loop is as it was
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()                     # the mask changes in here
    sparsifier.finalize()                    # the layers now run on the sparse kernels
    ```

    With the gradient rule ``Hard`` the model itself stays as it is: its weights hold exact zeros after every step,
    and so does what the optimizer remembers of them. The other gradient rules keep dense weights beneath the mask, as
    a parametrization of each layer; the masks are then part of the model's ``state_dict`` too. On CUDA their linear
    layers of ``NM(2, 4)`` multiply on sparse tensor cores, in bfloat16, float16 or under autocast; those of
    ``NM(2, 4, two_way=True)`` do so in the backward pass too.

    Where ``torch.distributed`` runs, scores are averaged over the processes before anything is chosen, so that all
    have the same masks.

    Args:
        model: Any module, changed in place. Wrap it (``DistributedDataParallel``, ``torch.compile``) afterwards.
        recipe: See :class:`~sparsecore.sparsify.Recipe`.
        targets: Class names, dotted names, or ``"re:"`` with a regular expression for the whole dotted name.
            Linear layers and convolutions can be pruned.
        ignore: The same, for layers to leave alone.
        masks: First masks by layer name, in the shape of the weights, True where kept; others are chosen by the
            recipe.

    Attributes:
        masks: By layer name, in the shape of the weights, True where kept.
        step: Optimizer steps so far.
        remember_at: Set it to a step to have the model's state after that many steps in ``remembered``.

    Raises:
        ValueError: Nothing to prune, a mask that does not fit, or a recipe that cannot start here.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        *,
        targets: Sequence[str] = ("Linear",),
        ignore: Sequence[str] = (),
        masks: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.step = 0
        self.remember_at: int | None = None
        self.remembered: dict[str, Any] | None = None
        self._layers = find_trainable(model, targets, ignore)
        self._parameters: dict[str, nn.Parameter] = {}
        for name, layer in self._layers.items():
            if parametrize.is_parametrized(layer, "weight"):
                raise ValueError(
                    f"Sparsifier: the weight of {name!r} is parametrized already. Finalize the other sparsifier, "
                    f"or torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')."
                )
            self._parameters[name] = layer.weight  # type: ignore[assignment]
        self._optimizer: Optimizer | None = None
        self._handles: list[RemovableHandle] = []
        self._stashed: list[tuple[nn.Parameter, Tensor]] = []
        self.masks: dict[str, Tensor] = self._first_masks(masks or {})
        self._ever = {name: mask.clone() for name, mask in self.masks.items()}
        self._rules: dict[str, MaskedWeight] = {}  # of layers whose products may be 2:4
        if recipe.gradient.keeps_dense:
            for name, layer in self._layers.items():
                rule = MaskedWeight(self.masks[name], recipe.gradient.decay)
                parametrize.register_parametrization(layer, "weight", rule)
                self.masks[name] = rule.mask
                two_way = recipe.pattern == NM(2, 4, two_way=True)
                if (two_way or recipe.pattern == NM(2, 4)) and multiply_sparsely_(layer):
                    self._rules[name] = rule
                    rule.two_way = two_way
            self._look_at_masks()
        else:
            self._zero()

    def _look_at_masks(self) -> None:
        """Notes whose mask is 2:4. Those of a schedule that begins dense, and those given, may not be."""
        for name, rule in self._rules.items():
            rule.follows_2_4 = follows(self.masks[name], rule.two_way)

    def _first_masks(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        unknown = sorted(set(given) - set(self._layers))
        if unknown:
            raise ValueError(f"Sparsifier: masks name layers that are not targets: {', '.join(unknown)}.")
        for name, mask in given.items():
            wanted = self._parameters[name].shape
            if mask.shape != wanted or mask.dtype != torch.bool:
                raise ValueError(
                    f"Sparsifier: the mask of {name!r} must be bool of shape {tuple(wanted)}, got {mask.dtype} "
                    f"of shape {tuple(mask.shape)}."
                )
        recipe, schedule = self.recipe, self.recipe.schedule
        full = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in self._parameters.items()}
        if set(given) == set(self._layers) or not schedule.starts_sparse:
            return full | {name: mask.clone() for name, mask in given.items()}
        score, allocation = recipe.score, recipe.allocation
        if recipe.start is not None:
            score, allocation = recipe.start.score, recipe.start.allocation or allocation
        if {"grad", "norm", "pivot"} & score.requires:
            raise ValueError(
                f"Sparsifier: the first mask cannot be chosen by {score}, which needs data. Pass masks=, for "
                f"instance from sparsify.snip or sparsify.wanda, or start=Start(Random())."
            )
        sparsity = schedule.sparsity(recipe.final, 0)
        if (
            recipe.start is not None
            and recipe.start.allocation is not None
            and allocation.sparsity is not None
        ):
            sparsity = allocation.sparsity
        chosen = self._select(score, replace(allocation, sparsity=self._fixed(sparsity)), full)
        return chosen | {name: mask.clone() for name, mask in given.items()}

    def _fixed(self, sparsity: float) -> float | None:
        """None for patterns that say themselves how much is kept."""
        return None if self.recipe.allocation.sparsity is None else sparsity

    def attach(self, optimizer: Optimizer) -> Sparsifier:
        """Follows an optimizer: from now on its ``step()`` keeps the zeros and moves the mask on.

        Gradient scalers, schedulers and accumulation work as before. A step that a gradient scaler skips does not
        count.

        Args:
            optimizer: Must hold the weights of all targets.

        Raises:
            ValueError: It lacks some, or this sparsifier follows another optimizer.
        """
        if self._optimizer is not None:
            raise ValueError("Sparsifier.attach: already attached to an optimizer. Call detach() first.")
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        missing = [name for name, weight in self._parameters.items() if id(weight) not in held]
        if missing:
            raise ValueError(
                f"Sparsifier.attach: the optimizer does not hold the weight of {missing[0]!r} ({len(missing)} such "
                f"layers). Make it from model.parameters() after the sparsifier, or add them to ignore."
            )
        self._optimizer = optimizer
        self._handles = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]
        if not self.recipe.gradient.keeps_dense:
            for name, weight in self._parameters.items():
                if weight.requires_grad:
                    self._handles.append(weight.register_hook(self._gradient_hook(name)))
        return self

    def detach(self) -> None:
        """Stops following the optimizer; masks stay as they are."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._optimizer = None

    def needs_dense_grad(self, step: int | None = None) -> bool:
        """Whether the gradient of masked weights is used at ``step`` (now, by default)."""
        recipe = self.recipe
        if recipe.gradient.keeps_dense:
            return True
        step = self.step if step is None else step
        wanted = "grad" in recipe.score.requires or (recipe.grow is not None and recipe.grow.needs_grad)
        return wanted and recipe.schedule.is_update(step)

    def _gradient_hook(self, name: str) -> Any:
        """Masked gradients, so that norms for clipping are those of the sparse model."""

        def hook(grad: Tensor) -> Tensor | None:
            return None if self.needs_dense_grad() else grad * self.masks[name]

        return hook

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        grow = self.recipe.grow
        if grow is not None and grow.skip_update and self.recipe.schedule.is_update(self.step):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._stashed.append((parameter, parameter.grad))
                        parameter.grad = None

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for parameter, grad in self._stashed:
            parameter.grad = grad
        self._stashed = []
        if self.recipe.schedule.is_update(self.step):
            self.update()
        elif not self.recipe.gradient.keeps_dense:
            self._zero()
        self.step += 1
        if self.step == self.remember_at:
            self.remembered = copy.deepcopy(self.model.state_dict())

    @torch.no_grad()
    def update(self) -> None:
        """Chooses the masks of this step: first down to the budget, then the exchange of the growth rule.

        The attached optimizer's ``step()`` calls it when the schedule says so.
        """
        recipe = self.recipe
        old = {name: mask.clone() for name, mask in self.masks.items()}
        sparsity = recipe.schedule.sparsity(recipe.final, self.step)
        allocation = replace(recipe.allocation, sparsity=self._fixed(sparsity))
        alive = old
        if recipe.gradient.keeps_dense:
            alive = {name: torch.ones_like(mask) for name, mask in old.items()}
        if not self._settled(sparsity):
            new = self._select(recipe.score, allocation, alive)
        else:
            new = {name: mask.clone() for name, mask in old.items()}
        if recipe.grow is not None:
            new = self._exchange(new)
        for name, mask in new.items():
            self.masks[name].copy_(mask)
            self._ever[name] |= mask
        for rule in self._rules.values():
            rule.follows_2_4 = True
        if not recipe.gradient.keeps_dense:
            self._zero({name: old[name] & mask for name, mask in new.items()})

    def _settled(self, sparsity: float) -> bool:
        """Whether the budget is the one the masks have, so that only an exchange may change them."""
        recipe = self.recipe
        if recipe.gradient.keeps_dense or recipe.grow is None or self.step == 0:
            return False
        return recipe.schedule.sparsity(recipe.final, self.step - 1) == sparsity

    def _statistics(self, name: str) -> Statistics:
        grad = self._parameters[name].grad
        matrix = None if grad is None else distributed.mean(to_matrix(grad.detach().float()))
        return Statistics(grad=matrix, key=name, step=self.step)

    def _select(self, score: Score, allocation: Any, alive: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Masks of the best weights among those alive."""
        scores: dict[str, Tensor] = {}
        for name, weight in self._parameters.items():
            stats = self._statistics(name)
            if "grad" in score.requires and stats.grad is None:
                raise ValueError(
                    f"Sparsifier: {score} needs the gradient of {name!r}, which has none. Call backward() first."
                )
            values = score(to_matrix(weight.detach().float()), stats)
            if not torch.isfinite(values).all():
                raise ValueError(
                    f"Sparsifier: the score of {name!r} is not finite at step {self.step}: training has diverged."
                )
            scores[name] = from_matrix(values, weight)
        return choose_masks(self.recipe.pattern, allocation, scores, alive)

    def _exchange(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        recipe, grow = self.recipe, self.recipe.grow
        assert grow is not None
        share = grow.fraction.at(self.step)
        found: dict[str, Tensor] = {}
        for name, weight in self._parameters.items():
            stats = self._statistics(name)
            if grow.needs_grad and stats.grad is None:
                raise ValueError(
                    f"Sparsifier: {type(grow).__name__} needs the gradient of {name!r}, which has none."
                )
            matrix = to_matrix(weight.detach().float())
            candidates = Candidates(stats, self._momentum(name), to_matrix(self._ever[name]))
            mask, pattern = as_matrix(masks[name], recipe.pattern)
            active = mask_units(mask, pattern)

            def units_of(values: Tensor, weight: Tensor = weight, pattern: Pattern = pattern) -> Tensor:
                return score_units(as_matrix(from_matrix(values, weight), recipe.pattern)[0], pattern)

            worth, growth = units_of(recipe.score(matrix, stats)), units_of(grow(matrix, candidates))
            count = int(share * int(active.sum()))
            units = exchange_units(pattern, recipe.allocation.within, active, worth, growth, count)
            whole = spread_units(units, pattern, (mask.shape[0], mask.shape[1]))
            found[name] = as_weight(whole, weight, recipe.pattern)
        return found

    def _momentum(self, name: str) -> Tensor | None:
        """The optimizer's running mean of the gradient, Adam's divided by its root mean square."""
        if self._optimizer is None:
            return None
        state = self._optimizer.state.get(self._parameters[name], {})
        if state.get("exp_avg") is not None:
            mean = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + 1e-8)
        elif state.get("momentum_buffer") is not None:
            mean = state["momentum_buffer"]
        else:
            return None
        return distributed.mean(to_matrix(mean.detach().float()))

    @torch.no_grad()
    def _zero(self, survivors: Mapping[str, Tensor] | None = None) -> None:
        """Zeros in weights and optimizer state outside of ``survivors`` (the masks, by default)."""
        for name, weight in self._parameters.items():
            gone = ~(self.masks if survivors is None else survivors)[name]
            weight.masked_fill_(gone, 0.0)
            if self._optimizer is None:
                continue
            for value in self._optimizer.state.get(weight, {}).values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.masked_fill_(gone, 0.0)

    def sparsity(self) -> dict[str, float]:
        """Fraction of zeros of each layer's mask."""
        return {name: 1.0 - mask.float().mean().item() for name, mask in self.masks.items()}

    def explored(self) -> float:
        """Share of all weights that have been active at some time (the ITOP rate of dynamic sparse training)."""
        total = sum(mask.numel() for mask in self._ever.values())
        return sum(int(mask.sum()) for mask in self._ever.values()) / max(total, 1)

    def state_dict(self) -> dict[str, Any]:
        """Step, masks and recipe: with the model's and the optimizer's state, training goes on bit for bit."""
        return {
            "version": STATE_VERSION,
            "step": self.step,
            "recipe": self.recipe.to_dict(),
            "masks": {name: mask.clone() for name, mask in self.masks.items()},
            "ever": {name: mask.clone() for name, mask in self._ever.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what :meth:`state_dict` gave. All of it is checked before anything changes.

        Raises:
            ValueError: Another version, recipe or model.
        """
        wanted = {"version", "step", "recipe", "masks", "ever"}
        if not isinstance(state, Mapping) or set(state) != wanted or state["version"] != STATE_VERSION:
            raise ValueError(
                f"Sparsifier.load_state_dict: needs version {STATE_VERSION} with the keys {sorted(wanted)}."
            )
        if state["recipe"] != self.recipe.to_dict():
            raise ValueError(
                "Sparsifier.load_state_dict: the state is of another recipe. Make the sparsifier with "
                "Recipe.from_dict(state['recipe'])."
            )
        if not isinstance(state["step"], int) or state["step"] < 0:
            raise ValueError(f"Sparsifier.load_state_dict: step must be a count, got {state['step']!r}.")
        for part in ("masks", "ever"):
            if set(state[part]) != set(self.masks):
                raise ValueError(f"Sparsifier.load_state_dict: the {part} are of other layers.")
            for name, mask in state[part].items():
                if mask.shape != self.masks[name].shape or mask.dtype != torch.bool:
                    raise ValueError(
                        f"Sparsifier.load_state_dict: {part} of {name!r} must be bool of shape "
                        f"{tuple(self.masks[name].shape)}, got {mask.dtype} of shape {tuple(mask.shape)}."
                    )
        self.step = state["step"]
        for name in self.masks:
            self.masks[name].copy_(state["masks"][name])
            self._ever[name].copy_(state["ever"][name])
        self._look_at_masks()
        if not self.recipe.gradient.keeps_dense:
            self._zero()

    def squash(self) -> nn.Module:
        """Ends pruning: plain dense layers with exact zeros, no hooks, no parametrization.

        Returns:
            The model.
        """
        self.detach()
        if self.recipe.gradient.keeps_dense:
            for name, layer in self._layers.items():
                multiply_densely_(layer)
                if parametrize.is_parametrized(layer, "weight"):
                    self.masks[name] = self.masks[name].clone()
                    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
                    self._parameters[name] = layer.weight  # type: ignore[assignment]
        else:
            self._zero()
        return self.model

    def finalize(self, pattern: Pattern | None = None, **options: Any) -> nn.Module:
        """Ends pruning and packs linear layers and convolutions, so that they run on the sparse kernels.

        Args:
            pattern: To store them in; the recipe's by default. ``Unstructured()`` holds every mask.
            options: Of :func:`sparsecore.sparsify_`, for instance ``dtype=torch.bfloat16``.

        Returns:
            The model. Convolutions that have no sparse kernels (grouped, depthwise, of one or three dimensions; all of
            them under ``Channel``) stay dense, with exact zeros.
        """
        model = self.squash()
        packed: dict[Pattern, dict[str, Tensor]] = {}
        for name, mask in self.masks.items():
            stored = pattern or stored_pattern(self.recipe.pattern, tuple(mask.shape))
            if can_pack(self._layers[name], stored):
                packed.setdefault(stored, {})[name] = mask
        for stored, masks in packed.items():
            chosen = frozenset(masks)
            model = sparsify_(model, stored, partial(_named, chosen), masks=masks, **options)
        return model


def _named(names: frozenset[str], layer: nn.Module, name: str) -> bool:
    return name in names
