"""Linear layers whose weight keeps square blocks, of CUDA tensors: products, gradients, the check of an index."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore._library import has_kernel
from sparsecore.formats.base import ACTIVATIONS
from sparsecore.ops._common import fake_kernel, token_rows

BLOCK_SIZES = (16, 32, 64, 128)

BlockIndex = tuple[Tensor, Tensor, Tensor, Tensor]

_FAULTS = {
    1: "crow_indices do not ascend from 0 to the number of blocks, at row of blocks",
    2: "col_indices are outside of the matrix or do not ascend strictly, at entry",
    3: "order is not the rows from the longest to the shortest, at place",
    4: "the transposed index is damaged, at",
    5: "source does not name the block at the mirrored place, at entry",
}


def _require_kernels(function: str, tensor: Tensor) -> None:
    if (
        tensor.is_meta
        or torch.compiler.is_compiling()
        or has_kernel("block_sparse_linear", tensor.device.type)
    ):
        return
    raise RuntimeError(
        f"{function}: needs a CUDA tensor and a sparsecore that was built with CUDA, got a tensor on {tensor.device}. "
        "On a CPU use sparsecore.nn.SparseLinear with the pattern Group(16, 16)."
    )


def block_sparse_validate(
    crow_indices: Tensor,
    col_indices: Tensor,
    order: Tensor,
    transposed: BlockIndex | None = None,
    *,
    out_features: int,
    in_features: int,
    block_size: int,
) -> None:
    """Refuses an index that does not describe a matrix: what a damaged or crafted file may hold. Waits for the device.

    Runs on every device: without kernels in plain torch.

    Args:
        crow_indices: ``(rows + 1,)`` int32, where the blocks of each row of blocks begin.
        col_indices: ``(blocks,)`` int32, the column of each block.
        order: ``(rows,)`` int32, the rows from the longest to the shortest.
        transposed: What :func:`block_sparse_transpose` returned.
        out_features: Rows of W.
        in_features: Columns of W.
        block_size: 16, 32, 64 or 128.

    Raises:
        ValueError: What is wrong, and where.
    """
    kernel = has_kernel("block_sparse_linear", col_indices.device.type)
    validate: Any = torch.ops.sparsecore.block_sparse_validate if kernel else reference.block_sparse_damage
    found = validate(
        crow_indices,
        col_indices,
        order,
        *(transposed or (None, None, None, None)),
        out_features,
        in_features,
        block_size,
    )
    fault, place = (int(number) for number in found.cpu())
    if fault:
        raise ValueError(
            f"block_sparse_validate: {_FAULTS[fault]} {place}. The weight is damaged; pack it again."
        )


def block_sparse_transpose(crow_indices: Tensor, col_indices: Tensor, *, columns: int) -> BlockIndex:
    """The index of the transposed matrix, which the gradient of the input walks over the same values.

    Args:
        crow_indices: ``(rows + 1,)`` int32.
        col_indices: ``(blocks,)`` int32.
        columns: Columns of blocks, ``ceil(in_features / block_size)``.

    Returns:
        ``ccol_indices``, ``row_indices``, ``order`` and ``source``, the block of each entry; int32. Does not wait for
        the device.
    """
    return reference.block_sparse_transpose(crow_indices, col_indices, columns)


def block_sparse_linear(
    input: Tensor,
    values: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    order: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    out_features: int,
    activation: str = "none",
    token_scale: Tensor | None = None,
    residual: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    transposed: BlockIndex | None = None,
) -> Tensor:
    """``activation(scale * token_scale * (input @ W.T) + bias) + residual`` with a weight of square blocks on a GPU.

    Args:
        input: ``(..., in_features)`` of the weight's dtype; under autocast any floating dtype.
        values: ``(blocks, size, size)`` bfloat16 or float16, the kept blocks in the order of torch's BSR; size 16, 32,
            64 or 128. What lies outside of the matrix is zero.
        crow_indices: ``(rows + 1,)`` int32, where the blocks of each row of blocks begin.
        col_indices: ``(blocks,)`` int32, the column of each block, ascending in a row.
        order: ``(rows,)`` int32, the rows from the longest to the shortest, equal ones ascending.
        scale: ``(out_features,)`` float32.
        bias: ``(out_features,)`` float32, bfloat16 or float16.
        out_features: Rows of W.
        activation: Fused: ``none``, ``relu``, ``gelu``, ``gelu_tanh``, ``silu``, ``relu6``, ``hard_swish``,
            ``hard_sigmoid`` or ``sigmoid``.
        token_scale: One float32 for each token, flattened.
        residual: ``(..., out_features)`` in the dtype of the output.
        out_dtype: float32, bfloat16 or float16; the input's by default.
        transposed: What :func:`block_sparse_transpose` returns, to spare the backward pass that work.

    Returns:
        ``(..., out_features)``. Sums are float32, in an order that depends on shapes alone. Gradients reach input,
        values, bias and residual of layers without activation and scales.

    Raises:
        RuntimeError: Arrays that do not belong together, a dtype without a kernel, tensors that are not on a GPU.
    """
    _require_kernels("block_sparse_linear", input)
    if torch.is_autocast_enabled(input.device.type) and input.is_floating_point():
        input = input.to(values.dtype)
    return torch.ops.sparsecore.block_sparse_linear(  # type: ignore[no-any-return]
        input,
        values,
        crow_indices,
        col_indices,
        order,
        scale,
        token_scale,
        bias,
        residual,
        out_features,
        ACTIVATIONS[activation],
        out_dtype or input.dtype,
        *(transposed or (None, None, None, None)),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    input, values, crow_indices, col_indices, _, scale, token_scale, bias, _, _, activation = inputs[:11]
    if activation or scale is not None or token_scale is not None:
        raise RuntimeError(
            "block_sparse_linear: a fused activation and scales have no gradient. Call it with activation='none' and "
            "without scales when training, and apply them after it."
        )
    ctx.save_for_backward(input, values, crow_indices, col_indices, bias, *inputs[12:16])


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, values, crow_indices, col_indices, bias, *transposed = ctx.saved_tensors
    ops, size = torch.ops.sparsecore, values.shape[1]
    grads: list[Any] = [None] * 16
    narrow = grad.to(input.dtype)
    if ctx.needs_input_grad[0]:
        if transposed[0] is None:
            columns = (input.shape[-1] + size - 1) // size
            transposed = list(block_sparse_transpose(crow_indices, col_indices, columns=columns))
        grads[0] = ops.block_sparse_input_grad(narrow, values, *transposed, input.shape[-1])
    if ctx.needs_input_grad[1]:
        grads[1] = ops.block_sparse_weight_grad(narrow, input, crow_indices, col_indices, size, values.dtype)
    if ctx.needs_input_grad[7]:
        grads[7] = token_rows(grad).float().sum(0).to(bias.dtype)
    if ctx.needs_input_grad[8]:
        grads[8] = grad
    return tuple(grads)


@fake_kernel("block_sparse_linear")
def _linear_fake(
    input: Tensor,
    values: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    order: Tensor,
    scale: Tensor | None,
    token_scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    activation: int,
    out_dtype: torch.dtype,
    ccol_indices: Tensor | None = None,
    row_indices: Tensor | None = None,
    order_t: Tensor | None = None,
    source: Tensor | None = None,
) -> Tensor:
    return input.new_empty((*input.shape[:-1], out_features), dtype=out_dtype)


@fake_kernel("block_sparse_input_grad")
def _input_grad_fake(
    grad_output: Tensor,
    values: Tensor,
    ccol_indices: Tensor,
    row_indices: Tensor,
    order_t: Tensor,
    source: Tensor,
    in_features: int,
) -> Tensor:
    return grad_output.new_empty((*grad_output.shape[:-1], in_features))


@fake_kernel("block_sparse_weight_grad")
def _weight_grad_fake(
    grad_output: Tensor,
    input: Tensor,
    crow_indices: Tensor,
    col_indices: Tensor,
    block_size: int,
    out_dtype: torch.dtype,
) -> Tensor:
    return input.new_empty((col_indices.shape[0], block_size, block_size), dtype=out_dtype)


@fake_kernel("block_sparse_validate")
def _validate_fake(
    crow_indices: Tensor,
    col_indices: Tensor,
    order: Tensor,
    ccol_indices: Tensor | None,
    row_indices: Tensor | None,
    order_t: Tensor | None,
    source: Tensor | None,
    out_features: int,
    in_features: int,
    block_size: int,
) -> Tensor:
    return col_indices.new_empty((2,), dtype=torch.int64)


torch.library.register_autograd("sparsecore::block_sparse_linear", _backward, setup_context=_setup)
