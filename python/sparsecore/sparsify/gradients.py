"""What a masked layer computes with, and which gradient its weight gets.

The layer computes with ``w_eff = mask * w``; with ``G = dL/dw_eff`` a rule is the map from G to the gradient of w:

    Hard      mask * G                       zeros stay where they are
    STE       G                              straight through: every weight learns as if it were there
    SRSTE     G + decay (1 - mask) w         the same, and weights that are out fade (Zhou et al. 2021)

With ``Hard`` the stored weight holds exact zeros and the model is left as it is. The other two keep dense weights
beneath the mask, in a parametrization of the layer (``torch.nn.utils.parametrize``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn


class GradientRule(Protocol):
    """Decides whether weights beneath the mask live on, and how they decay."""

    keeps_dense: ClassVar[bool]  # whether the stored weight is dense

    @property
    def decay(self) -> float:
        """Factor on ``(1 - mask) w`` in the gradient."""
        ...


@dataclass(frozen=True)
class Hard:
    """Masked weights are zero and get no update."""

    keeps_dense: ClassVar[bool] = False
    decay: ClassVar[float] = 0.0


@dataclass(frozen=True)
class STE:
    """Straight-through: masked weights learn from the gradient of the zero they were replaced by."""

    keeps_dense: ClassVar[bool] = True
    decay: ClassVar[float] = 0.0


@dataclass(frozen=True)
class SRSTE:
    """Straight-through with a decay on masked weights, which calms the mask (Zhou et al. 2021)."""

    keeps_dense: ClassVar[bool] = True

    decay: float = 2e-4

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < float("inf"):
            raise ValueError(f"SRSTE: decay must be finite and not negative, got {self.decay}.")


class _StraightThrough(torch.autograd.Function):
    """``mask * w``, with ``G + decay (1 - mask) w`` as its gradient."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, decay: float) -> Tensor:
        ctx.save_for_backward(weight, mask)
        ctx.decay = decay
        return weight * mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = grads
        weight, mask = ctx.saved_tensors
        if ctx.decay:
            grad = grad + ctx.decay * weight.masked_fill(mask, 0.0)
        return grad, None, None


def straight_through(weight: Tensor, mask: Tensor, decay: float) -> Tensor:
    """``mask * w``, whose gradient G reaches w as ``G + decay (1 - mask) w``."""
    return _StraightThrough.apply(weight, mask, decay)  # type: ignore[no-any-return, no-untyped-call]


class MaskedWeight(nn.Module):
    """Parametrization: the stored weight is dense, the layer sees ``mask * w``.

    The mask is a buffer, so it is part of ``state_dict``.

    Args:
        mask: Bool, in the shape of the weight.
        decay: See :class:`SRSTE`; None: masked weights get no gradient.

    Attributes:
        follows_2_4: Whether the mask keeps at most two of four inputs, so that sparse tensor cores multiply the weight.
        two_way: Whether it then keeps at most two of four outputs too, so that they multiply the transposed weight.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, decay: float | None) -> None:
        super().__init__()
        self.register_buffer("mask", mask.clone())
        self.decay = decay
        self.follows_2_4 = self.two_way = False

    def forward(self, weight: Tensor) -> Tensor:
        """``w_eff`` in the shape of ``weight``."""
        if self.decay is None:
            return weight * self.mask
        return straight_through(weight, self.mask, self.decay)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.follows_2_4 = False  # until the next mask is chosen, or somebody has looked at this one

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Assigning to ``layer.weight`` stores what was given."""
        return weight
