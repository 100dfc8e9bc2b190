"""Square blocks: products, and the gradient of the weight, which samples a product at the kept blocks."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore.formats import BlockSparse

from .base import (
    TOLERANCES,
    Check,
    Family,
    Layer,
    Prepared,
    Shape,
    Target,
    Task,
    Variant,
    asking_for,
    device_has,
    every,
    relative_error,
)

LAYERS = ((4096, 4096), (8192, 8192))
TOKENS = (4096, 512, 128)
GRADIENT_KERNELS = ("weight_grad_sm80", "weight_grad_sm90")


def block_mask(rows: int, columns: int, size: int, density: float, device: str) -> Tensor:
    """As many blocks in every row, at random."""
    height, width = -(-rows // size), -(-columns // size)
    scores = torch.rand(height, width, device=device)
    count = max(1, round(density * width))
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, scores.topk(count, 1).indices, True)


def shares(size: int) -> tuple[float, float]:
    """Of the time that the dense product would take for the kept blocks alone: must and stretch."""
    return (0.75, 0.88) if size >= 64 else (0.35, 0.5)


def variant(
    size: int, density: float, dtype: torch.dtype = torch.bfloat16, by_kernel: tuple[int, ...] = ()
) -> Variant:
    """Blocks of ``size`` squared, a share of ``density`` kept."""

    def make(weight: Tensor) -> Layer:
        mask = block_mask(*weight.shape, size, density, weight.device.type)
        packed = BlockSparse.from_dense(weight, mask, block_size=size)
        kept = mask.repeat_interleave(size, 0).repeat_interleave(size, 1)
        kept = kept[: weight.shape[0], : weight.shape[1]]
        outputs, inputs = weight.shape

        def spread(values: Tensor) -> Tensor:
            return reference.block_sparse_unpack(
                values, packed.crow_indices, packed.col_indices, outputs, inputs
            )

        return Layer(
            torch.where(kept, weight, torch.zeros_like(weight)),
            lambda x, bias: packed.linear(x, bias),
            out_dtype=dtype,
            values=packed.values,
            trained=lambda x, values: packed.with_values(values).linear(x),
            spread=spread,
        )

    def targets(shape: Shape) -> tuple[Target, ...]:
        if shape.tokens < 1024:
            return ()
        must, stretch = (share / density for share in shares(size))
        return (
            Target("cuBLAS", round(must, 2), round(stretch, 2)),
            *((Target("torch BSR", 1.3, 1.3),) if size >= 64 else ()),
        )

    return Variant(
        name=f"blocks of {size}, {density:.0%}, {str(dtype).removeprefix('torch.')}",
        dtype=dtype,
        density=density,
        make=make,
        peers=("cuBLAS", "torch BSR", "Triton BSR"),
        targets=targets,
        layers=LAYERS,
        tokens=TOKENS,
        ragged=(1005, 1011),
        differentiable=True,
        values_are_trained=True,
        block=(size, size),
        small=(256, 128),
        kernels=("linear_small_sm80", "linear_sm80", *(("linear_sm90",) if size >= 64 else ())),
        by_kernel=by_kernel,
        trained=((4096, 4096, 4096),) if by_kernel else (),
    )


def damaged_is_refused(device: str, small: bool) -> str:
    """The check before a kernel walks an index: a whole one passes, and damage of each array is found."""
    rows, inputs, size = (70, 130, 16) if small else (4096, 4096, 64)
    weight = torch.randn(rows, inputs, device=device).to(torch.bfloat16)
    packed = BlockSparse.from_dense(weight, block_mask(rows, inputs, size, 0.3, device), block_size=size)
    packed.validate()
    for name, at, wrong in (("crow_indices", 1, 1 << 20), ("col_indices", 3, 1 << 20), ("order", 0, -1)):
        array = getattr(packed, name).clone()
        array[at] = wrong
        try:
            replace(packed, **{name: array}).validate()
        except ValueError:
            continue
        return f"damaged {name} are accepted"
    return ""


def sampled_check(size: int, dtype: torch.dtype) -> Check:
    """The sampled product, by tensor copies and where they cannot be had, against float64, and twice the same bits."""

    def wrong(outputs: int, inputs: int, tokens: int, out_dtype: torch.dtype, device: str) -> str:
        mask = block_mask(outputs, inputs, size, 0.25, device)
        packed = BlockSparse.from_dense(
            torch.randn(outputs, inputs, device=device).to(dtype), mask, block_size=size
        )
        # Of a wider tensor: rows do not follow each other.
        x = torch.randn(tokens, inputs + 8, device=device).to(dtype)[:, :inputs]
        grad = torch.randn(tokens, outputs, device=device).to(dtype)
        index = packed.crow_indices, packed.col_indices

        def ours() -> Tensor:
            return torch.ops.sparsecore.block_sparse_weight_grad(grad, x, *index, size, out_dtype)

        got = ours()
        spread = reference.block_sparse_unpack(got, *index, outputs, inputs)
        kept = mask.repeat_interleave(size, 0).repeat_interleave(size, 1)[:outputs, :inputs]
        expected = torch.where(kept, grad.double().T @ x.double(), 0.0)
        error, tolerance = relative_error(spread, expected), TOLERANCES[dtype, out_dtype]
        what = f"{outputs} x {inputs}, {tokens} tokens"
        return every(
            (
                (error <= tolerance, f"{what}: the error is {error:.1e}, more than {tolerance:.1e}"),
                (torch.equal(got, ours()), f"{what}: other bits the second time"),
            )
        )

    def holds(device: str, small: bool) -> str:
        shapes = ((328, 264, 70),) if small else ((4096, 4096, 4096), (4104, 4088, 1000), (1024, 1024, 16384))
        cases = [(*shape, out) for shape in (*shapes, (261, 205, 70)) for out in (dtype, torch.float32)]
        return next(filter(None, (wrong(*case, device) for case in cases)), "")

    return Check(f"sampled product, blocks of {size}, {str(dtype).removeprefix('torch.')}", holds)


def sampled_task(
    size: int,
    density: float,
    dtype: torch.dtype = torch.bfloat16,
    shape: tuple[int, int] = (4096, 4096),
    value: int = 1,
) -> Task:
    """The sampled product beside the whole dense one; ``shape`` is the layer's width and the tokens."""

    def prepare(device: str, small: bool) -> Prepared:
        width, tokens = (128, 40) if small else shape
        mask = block_mask(width, width, size, density, device)
        packed = BlockSparse.from_dense(
            torch.randn(width, width, device=device).to(dtype), mask, block_size=size
        )
        x, grad = (torch.randn(tokens, width, device=device).to(dtype) for _ in range(2))
        index = packed.crow_indices, packed.col_indices

        def ours() -> Tensor:
            return torch.ops.sparsecore.block_sparse_weight_grad(grad, x, *index, size, dtype)

        kernels = GRADIENT_KERNELS if size >= 64 and not small else GRADIENT_KERNELS[:1]
        calls = {"ours": ours, "cuBLAS": lambda: grad.T @ x}
        calls |= {kernel: asking_for(kernel, ours) for kernel in device_has(kernels, device)}
        return Prepared(
            calls,
            operations=2.0 * width * width * tokens,
            facts={"kernels": list(device_has(kernels, device))},
        )

    target = Target("cuBLAS", round(0.65 / density, 2), round(0.8 / density, 2))
    square = f"{shape[0]} x {shape[0]}, {shape[1]} tokens"
    name = f"sampled product, blocks of {size}, {density:.0%}, {str(dtype).removeprefix('torch.')}, {square}"
    return Task(name, value, prepare, (target,) if size >= 64 else ())


def input_gradient_task(size: int, density: float, tokens: int) -> Task:
    """The gradient of few tokens, over the transposed index, beside the dense product."""

    def prepare(device: str, small: bool) -> Prepared:
        width = 128 if small else 4096
        packed = BlockSparse.from_dense(
            torch.randn(width, width, device=device).to(torch.bfloat16),
            block_mask(width, width, size, density, device),
            block_size=size,
        )
        dense, grad = packed.to_dense(), torch.randn(tokens, width, device=device).to(torch.bfloat16)
        transposed = packed.transposed

        def ours() -> Tensor:
            return torch.ops.sparsecore.block_sparse_input_grad(grad, packed.values, *transposed, width)

        kernels = ("linear_small_sm80", "linear_sm80")
        calls = {"ours": ours, "cuBLAS": lambda: grad @ dense}
        calls |= {kernel: asking_for(kernel, ours) for kernel in kernels}
        return Prepared(
            calls,
            operations=2.0 * width * width * tokens,
            answers=(grad @ dense,),
            facts={"kernels": list(kernels)},
        )

    return Task(
        f"gradient of x, blocks of {size}, {density:.0%}, bfloat16, 4096 x 4096, {tokens} tokens", 2, prepare
    )


FAMILY = Family(
    name="block-sparse",
    operators=("block_sparse_linear", "block_sparse_input_grad", "block_sparse_weight_grad"),
    variants=(
        variant(64, 0.1, by_kernel=(1, 2, 4, 8, 16, 32, 64, 96, 128, 256)),
        variant(128, 0.1),
        variant(64, 0.3),
        variant(32, 0.1),
        variant(16, 0.1, by_kernel=(1, 8, 16, 32, 64)),
        variant(128, 0.5, torch.float16),
    ),
    checks=(
        Check("damaged index", damaged_is_refused),
        sampled_check(64, torch.bfloat16),
        sampled_check(128, torch.bfloat16),
        sampled_check(64, torch.float16),
        sampled_check(128, torch.float16),
        sampled_check(32, torch.bfloat16),
    ),
    tasks=(
        sampled_task(64, 0.1),
        sampled_task(128, 0.1),
        sampled_task(64, 0.3),
        sampled_task(128, 0.5, torch.float16),
        sampled_task(32, 0.1),
        # Few groups of blocks: the tokens are split.
        sampled_task(64, 0.2, shape=(1024, 16384), value=2),
        sampled_task(128, 0.2, shape=(4096, 16384), value=2),
        *(input_gradient_task(64, 0.1, tokens) for tokens in (1, 8, 32)),
        input_gradient_task(16, 0.1, 8),
    ),
)
