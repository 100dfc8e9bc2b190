"""Training steps whose products are 2:4 while the weight stays dense: SR-STE, and the two-way selection.

With the packed part ``w' = mask * w`` chosen anew in every step, ``y = x w'^T``, and for a gradient g of y

    dx = g w'                                 2:4 too where the mask keeps two of four along outputs as well
    dw = g^T x + decay (1 - mask) w           straight through, with SR-STE's decay (Zhou et al. 2021)

One pass over w makes the packing (both packings, for the two-way selection), and one over the dense gradient adds the
decay: nothing of the mask is stored. No step waits for the device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecore.ops._common import fake_kernel, fake_linear, token_rows
from sparsecore.ops.semi_structured import SELECTIONS, _require_kernels, semi_structured_compress


def semi_structured_straight_through(
    grad: Tensor, weight: Tensor, values: Tensor, metadata: Tensor, decay: float
) -> Tensor:
    """``grad + decay * (weight - kept)``, ``kept`` being what ``values`` and ``metadata`` hold of ``weight``.

    Args:
        grad: ``(out_features, in_features)``, bfloat16 or float16.
        weight: The same shape and dtype.
        values: ``(n blocks, k blocks, 2048)``, packed from ``weight``.
        metadata: ``(n blocks, k blocks, 128)`` int32.
        decay: Factor, computed in float32.

    Returns:
        ``(out_features, in_features)`` in the dtype of ``grad``.
    """
    _require_kernels("semi_structured_straight_through", grad)
    return torch.ops.sparsecore.semi_structured_straight_through(  # type: ignore[no-any-return]
        grad, weight, values, metadata, decay
    )


@fake_kernel("semi_structured_straight_through")
def _straight_through_fake(
    grad: Tensor, weight: Tensor, values: Tensor, metadata: Tensor, decay: float
) -> Tensor:
    return grad.new_empty(grad.shape)


@fake_kernel("semi_structured_masked_linear")
def _masked_linear_fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    values: Tensor,
    metadata: Tensor,
    values_t: Tensor | None,
    metadata_t: Tensor | None,
    decay: float,
) -> Tensor:
    return fake_linear(input, weight.shape[0])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.decay = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, weight, bias, values, metadata, values_t, metadata_t = ctx.saved_tensors
    ops, (n, k) = torch.ops.sparsecore, weight.shape
    of_input = of_weight = of_bias = None
    if ctx.needs_input_grad[0]:
        if values_t is not None:
            of_input = ops.semi_structured_linear(
                grad, values_t, metadata_t, None, None, None, None, k, 0, input.dtype
            )
        else:
            of_input = grad @ ops.semi_structured_decompress(values, metadata, n, k)
    if ctx.needs_input_grad[1]:
        of_weight = token_rows(grad).T @ token_rows(input)
        if ctx.decay:
            of_weight = ops.semi_structured_straight_through(of_weight, weight, values, metadata, ctx.decay)
    if ctx.needs_input_grad[2]:
        of_bias = token_rows(grad).float().sum(0).to(bias.dtype)
    return of_input, of_weight, of_bias, None, None, None, None, None


torch.library.register_autograd("sparsecore::semi_structured_masked_linear", _backward, setup_context=_setup)


class _Fading(torch.autograd.Function):
    """The weight rounded to 16 bits, whose gradient gets the decay in the type of the weight.

    In 16 bits a gradient would round it away: at the usual 2e-4 it is far below what bfloat16 tells apart. What is
    packed is told by its values: a kept weight that is zero in 16 bits fades with the others.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, narrow: Tensor, values: Tensor, metadata: Tensor, decay: float
    ) -> Tensor:
        ctx.save_for_backward(weight, values, metadata)
        ctx.decay = decay
        return narrow.view_as(narrow)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, values, metadata = ctx.saved_tensors
        kept = torch.ops.sparsecore.semi_structured_decompress(values, metadata, *weight.shape) != 0
        return grads[0].to(weight.dtype) + ctx.decay * weight.masked_fill(kept, 0.0), None, None, None, None


def semi_structured_masked_linear(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    selection: str = "by_row",
    decay: float = 0.0,
    transposed: bool | None = None,
) -> Tensor:
    """``input @ (mask * weight).T + bias`` as a 2:4 product, with a straight-through gradient for the dense weight.

    Args:
        input: ``(..., in_features)``, bfloat16 or float16; under autocast any floating dtype.
        weight: ``(out_features, in_features)`` of the input's dtype; under autocast any floating dtype.
        bias: ``(out_features,)`` float32, bfloat16 or float16.
        mask: ``(out_features, in_features)`` bool, at most two of four neighbouring inputs kept. None: chosen here.
        selection: Without a mask: ``"by_row"``, the two largest magnitudes of four inputs, or ``"two_way"``, at most
            two of four along inputs and along outputs.
        decay: SR-STE's, of the weights that were left out; 0 is plain straight-through. In the dtype of the weight.
        transposed: Whether the gradient of the input is a 2:4 product too, for which a mask has to keep two of four
            along outputs as well. None: with ``"two_way"``.

    Returns:
        ``(..., out_features)`` in the dtype of the product. Gradients reach input, bias and every weight.

    Raises:
        ValueError: An unknown selection, or a transposed product of a weight selected by row.
        RuntimeError: A wrong dtype, shape or device.
    """
    _require_kernels("semi_structured_masked_linear", input)
    if mask is None and selection not in set(SELECTIONS) - {"mask"}:
        raise ValueError(
            f"semi_structured_masked_linear: selection must be 'by_row' or 'two_way', got {selection!r}."
        )
    two_way = mask is None and selection == "two_way"
    transposed = two_way if transposed is None else transposed
    if transposed and mask is None and not two_way:
        raise ValueError(
            "semi_structured_masked_linear: a weight selected by row is not 2:4 along outputs, so the gradient of the "
            "input cannot be a 2:4 product. Use selection='two_way', or transposed=False."
        )
    narrow = weight
    if torch.is_autocast_enabled(input.device.type):
        dtype = torch.get_autocast_dtype(input.device.type)
        input, narrow = input.to(dtype), weight.to(dtype)
    with torch.no_grad():
        packed: tuple[Tensor | None, ...] = semi_structured_compress(
            narrow.detach(), mask, selection=selection, transposed=transposed
        )
    if decay and narrow.dtype != weight.dtype:
        narrow = _Fading.apply(weight, narrow.detach(), *packed[:2], decay)  # type: ignore[no-untyped-call]
        decay = 0.0
    packed = (*packed, None, None)[:4]
    return torch.ops.sparsecore.semi_structured_masked_linear(  # type: ignore[no-any-return]
        input, narrow, bias, *packed, decay
    )
