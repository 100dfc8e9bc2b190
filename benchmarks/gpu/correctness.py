"""Every operator against float64 torch: sizes as in use, ragged ones, views, gradients, and the same bits twice.

python -m benchmarks.gpu.correctness      small cases on the GPU, for compute-sanitizer: fails where one is wrong
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .families import FAMILIES
from .families.base import (
    TOLERANCES,
    Family,
    Layer,
    Shape,
    Variant,
    asking_for,
    device_has,
    relative_error,
)

LAYERS = ((4096, 4096), (14336, 4096))
TOKENS = (1, 8, 33, 256, 1000, 4096)
SMALL_TOKENS = (1, 7, 40)


@dataclass(frozen=True)
class Case:
    """One question; ``run`` returns what the record keeps, ``ok`` among it. ``value`` 0 is asked first."""

    name: str
    run: Callable[[], dict[str, Any]]
    group: str = ""
    value: int = 0


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

    def seeded(seed: int) -> torch.Generator:
        """A case's numbers are its own, whatever ran before it in the process."""
        return torch.Generator(device).manual_seed(seed)

    def values(shape: Shape) -> tuple[Layer, Tensor, Tensor]:
        layer, generator = variant.layer(shape.outputs, shape.inputs, device), seeded(1)
        x = variant.random(shape.tokens, shape.inputs, device=device, generator=generator)
        bias = torch.randn(shape.outputs, device=device, generator=generator).to(layer.out_dtype)
        return layer, x, bias

    def forward(shape: Shape, kernel: str = "") -> dict[str, Any]:
        layer, x, bias = values(shape)
        linear = asking_for(kernel, layer.linear)
        y = linear(x, bias)
        again = linear(x, bias)
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
        grad = torch.randn(shape.tokens, shape.outputs, device=device, generator=seeded(2))
        grad = grad.to(layer.out_dtype)
        (got,) = torch.autograd.grad(layer.linear(x, bias), x, grad)
        return compare(
            got, grad.double() @ layer.weight.double(), 2 * TOLERANCES[variant.dtype, variant.dtype]
        )

    def gradient_of_values(shape: Shape) -> dict[str, Any]:
        """What is not kept has no gradient; a kept zero has one."""
        layer, x, _ = values(shape)
        assert layer.values is not None and layer.trained is not None and layer.spread is not None
        own = layer.values.detach().requires_grad_()
        y = layer.trained(x, own)
        grad = torch.randn(y.shape, device=device, generator=seeded(2)).to(layer.out_dtype)
        (got,) = torch.autograd.grad(y, own, grad)
        kept = layer.spread(torch.ones_like(own)) != 0
        expected = torch.where(kept, grad.double().T @ x.double(), 0.0)
        return compare(layer.spread(got), expected, 2 * TOLERANCES[variant.dtype, variant.dtype])

    def named(what: str, shape: Shape) -> str:
        return ", ".join(filter(None, (variant.name, what, str(shape))))

    first, *others = (variant.small,) if small else LAYERS
    ragged = variant.small if small else variant.ragged
    few, some = (SMALL_TOKENS[0], SMALL_TOKENS[-1]) if small else (8, 256)
    # The first of each kind at once; more of a kind later.
    urgent = [("", Shape(*first, few), forward), ("", Shape(*first, some), forward)]
    urgent.append(("ragged", Shape(*ragged, SMALL_TOKENS[1] if small else 77), forward))
    if variant.differentiable:
        urgent.append(("gradient of x", Shape(*first, 9 if small else 300), gradient))
    for what, shape, run in urgent:
        yield Case(named(what, shape), lambda run=run, shape=shape: run(shape))
    if variant.values_are_trained:
        shape = Shape(*(first if small else ragged), 9 if small else 300)
        yield Case(named("gradient of values", shape), lambda shape=shape: gradient_of_values(shape), value=1)
    shape = Shape(*ragged, 8 if small else 130)
    yield Case(named("views", shape), lambda shape=shape: views(shape), value=1)
    for kernel in device_has(variant.kernels, device):
        # What the chooser would not ask of a kernel, as far as it goes.
        for tokens in (few,) if "small" in kernel else (some,):
            shape = Shape(*(variant.small_aligned if small else first), tokens)
            yield Case(
                named(kernel, shape), lambda shape=shape, kernel=kernel: forward(shape, kernel), value=1
            )
    if small:  # the urgent ones have been all
        return
    shapes = [Shape(*layer, tokens) for layer in (first, *others) for tokens in TOKENS]
    shapes += [Shape(*ragged, tokens) for tokens in (1, 515)]
    for shape in shapes:
        if ("", shape, forward) not in urgent:
            what = "ragged" if (shape.outputs, shape.inputs) == variant.ragged else ""
            yield Case(named(what, shape), lambda shape=shape: forward(shape), value=2)


def cases(device: str, small: bool, families: tuple[Family, ...] = FAMILIES) -> list[Case]:
    """Everything to check, the most telling first; a family whose operators are missing is one failing case."""

    def found() -> Iterator[Case]:
        for family in families:
            if not family.built(device):
                missing = f"one of {', '.join(family.operators)} has no kernel for {device} tensors"
                yield Case(
                    f"{family.name}: operators", lambda missing=missing: {"ok": False, "wrong": missing}
                )
                continue
            for check in family.checks:

                def run(check=check) -> dict[str, Any]:
                    wrong = check.holds(device, small)
                    return {"ok": not wrong, "wrong": wrong}

                yield Case(f"{family.name}: {check.name}", run, family.name)
            for variant in family.variants_on(device):
                for case in layer_cases(variant, device, small):
                    yield replace(case, group=family.name)

    return sorted(found(), key=lambda case: case.value)


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
