"""Dense operators of image networks against torch, on every instruction set this machine has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sparsecore import ops, reference
from tests.cases import difference

WINDOWS: list[tuple[tuple[int, int], dict[str, Any]]] = [
    ((3, 3), {"stride": (1, 1), "padding": (1, 1, 1, 1)}),
    ((3, 3), {"stride": (2, 2), "padding": (0, 0, 1, 1)}),
    ((5, 5), {"stride": (2, 2), "padding": (2, 2, 2, 2)}),
    ((3, 5), {"stride": (1, 2), "padding": (2, 4, 1, 0), "dilation": (2, 1)}),
]


def _integers(*shape: int) -> Tensor:
    return torch.randint(-4, 5, shape).float()


def _padded(image: Tensor, window: dict[str, Any]) -> Tensor:
    top, left, bottom, right = window["padding"]
    return functional.pad(image, (left, right, top, bottom))


@pytest.mark.parametrize(("kernel", "window"), WINDOWS)
def test_depthwise_is_exact(isa: str, kernel: tuple[int, int], window: dict[str, Any]) -> None:
    for size in ((14, 14), (7, 7), (9, 35)):
        whole = _integers(2, 8, *size)
        weight, bias = _integers(5, 1, *kernel), _integers(5)
        for image in (
            whole[:, :5],
            whole[:, 1:6].contiguous(memory_format=torch.channels_last),
            whole[:, :5].contiguous(),
        ):
            got = ops.depthwise_conv2d(image, weight, bias, **window, activation="relu6")
            want = functional.conv2d(
                _padded(image, window),
                weight,
                bias,
                window["stride"],
                0,
                window.get("dilation", 1),
                5,
            )
            assert torch.equal(got, want.clamp(0, 6))


@pytest.mark.parametrize(("kernel", "window"), WINDOWS)
def test_stem_is_exact_in_both_layouts(isa: str, kernel: tuple[int, int], window: dict[str, Any]) -> None:
    image, weight, bias = _integers(2, 3, 21, 37), _integers(13, 3, *kernel), _integers(13)
    want = functional.conv2d(
        _padded(image, window), weight, bias, window["stride"], 0, window.get("dilation", 1)
    )
    for layout in (torch.contiguous_format, torch.channels_last):
        got = ops.stem_conv2d(
            image.contiguous(memory_format=layout), weight, bias, **window, activation="relu"
        )
        assert torch.equal(got, want.relu())


def test_squeeze_excite(isa: str) -> None:
    image = torch.randn(2, 40, 7, 9)
    weights = (torch.randn(6, 40), torch.randn(6), torch.randn(40, 6), torch.randn(40))
    got = ops.squeeze_excite(image, *weights, inner="silu", gate="hard_sigmoid")
    exact = reference.squeeze_excite(image.double(), *(w.double() for w in weights), "silu", "hard_sigmoid")
    assert difference(got, exact) < 1e-6


def test_gradients_are_those_of_torch() -> None:
    window = {"stride": (2, 1), "padding": (1, 2, 0, 1)}
    image = torch.randn(2, 3, 9, 11)
    cases: list[tuple[Any, Tensor, Any]] = [
        (ops.depthwise_conv2d, torch.randn(3, 1, 3, 3), reference.depthwise_conv2d),
        (ops.stem_conv2d, torch.randn(4, 3, 3, 3), reference.stem_conv2d),
    ]
    for operator, kernel, exact in cases:
        operands = [image, kernel, torch.randn(kernel.shape[0])]
        ours = [t.clone().requires_grad_() for t in operands]
        theirs = [t.double().requires_grad_() for t in operands]
        got = operator(*ours, **window)
        want = exact(*theirs, window["stride"], window["padding"], (1, 1))
        direction = torch.randn_like(got)
        got.backward(direction)
        want.backward(direction.double())
        for mine, right in zip(ours, theirs, strict=True):
            assert mine.grad is not None
            assert right.grad is not None
            assert difference(mine.grad, right.grad) < 1e-5
        with pytest.raises(RuntimeError, match="no gradient"):
            operator(*ours, **window, activation="relu")


def test_squeeze_excite_is_differentiable() -> None:
    operands = [torch.randn(1, 6, 4, 5), torch.randn(2, 6), torch.randn(2), torch.randn(6, 2), torch.randn(6)]
    doubles = [t.double().requires_grad_() for t in operands]
    assert torch.autograd.gradcheck(ops.squeeze_excite, doubles)
    singles = [t.requires_grad_() for t in operands]
    ops.squeeze_excite(*singles).sum().backward()
    assert all(t.grad is not None for t in singles)


def test_opcheck() -> None:
    sizes = ([1, 2], [1, 1, 1, 1], [1, 1])
    image = torch.randn(2, 3, 8, 9, requires_grad=True)
    torch.library.opcheck(
        torch.ops.sparsecore.depthwise_conv2d,
        (image, torch.randn(3, 1, 3, 3, requires_grad=True), torch.randn(3), *sizes, 0),
    )
    torch.library.opcheck(
        torch.ops.sparsecore.stem_conv2d,
        (image, torch.randn(5, 3, 3, 3, requires_grad=True), None, *sizes, 0),
    )
    torch.library.opcheck(
        torch.ops.sparsecore.squeeze_excite,
        (image.detach(), torch.randn(2, 3), None, torch.randn(3, 2), torch.randn(3), 1, 8),
    )


def test_compiles_whole() -> None:
    def block(image: Tensor, weight: Tensor) -> Tensor:
        return ops.depthwise_conv2d(image, weight, padding=(1, 1, 1, 1), activation="relu")

    image, weight = torch.randn(1, 4, 8, 8), torch.randn(4, 1, 3, 3)
    assert torch.equal(
        torch.compile(block, fullgraph=True, backend="aot_eager")(image, weight), block(image, weight)
    )


def test_errors_say_what_was_wrong() -> None:
    image = torch.randn(1, 4, 8, 8)
    with pytest.raises(RuntimeError, match=r"depthwise_conv2d: weight must be \(4, 1"):
        ops.depthwise_conv2d(image, torch.randn(3, 1, 3, 3))
    with pytest.raises(RuntimeError, match="depthwise_conv2d: input must be float32"):
        ops.depthwise_conv2d(image.half(), torch.randn(4, 1, 3, 3))
    with pytest.raises(RuntimeError, match="smaller than the kernel"):
        ops.depthwise_conv2d(image, torch.randn(4, 1, 9, 9))
    with pytest.raises(RuntimeError, match="Padding may be at most"):
        ops.depthwise_conv2d(image, torch.randn(4, 1, 3, 3), padding=(3, 0, 0, 0))
    with pytest.raises(RuntimeError, match="stem_conv2d: weight must be for 4 channels"):
        ops.stem_conv2d(image, torch.randn(8, 3, 3, 3))
    with pytest.raises(RuntimeError, match="squeeze_excite: weight1 must be"):
        ops.squeeze_excite(image, torch.randn(2, 3), None, torch.randn(4, 2), None)
