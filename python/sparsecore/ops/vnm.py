"""V:N:M weights on sparse tensor cores: compression and linear layers of CUDA tensors.

V output channels pick the same four of every M inputs, and each channel keeps two of these.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecore._library import has_kernel
from sparsecore.formats.base import ACTIVATIONS
from sparsecore.ops._common import fake_kernel, token_rows
from sparsecore.ops.semi_structured import (
    semi_structured_compress,
    semi_structured_decompress,
    semi_structured_validate,
)
from sparsecore.reference.vnm import vnm_columns, vnm_gather, vnm_scatter, vnm_select

VECTORS = (16, 32, 64, 128)


def _require_vector(function: str, vector: int) -> None:
    if vector not in VECTORS:
        raise ValueError(f"{function}: vector must be 16, 32, 64 or 128, got {vector}.")


def _require(function: str, tensor: Tensor, vector: int) -> None:
    _require_vector(function, vector)
    if tensor.is_meta or torch.compiler.is_compiling():
        return
    if not has_kernel("vnm_linear", tensor.device.type):
        raise RuntimeError(
            f"{function}: needs a CUDA tensor and a sparsecore that was built with CUDA, got a tensor on "
            f"{tensor.device}. sparsecore.reference.vnm_linear runs anywhere, slowly."
        )


def vnm_compress(
    weight: Tensor, mask: Tensor | None = None, *, vector: int = 64, m: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    """Packs a dense weight for :func:`vnm_linear`, on its device.

    Args:
        weight: ``(out_features, in_features)``, bfloat16 or float16, fewer than 65535 inputs.
        mask: ``(out_features, in_features)`` bool: in every ``m`` inputs each ``vector`` channels keep weights of at
            most four inputs, and each channel two of them. Checked, which waits for the device. None: the four inputs
            with the largest sums of magnitudes, then the two largest weights of each channel.
        vector: Channels that pick together: 16, 32, 64 or 128.
        m: Inputs of a group, at least 4. ``2 / m`` of the weights are kept.

    Returns:
        ``values, metadata, columns``: the picked weights as 2:4, and the picks, ``(runs, 4 * groups)`` int16.

    Raises:
        ValueError: A mask that does not follow the pattern, or a ``vector``, ``m`` or shape outside of it.
        RuntimeError: A wrong dtype, shape or device.
    """
    _require("vnm_compress", weight, vector)
    if m < 4:
        raise ValueError(f"vnm_compress: m must be at least 4, got {m}.")
    if weight.dim() != 2 or weight.shape[1] >= 0xFFFF:
        raise ValueError(
            "vnm_compress: weight must be (out_features, in_features) with fewer than 65535 inputs, got "
            f"{tuple(weight.shape)}."
        )
    if mask is None:
        columns = vnm_select(weight, vector, m)
        return (*semi_structured_compress(vnm_gather(weight, columns, vector)), columns)  # type: ignore[return-value]
    if mask.shape != weight.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"vnm_compress: mask must be bool of shape {tuple(weight.shape)}, got {mask.dtype} of shape "
            f"{tuple(mask.shape)}."
        )
    columns = vnm_select(mask, vector, m)
    picked_mask = vnm_gather(mask, columns, vector)
    per_group = picked_mask.view(mask.shape[0], -1, 4).sum(-1)
    if int(picked_mask.sum()) != int(mask.sum()) or int((per_group > 2).sum()):
        raise ValueError(
            f"vnm_compress: the mask keeps more than {vector}:2:{m} allows: at most four of {m} inputs for "
            f"{vector} channels, and two for each. Omit it to select by magnitude."
        )
    return (*semi_structured_compress(vnm_gather(weight, columns, vector), picked_mask), columns)  # type: ignore[return-value]


def vnm_decompress(
    values: Tensor, metadata: Tensor, columns: Tensor, *, out_features: int, in_features: int, vector: int
) -> Tensor:
    """The dense weight ``(out_features, in_features)``, zeros included."""
    _require("vnm_decompress", values, vector)
    picked = semi_structured_decompress(
        values, metadata, out_features=out_features, in_features=columns.shape[1]
    )
    return vnm_scatter(picked, columns, vector, in_features)


def vnm_validate(
    values: Tensor,
    metadata: Tensor,
    columns: Tensor,
    *,
    out_features: int,
    in_features: int,
    vector: int,
    m: int | None = None,
) -> None:
    """Refuses what :func:`vnm_compress` does not make and a damaged or crafted file may hold. Waits for the device.

    Runs on every device: without kernels in plain torch. With ``m`` also a column that is not of its group is refused.

    Raises:
        ValueError: Places of a 2:4 group, or columns of a group, that do not ascend; a column outside of the weight.
    """
    _require_vector("vnm_validate", vector)
    runs = -(-out_features // vector)
    if columns.dtype != torch.int16 or columns.dim() != 2 or columns.shape[0] != runs or columns.shape[1] % 4:
        raise ValueError(
            f"vnm_validate: columns must be int16 of shape ({runs}, 4 * groups), got {columns.dtype} of shape "
            f"{tuple(columns.shape)}."
        )
    semi_structured_validate(values, metadata, out_features=out_features, in_features=columns.shape[1])
    index = vnm_columns(columns)
    none = index == 0xFFFF
    ascends = (index[:, 1:] > index[:, :-1]) | none[:, 1:] | none[:, :-1]
    last = (
        torch.where(none, -1, index).cummax(1).values
    )  # no column may lie before one that was picked earlier
    ascends &= none[:, 1:] | (index[:, 1:] > last[:, :-1])
    wrong = ~none & (index >= in_features)
    wrong[:, 1:] |= ~ascends
    if m is not None:
        group = torch.arange(index.shape[1], device=index.device) // 4
        wrong |= ~none & (index.div(m, rounding_mode="floor") != group)
    if bool(wrong.any()):
        run, place = (int(i) for i in wrong.nonzero()[0])
        raise ValueError(
            f"vnm_validate: column {int(index[run, place])} at place {place} of run {run} is outside of the weight's "
            f"{in_features} inputs or its group, or does not ascend. The packing is damaged; compress the weight again."
        )


def vnm_linear(
    input: Tensor,
    values: Tensor,
    metadata: Tensor,
    columns: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    out_features: int,
    vector: int,
    activation: str = "none",
    token_scale: Tensor | None = None,
    residual: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """``activation(scale * token_scale * (input @ W.T) + bias) + residual`` with a V:N:M weight on a GPU.

    Args:
        input: ``(..., in_features)`` of the weight's dtype; under autocast any floating dtype.
        values: From :func:`vnm_compress`, as ``metadata`` and ``columns``.
        metadata: int32.
        columns: ``(runs, 4 * groups)`` int16, each of an input of its group: some kernels rely on it and take others as
            zeros.
        scale: ``(out_features,)`` float32.
        bias: ``(out_features,)`` float32, bfloat16 or float16.
        out_features: Rows of W.
        vector: Channels that pick together, as in :func:`vnm_compress`.
        activation: As in :func:`semi_structured_linear`.
        token_scale: One float32 for each token, flattened.
        residual: ``(..., out_features)`` in the dtype of the output.
        out_dtype: float32, bfloat16 or float16; the input's by default.

    Returns:
        ``(..., out_features)``. Sums are float32, in an order that depends on the shape alone. Gradients reach input,
        values, bias and residual of layers without activation and scales.
    """
    _require("vnm_linear", input, vector)
    if torch.is_autocast_enabled(input.device.type) and input.is_floating_point():
        input = input.to(values.dtype)
    return torch.ops.sparsecore.vnm_linear(  # type: ignore[no-any-return]
        input,
        values,
        metadata,
        columns,
        scale,
        token_scale,
        bias,
        residual,
        out_features,
        vector,
        ACTIVATIONS[activation],
        out_dtype or input.dtype,
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, values, metadata, columns, scale, token_scale, bias, _, out_features, vector, activation, _ = (
        inputs
    )
    if activation or scale is not None or token_scale is not None:
        raise RuntimeError(
            "vnm_linear: a fused activation and scales have no gradient. Call it with activation='none' and without "
            "scales when training, and apply them after it."
        )
    ctx.save_for_backward(input, values, metadata, columns, bias)
    ctx.out_features, ctx.vector = out_features, vector


def _weight_grad(grad: Tensor, input: Tensor, columns: Tensor, vector: int) -> Tensor:
    """The gradient of the picked matrix, ``(out_features, picked)`` float32: sampled, as shared lists sample it."""
    n, picked = grad.shape[-1], columns.shape[1]
    part = min(vector, 64)  # channels of a list, of which a run of 128 is two
    lists = columns.repeat_interleave(vector // part, 0)[: -(-n // part)]
    pointers = torch.arange(lists.shape[0] + 1, dtype=torch.int32, device=grad.device) * picked
    sampled = torch.ops.sparsecore.shared_lists_weight_grad(
        grad, input, lists.flatten().contiguous(), pointers, part
    )
    of_lists = sampled.view(lists.shape[0], picked, part).transpose(1, 2)
    return of_lists.reshape(lists.shape[0] * part, picked)[:n]  # type: ignore[no-any-return]


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, values, metadata, columns, bias = ctx.saved_tensors
    ops, n, picked = torch.ops.sparsecore, ctx.out_features, columns.shape[1]
    grads: list[Any] = [None] * 12
    narrow = grad.to(input.dtype)
    if ctx.needs_input_grad[0]:
        dense = ops.semi_structured_decompress(values, metadata, n, picked)
        grads[0] = narrow @ vnm_scatter(dense, columns, ctx.vector, input.shape[-1])
    if ctx.needs_input_grad[1]:
        stored = ops.semi_structured_decompress(torch.ones_like(values), metadata, n, picked) != 0
        of_picked = _weight_grad(narrow, input, columns, ctx.vector).to(values.dtype)
        grads[1] = ops.semi_structured_compress(of_picked, stored, 0, False)[0]
    if ctx.needs_input_grad[6]:
        grads[6] = token_rows(grad).float().sum(0).to(bias.dtype)
    if ctx.needs_input_grad[7]:
        grads[7] = grad
    return tuple(grads)


@fake_kernel("vnm_linear")
def _linear_fake(
    input: Tensor,
    values: Tensor,
    metadata: Tensor,
    columns: Tensor,
    scale: Tensor | None,
    token_scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    vector: int,
    activation: int,
    out_dtype: torch.dtype,
) -> Tensor:
    return input.new_empty((*input.shape[:-1], out_features), dtype=out_dtype)


torch.library.register_autograd("sparsecore::vnm_linear", _backward, setup_context=_setup)
