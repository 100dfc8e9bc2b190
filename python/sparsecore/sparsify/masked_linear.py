"""Linear layers that stay dense and multiply only the 2:4 part of their weight, chosen anew in every forward pass.

Per step and layer: the packing, the product, the gradient of x and the gradient of the dense weight with its decay.
On CUDA each is one of the kernels of :mod:`sparsecore.ops.semi_structured_training`; elsewhere the same formulas are
plain torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from typing_extensions import Self

from sparsecore.convert import _replace_all, sparsify_
from sparsecore.formats.select import nm_mask
from sparsecore.ops import semi_structured_masked_linear
from sparsecore.ops.semi_structured import serves
from sparsecore.patterns import NM
from sparsecore.reference import two_way_mask
from sparsecore.sparsify.gradients import SRSTE, STE, straight_through

SELECTIONS = ("by_row", "two_way")
Filter = Callable[[nn.Module, str], bool]


class MaskedLinear(nn.Linear):
    """``nn.Linear`` whose products use two of every four inputs of its weight.

    Parameters, ``state_dict`` and optimizers are those of ``nn.Linear``. On CUDA with bfloat16 or float16 weights, or
    any under autocast, the products run on sparse tensor cores; under autocast the choice is among the rounded weights.

    Args:
        in_features: Inputs.
        out_features: Outputs.
        bias: Whether there is one.
        selection: ``"by_row"``, the two largest magnitudes of four inputs; ``"two_way"``, at most two of four along
            inputs and along outputs, so that the gradient of the input is a 2:4 product too.
        gradient: ``SRSTE(decay)`` or ``STE()``: which gradient the weights get.
        device: Where the parameters live.
        dtype: Of the parameters.

    Raises:
        ValueError: An unknown selection, or a gradient rule that keeps no dense weights.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        selection: str = "by_row",
        gradient: SRSTE | STE | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self._set_rule(selection, gradient)

    def _set_rule(self, selection: str, gradient: SRSTE | STE | None) -> None:
        gradient = SRSTE() if gradient is None else gradient
        if selection not in SELECTIONS or not isinstance(gradient, (SRSTE, STE)):
            raise ValueError(
                f"MaskedLinear: needs a selection out of {', '.join(SELECTIONS)} and SRSTE() or STE(), got "
                f"{selection!r} and {gradient!r}. A mask that never moves is a SparseLinear."
            )
        self.selection, self.gradient = selection, gradient

    @classmethod
    def from_dense(
        cls, linear: nn.Linear, *, selection: str = "by_row", gradient: SRSTE | STE | None = None
    ) -> Self:
        """Takes over the parameters of an ``nn.Linear``: the same objects, so an optimizer may hold them already."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.in_features, layer.out_features = linear.in_features, linear.out_features
        layer.weight, layer.bias = linear.weight, linear.bias
        layer._set_rule(selection, gradient)
        return layer.train(linear.training)

    @torch.no_grad()
    def mask(self) -> Tensor:
        """``(out_features, in_features)`` bool, True where the next forward pass multiplies."""
        score = self.weight.abs().float()
        return two_way_mask(score) if self.selection == "two_way" else nm_mask(score, 2, 4)

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``."""
        autocast = torch.is_autocast_enabled(input.device.type)
        narrow = autocast or self.weight.dtype in (torch.bfloat16, torch.float16)
        if narrow and serves(input):
            return semi_structured_masked_linear(
                input, self.weight, self.bias, selection=self.selection, decay=self.gradient.decay
            )
        weight = straight_through(self.weight, self.mask(), self.gradient.decay)
        return nn.functional.linear(input, weight, self.bias)

    def extra_repr(self) -> str:
        """Shape and rules."""
        return f"{super().extra_repr()}, selection={self.selection!r}, gradient={self.gradient!r}"


def train_masked_(
    model: nn.Module,
    filter_fn: Filter | None = None,
    *,
    selection: str = "by_row",
    gradient: SRSTE | STE | None = None,
) -> nn.Module:
    """Replaces the chosen ``nn.Linear`` layers by :class:`MaskedLinear`, in place; parameters stay the same objects.

    Args:
        model: Any module; a bare ``nn.Linear`` is returned converted.
        filter_fn: ``(module, name) -> bool``; None: every ``nn.Linear``.
        selection: See :class:`MaskedLinear`.
        gradient: See :class:`MaskedLinear`.

    Returns:
        The model.
    """
    chosen = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if type(module) is nn.Linear and (filter_fn is None or filter_fn(module, name))
    }
    made = {
        id(module): MaskedLinear.from_dense(module, selection=selection, gradient=gradient)
        for module in chosen.values()
    }
    return _replace_all(model, {name: made[id(module)] for name, module in chosen.items()})


def pack_masked_(model: nn.Module) -> nn.Module:
    """Ends it: every :class:`MaskedLinear` becomes a :class:`~sparsecore.nn.SparseLinear` of ``NM(2, 4)``, in place.

    Returns:
        The model.
    """
    masks: dict[str, Tensor] = {}
    plain: dict[str, nn.Module] = {}
    made: dict[int, nn.Linear] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, MaskedLinear):
            masks[name] = module.mask()
            if id(module) not in made:
                dense = nn.Linear(
                    module.in_features, module.out_features, module.bias is not None, device="meta"
                )
                dense.weight, dense.bias = module.weight, module.bias
                made[id(module)] = dense.train(module.training)
            plain[name] = made[id(module)]
    return sparsify_(_replace_all(model, plain), NM(2, 4), lambda _, name: name in masks, masks=masks)
