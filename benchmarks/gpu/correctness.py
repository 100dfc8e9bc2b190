"""Every operator against float64 torch: sizes as in use, ragged ones, views, gradients, and the same bits twice.

python -m benchmarks.gpu.correctness      small cases on the GPU, for compute-sanitizer: fails where one is wrong
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .families import FAMILIES
from .families.base import TOLERANCES, Family, Layer, Shape, Variant, relative_error

LAYERS = ((4096, 4096), (14336, 4096))
TOKENS = (1, 8, 33, 256, 1000, 4096)
SMALL_TOKENS = (1, 7, 40)


@dataclass(frozen=True)
class Case:
    """One question; ``run`` returns what the record keeps, ``ok`` among it."""

    name: str
    run: Callable[[], dict[str, Any]]


def product(layer: Layer, x: Tensor, bias: Tensor | None) -> Tensor:
    """What the layer should return, in float64."""
    y = x.double() @ layer.weight.double().T
    if layer.scale is not None:
        y = y * layer.scale.double()
    return y if bias is None else y + bias.double()


def compare(got: Tensor, expected: Tensor, tolerance: float) -> dict[str, Any]:
    """By norm, and element by element: one wrong element of millions does not move a norm."""
    error = relative_error(got, expected)
    spread = expected.square().mean().sqrt()
    off = (got.double() - expected).abs() > 8 * tolerance * (spread + expected.abs())
    wrong = int(off.sum()) if error != float("inf") else got.numel()
    return {
        "ok": error <= tolerance and wrong == 0,
        "error": error,
        "tolerance": tolerance,
        "wrong_elements": wrong,
    }


def layer_cases(variant: Variant, device: str, small: bool) -> Iterator[Case]:
    """Of one variant: shapes, views, gradients of the input."""
    generator = torch.Generator(device).manual_seed(1)
    cache: dict[tuple[int, int], Layer] = {}

    def layer_of(outputs: int, inputs: int) -> Layer:
        if (outputs, inputs) not in cache:
            cache.clear()
            cache[outputs, inputs] = variant.make(
                variant.random(outputs, inputs, device=device, generator=generator)
            )
        return cache[outputs, inputs]

    def values(shape: Shape) -> tuple[Layer, Tensor, Tensor]:
        layer = layer_of(shape.outputs, shape.inputs)
        x = variant.random(shape.tokens, shape.inputs, device=device, generator=generator)
        bias = torch.randn(shape.outputs, device=device, generator=generator).to(layer.out_dtype)
        return layer, x, bias

    def forward(shape: Shape) -> dict[str, Any]:
        layer, x, bias = values(shape)
        y = layer.linear(x, bias)
        again = layer.linear(x, bias)
        result = compare(y, product(layer, x, bias), TOLERANCES[variant.dtype, layer.out_dtype])
        result["same_bits"] = torch.equal(y, again)
        result["ok"] = result["ok"] and result["same_bits"]
        return result

    def views(shape: Shape) -> dict[str, Any]:
        layer, x, _ = values(shape)
        wide = x.new_empty(shape.tokens, 2 * shape.inputs)
        wide[:, : shape.inputs], wide[:, shape.inputs :] = x, x
        wrong = []
        for name, view in (("offset", wide[:, 1 : shape.inputs + 1]), ("strided", wide[::2, : shape.inputs])):
            if not torch.equal(layer.linear(view, None), layer.linear(view.contiguous(), None)):
                expected = product(layer, view, None)
                result = compare(
                    layer.linear(view, None), expected, TOLERANCES[variant.dtype, layer.out_dtype]
                )
                wrong += [] if result["ok"] else [name]
        return {"ok": not wrong, "wrong": wrong}

    def gradient(shape: Shape) -> dict[str, Any]:
        layer, x, bias = values(shape)
        x.requires_grad_()
        grad = torch.randn(shape.tokens, shape.outputs, device=device, generator=generator).to(
            layer.out_dtype
        )
        (got,) = torch.autograd.grad(layer.linear(x, bias), x, grad)
        return compare(
            got, grad.double() @ layer.weight.double(), 2 * TOLERANCES[variant.dtype, variant.dtype]
        )

    sizes = (variant.small,) if small else LAYERS
    for outputs, inputs in sizes:
        for tokens in SMALL_TOKENS if small else TOKENS:
            shape = Shape(outputs, inputs, tokens)
            yield Case(f"{variant.name}, {shape}", lambda shape=shape: forward(shape))
    ragged = variant.small if small else variant.ragged
    for tokens in SMALL_TOKENS[1:2] if small else (1, 77, 515):
        shape = Shape(*ragged, tokens)
        yield Case(f"{variant.name}, ragged {shape}", lambda shape=shape: forward(shape))
    shape = Shape(*ragged, 8 if small else 130)
    yield Case(f"{variant.name}, views, {shape}", lambda: views(shape))
    if variant.differentiable:
        other = Shape(*(variant.small if small else LAYERS[0]), 9 if small else 300)
        yield Case(f"{variant.name}, gradient of x, {other}", lambda: gradient(other))


def cases(device: str, small: bool, families: tuple[Family, ...] = FAMILIES) -> Iterator[Case]:
    """Everything to check, family by family; one whose operators are missing is one failing case."""
    for family in families:
        if not family.built(device):
            missing = f"one of {', '.join(family.operators)} has no kernel for {device} tensors"
            yield Case(f"{family.name}: operators", lambda missing=missing: {"ok": False, "wrong": missing})
            continue
        for check in family.checks:

            def run(check=check) -> dict[str, Any]:
                wrong = check.holds(device, small)
                return {"ok": not wrong, "wrong": wrong}

            yield Case(f"{family.name}: {check.name}", run)
        for variant in family.variants:
            yield from layer_cases(variant, device, small)


def main() -> None:
    import sparsecore  # noqa: F401  (defines the operators)

    device = "cuda"
    if emulated := os.environ.get("SPARSECORE_CUDA_EMULATED"):
        torch.ops.load_library(emulated)
        device = "cpu"
    torch.manual_seed(0)
    failed = 0
    families = tuple(family for family in FAMILIES if not sys.argv[1:] or family.name in sys.argv[1:])
    for case in cases(device, small=True, families=families):
        result = case.run()
        failed += not result["ok"]
        print(f"{'ok' if result['ok'] else 'WRONG'}  {case.name}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
