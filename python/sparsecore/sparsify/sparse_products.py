"""Products of masked dense weights on sparse tensor cores, in layers that a :class:`Sparsifier` has parametrized.

A mask of 2:4 leaves a weight that :func:`sparsecore.ops.semi_structured_masked_linear` multiplies as such, with the
gradient that the rule gives the dense weight. A two-way mask makes the gradient of the input such a product as well.
Where there is no kernel, or the product would be float32, the layer multiplies ``mask * w`` as it is.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore.formats.check import mask_violations
from sparsecore.ops import semi_structured_masked_linear
from sparsecore.ops.semi_structured import serves
from sparsecore.patterns import NM
from sparsecore.sparsify.gradients import MaskedWeight


def multiply_sparsely_(layer: nn.Module) -> bool:
    """Gives a parametrized ``nn.Linear`` the products of sparse tensor cores; whether it is one.

    They begin once ``follows_2_4`` of its :class:`~sparsecore.sparsify.gradients.MaskedWeight` is set.
    """
    if not isinstance(layer, nn.Linear) or type(layer).forward is not nn.Linear.forward:
        return False
    layer.forward = MethodType(_forward, layer)  # type: ignore[method-assign]
    return True


def multiply_densely_(layer: nn.Module) -> None:
    """Undoes :func:`multiply_sparsely_`."""
    layer.__dict__.pop("forward", None)


def follows(mask: Tensor, two_way: bool) -> bool:
    """Whether at most two of four inputs are kept everywhere, and of four outputs where asked. Waits for the device."""
    return not bool(mask_violations(mask, NM(2, 4, two_way=two_way))[0].any())


def _forward(layer: nn.Linear, input: Tensor) -> Tensor:
    parameters: Any = layer.parametrizations["weight"]  # type: ignore[index]
    rule, dense = parameters[0], parameters.original
    assert isinstance(rule, MaskedWeight)
    halves = (torch.bfloat16, torch.float16)
    narrow = torch.is_autocast_enabled(input.device.type) or (
        dense.dtype in halves and input.dtype == dense.dtype
    )
    if not (narrow and rule.follows_2_4 and serves(input)):
        return nn.functional.linear(input, layer.weight, layer.bias)
    # Without a decay what is masked has no gradient, which is the parametrization's to see to.
    weight, decay = (layer.weight, 0.0) if rule.decay is None else (dense, rule.decay)
    return semi_structured_masked_linear(
        input, weight, layer.bias, rule.mask, decay=decay, transposed=rule.two_way
    )
