"""2:4 weights on sparse tensor cores, and (2N-2):2N lifted to them: compression and linear layers of CUDA tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore._library import has_kernel
from sparsecore.formats.base import ACTIVATIONS
from sparsecore.ops import window_lift
from sparsecore.ops._common import fake_kernel, token_rows

SELECTIONS = {"mask": 0, "by_row": 1, "two_way": 2}
WEIGHT_GRADIENTS = {"auto": 0, "sampled": 1, "masked": 2}

# "auto" samples up to so many tokens. Per weight, with m tokens on an H100: masked takes a dense product of 2 m at
# 700 TFLOP/s, 2 bytes written and 3 moved by the gather at 3 TB/s; sampled 2 m at 350 TFLOP/s (mma.sync) and 1 byte.
# They meet near 460. Arithmetic, not measurement.
_SAMPLED_TOKENS = 256


def serves(tensor: Tensor) -> bool:
    """Whether this installation has the 2:4 kernels on the tensor's device."""
    return torch.compiler.is_compiling() or has_kernel("semi_structured_linear", tensor.device.type)


def _require_kernels(function: str, tensor: Tensor) -> None:
    if not tensor.is_meta and not serves(tensor):
        raise RuntimeError(
            f"{function}: needs a CUDA tensor and a sparsecore that was built with CUDA, got a tensor on "
            f"{tensor.device}. On a CPU use sparsecore.nn.SparseLinear with the pattern NM(2, 4); "
            "sparsecore.formats.placed(weight, 'cpu') packs one made for a GPU anew."
        )


def semi_structured_compress(
    weight: Tensor,
    mask: Tensor | None = None,
    *,
    selection: str = "by_row",
    transposed: bool = False,
    group: int = 4,
) -> tuple[Tensor, ...]:
    """Packs a dense weight for :func:`semi_structured_linear`.

    Args:
        weight: ``(out_features, in_features)``, bfloat16, float16, int8 or float8_e4m3fn, rows dense.
        mask: ``(out_features, in_features)`` bool, all but two of every ``group`` neighbouring inputs kept at most;
            then ``selection`` does not count. Where it keeps more, the largest stay.
        selection: ``"by_row"``, the largest magnitudes of each group, or ``"two_way"``, at most two of four along
            inputs and along outputs, so that the transposed weight can be packed too.
        transposed: Pack the transposed weight as well, for the gradient of the input. bfloat16 and float16, by
            ``"two_way"`` or a mask that serves both directions.
        group: 4 for 2:4; an even number up to 64 for ``group - 2`` of ``group``, which is packed as 2:4 with
            ``2 (group - 2) / group`` of the inputs. bfloat16, float16 and int8.

    Returns:
        ``values, metadata``, or ``values, metadata, values_t, metadata_t``.

    Raises:
        ValueError: An unknown selection, a group that cannot be, or ``"two_way"`` with another than 4.
        RuntimeError: A wrong dtype, shape or device.
    """
    if selection not in ("by_row", "two_way"):
        raise ValueError(
            f"semi_structured_compress: selection must be 'by_row' or 'two_way', got {selection!r}."
        )
    _require_kernels("semi_structured_compress", weight)
    window_lift.require_group("semi_structured_compress", group)
    if group > 4:
        return _compress_lifted(weight, mask, selection, transposed, group)
    kind = SELECTIONS["mask" if mask is not None else selection]
    packed = torch.ops.sparsecore.semi_structured_compress(weight, mask, kind, transposed)
    return tuple(packed) if transposed else tuple(packed[:2])


def _compress_lifted(
    weight: Tensor, mask: Tensor | None, selection: str, transposed: bool, group: int
) -> tuple[Tensor, ...]:
    function = "semi_structured_compress"
    if weight.dim() != 2 or (mask is not None and (mask.dtype != torch.bool or mask.shape != weight.shape)):
        raise ValueError(
            f"{function}: needs a weight (out_features, in_features) and a bool mask of its shape, got "
            f"{tuple(weight.shape)} and {None if mask is None else (mask.dtype, tuple(mask.shape))}."
        )
    if weight.dtype not in (torch.bfloat16, torch.float16, torch.int8):
        raise ValueError(
            f"{function}: groups of {group} take bfloat16, float16 and int8 weights, got {weight.dtype}. Convert it, "
            "or use group=4."
        )
    if mask is None and (selection == "two_way" or transposed):
        raise ValueError(
            f"{function}: 'two_way' is 2:4 alone, and the transposed packing of groups of {group} needs a mask that "
            "serves both directions. Give one, or leave transposed out."
        )
    directions = [(weight, mask)]
    if transposed and mask is not None:
        directions.append((weight.T.contiguous(), mask.T))
    packed: list[Tensor] = []
    for dense, kept in directions:
        lifted = window_lift.lift(dense, window_lift.largest_of_group(dense, kept, group), group)
        packed += torch.ops.sparsecore.semi_structured_compress(*lifted, SELECTIONS["mask"], False)[:2]
    return tuple(packed)


def _decompress(values: Tensor, metadata: Tensor, n: int, k: int, group: int) -> Tensor:
    inputs = window_lift.lifted_inputs(k, group) if group > 4 else k
    dense: Tensor = torch.ops.sparsecore.semi_structured_decompress(values, metadata, n, inputs)
    return window_lift.fold(dense, k, group) if group > 4 else dense


def semi_structured_decompress(
    values: Tensor, metadata: Tensor, *, out_features: int, in_features: int, group: int = 4
) -> Tensor:
    """The dense weight ``(out_features, in_features)``, zeros included."""
    _require_kernels("semi_structured_decompress", values)
    window_lift.require_group("semi_structured_decompress", group)
    return _decompress(values, metadata, out_features, in_features, group)


def semi_structured_validate(
    values: Tensor, metadata: Tensor, *, out_features: int, in_features: int, group: int = 4
) -> None:
    """Refuses what a damaged or crafted file may hold and no packing does. Waits for the device.

    That is places which do not ascend, and with ``group`` above 4 also an input that two windows weigh, or a weight
    past the last input.

    Runs on every device: without kernels in plain torch. float32 values, in the layout of 16 bits, may be passed too.

    Raises:
        ValueError: The packing is not one that :func:`semi_structured_compress` makes.
    """
    window_lift.require_group("semi_structured_validate", group)
    inputs = window_lift.lifted_inputs(in_features, group) if group > 4 else in_features
    if values.dtype == torch.float32:
        values = (values != 0).to(torch.bfloat16)
    validate = (
        torch.ops.sparsecore.semi_structured_validate if serves(values) else reference.semi_structured_damage
    )
    where = int(validate(values, metadata, out_features, inputs))
    if where >= 0:
        depth = metadata.shape[-1] // 2
        channel, column = divmod(where, max(values.shape[1] * depth, 1))
        raise ValueError(
            f"semi_structured_validate: the metadata of channel {channel}, inputs {column}..{column + 3} does not name "
            "two ascending places inside the matrix. The packing is damaged; compress the weight again."
        )
    if group == 4:
        return
    unpack = (
        torch.ops.sparsecore.semi_structured_decompress
        if serves(values)
        else reference.semi_structured_unpack
    )
    used = unpack(values, metadata, out_features, inputs) != 0
    padded = (in_features + group - 1) // group * group
    weights = window_lift.fold(used.to(torch.int8), padded, group)
    wrong = weights > (torch.arange(padded, device=weights.device) < in_features)
    if wrong.any():
        channel, column = (int(i) for i in wrong.nonzero()[0])
        what = "is past the last" if column >= in_features else "has a weight in two windows"
        raise ValueError(
            f"semi_structured_validate: input {column} of channel {channel} {what}. The packing is damaged or of "
            "another group; compress the weight again."
        )


def semi_structured_linear(
    input: Tensor,
    values: Tensor,
    metadata: Tensor,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    out_features: int,
    activation: str = "none",
    token_scale: Tensor | None = None,
    residual: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    transposed: tuple[Tensor, Tensor] | None = None,
    group: int = 4,
    weight_gradient: str = "auto",
) -> Tensor:
    """``activation(scale * token_scale * (input @ W.T) + bias) + residual`` with a 2:4 weight on a GPU.

    Args:
        input: ``(..., in_features)`` of the weight's dtype; under autocast any floating dtype.
        values: ``(n blocks, k blocks, 4096 / bytes)``, from :func:`semi_structured_compress`.
        metadata: ``(n blocks, k blocks, 256 / bytes)`` int32.
        scale: ``(out_features,)`` float32.
        bias: ``(out_features,)`` float32, bfloat16 or float16.
        out_features: Rows of W.
        activation: Fused: ``none``, ``relu``, ``gelu``, ``gelu_tanh``, ``silu``, ``relu6``, ``hard_swish``,
            ``hard_sigmoid`` or ``sigmoid``.
        token_scale: One float32 for each token, flattened.
        residual: ``(..., out_features)`` in the dtype of the output.
        out_dtype: float32, bfloat16 or float16; the input's where that is one of them, else bfloat16.
        transposed: ``values_t, metadata_t``: the gradient of the input is then a 2:4 product too.
        group: As of :func:`semi_structured_compress`; above 4 the kernels lift the inputs as they read them.
        weight_gradient: How the gradient of ``values`` is made: ``"masked"``, a dense product of which the stored
            places are taken; ``"sampled"``, sums for those places alone (:func:`semi_structured_sampled`); ``"auto"``,
            sampled up to 256 tokens. With a group above 4 it is masked.

    Returns:
        ``(..., out_features)``. Sums are float32, int32 for int8, in an order that depends on the shape alone.
        Gradients reach input, values, bias and residual of bfloat16 and float16 layers without activation and scales.
    """
    _require_kernels("semi_structured_linear", input)
    if torch.is_autocast_enabled(input.device.type) and input.is_floating_point():
        input = input.to(values.dtype)
    if out_dtype is None:
        out_dtype = input.dtype if input.dtype in (torch.bfloat16, torch.float16) else torch.bfloat16
    if weight_gradient not in WEIGHT_GRADIENTS:
        raise ValueError(
            f"semi_structured_linear: weight_gradient must be one of {', '.join(WEIGHT_GRADIENTS)}, "
            f"got {weight_gradient!r}."
        )
    values_t, metadata_t = transposed if transposed is not None else (None, None)
    return torch.ops.sparsecore.semi_structured_linear(  # type: ignore[no-any-return]
        input,
        values,
        metadata,
        scale,
        token_scale,
        bias,
        residual,
        out_features,
        ACTIVATIONS[activation],
        out_dtype,
        values_t,
        metadata_t,
        group,
        WEIGHT_GRADIENTS[weight_gradient],
    )


def semi_structured_gather(dense: Tensor, metadata: Tensor) -> Tensor:
    """What a dense matrix holds at the places of a packing, zero outside of it: a dense gradient as one of ``values``.

    Args:
        dense: ``(out_features, in_features)``, bfloat16 or float16, rows dense.
        metadata: ``(n blocks, k blocks, 128)`` int32.

    Returns:
        ``(n blocks, k blocks, 2048)`` in the dtype of ``dense``.
    """
    _require_kernels("semi_structured_gather", dense)
    return torch.ops.sparsecore.semi_structured_gather(dense, metadata)  # type: ignore[no-any-return]


def semi_structured_sampled(grad: Tensor, input: Tensor, metadata: Tensor) -> Tensor:
    """``grad.T @ input`` at the places of a packing alone: the gradient of ``values`` without a dense one in memory.

    Args:
        grad: ``(..., out_features)``, bfloat16 or float16.
        input: ``(..., in_features)``, as many tokens, the same dtype.
        metadata: ``(n blocks, k blocks, 128)`` int32.

    Returns:
        ``(n blocks, k blocks, 2048)``; sums are float32, in the order of the tokens.
    """
    _require_kernels("semi_structured_sampled", grad)
    return torch.ops.sparsecore.semi_structured_sampled(grad, input, metadata)  # type: ignore[no-any-return]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    (
        input,
        values,
        metadata,
        scale,
        token_scale,
        bias,
        _,
        out_features,
        activation,
        _,
        values_t,
        metadata_t,
        group,
        weight_gradient,
    ) = inputs
    if activation or scale is not None or token_scale is not None:
        raise RuntimeError(
            "semi_structured_linear: a fused activation and scales have no gradient. Call it with activation='none' "
            "and without scales when training, and apply them after it."
        )
    ctx.save_for_backward(input, values, metadata, bias, values_t, metadata_t)
    ctx.out_features, ctx.group, ctx.weight_gradient = out_features, group, weight_gradient


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    input, values, metadata, bias, values_t, metadata_t = ctx.saved_tensors
    ops, shape, group = torch.ops.sparsecore, (ctx.out_features, input.shape[-1]), ctx.group
    grads: list[Any] = [None] * 14
    narrow = grad.to(input.dtype)
    if ctx.needs_input_grad[0]:
        if values_t is not None:
            grads[0] = ops.semi_structured_linear(
                narrow, values_t, metadata_t, None, None, None, None, shape[1], 0, input.dtype, group=group
            )
        else:
            grads[0] = narrow @ _decompress(values, metadata, *shape, group)
    if ctx.needs_input_grad[1]:
        of_tokens, tokens = token_rows(narrow), token_rows(input)
        few = ctx.weight_gradient == WEIGHT_GRADIENTS["auto"] and tokens.shape[0] <= _SAMPLED_TOKENS
        if group == 4 and (few or ctx.weight_gradient == WEIGHT_GRADIENTS["sampled"]):
            grads[1] = ops.semi_structured_sampled(of_tokens, tokens, metadata)
        else:
            dense = of_tokens.T @ tokens
            grads[1] = ops.semi_structured_gather(
                window_lift.spread(dense, group) if group > 4 else dense, metadata
            )
    if ctx.needs_input_grad[5]:
        grads[5] = token_rows(grad).float().sum(0).to(bias.dtype)
    if ctx.needs_input_grad[6]:
        grads[6] = grad
    return tuple(grads)


def _blocks(n: int, k: int, size: int) -> tuple[int, int]:
    return (n + 63) // 64, (k + 128 // size - 1) // (128 // size)


@fake_kernel("semi_structured_compress")
def _compress_fake(
    weight: Tensor, mask: Tensor | None, selection: int, transposed: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (n, k), size = weight.shape, weight.element_size()
    shapes = [_blocks(n, k, size), _blocks(k, n, size) if transposed else (0, 0)]
    packed: list[Tensor] = []
    for i, shape in enumerate(shapes):
        used = transposed or i == 0
        packed.append(weight.new_empty((*shape, 4096 // size if used else 0)))
        packed.append(weight.new_empty((*shape, 256 // size if used else 0), dtype=torch.int32))
    return packed[0], packed[1], packed[2], packed[3]


@fake_kernel("semi_structured_decompress")
def _decompress_fake(values: Tensor, metadata: Tensor, out_features: int, in_features: int) -> Tensor:
    return values.new_empty((out_features, in_features))


@fake_kernel("semi_structured_validate")
def _validate_fake(values: Tensor, metadata: Tensor, out_features: int, in_features: int) -> Tensor:
    return values.new_empty((1,), dtype=torch.int64)


def _values_fake(like: Tensor, metadata: Tensor) -> Tensor:
    return like.new_empty((metadata.shape[0], metadata.shape[1], 2048))


@fake_kernel("semi_structured_gather")
def _gather_fake(dense: Tensor, metadata: Tensor) -> Tensor:
    return _values_fake(dense, metadata)


@fake_kernel("semi_structured_sampled")
def _sampled_fake(grad: Tensor, input: Tensor, metadata: Tensor) -> Tensor:
    return _values_fake(grad, metadata)


@fake_kernel("semi_structured_linear")
def _linear_fake(
    input: Tensor,
    values: Tensor,
    metadata: Tensor,
    scale: Tensor | None,
    token_scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    activation: int,
    out_dtype: torch.dtype,
    values_t: Tensor | None = None,
    metadata_t: Tensor | None = None,
    group: int = 4,
    weight_gradient: int = 0,
) -> Tensor:
    return input.new_empty((*input.shape[:-1], out_features), dtype=out_dtype)


torch.library.register_autograd("sparsecore::semi_structured_linear", _backward, setup_context=_setup)
