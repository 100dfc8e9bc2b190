"""Values too large for the cache run band by band: the same numbers as whole steps, in less memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sparsecore as sc


def _network(stride: int, kernel: int, seed: int) -> nn.Sequential:
    """A stem, expansions, depthwise and whole kernels; weights are small integers, so that every sum is exact."""
    pad = kernel // 2
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 48, 1),
        nn.Conv2d(48, 48, kernel, stride=stride, padding=pad, groups=48),
        nn.ReLU6(),
        nn.Conv2d(48, 40, 1, bias=False),
        nn.Conv2d(40, 8, 3, padding=1, dilation=1),
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-1, 2, parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("size", [(224, 224), (233, 199), (320, 97)])
@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (2, 5), (1, 5)])
def test_bands_are_exact(size: tuple[int, int], stride: int, kernel: int) -> None:
    model = _network(stride, kernel, seed=size[0] + kernel)
    image = torch.randint(-1, 2, (2, 3, *size)).float()
    network = sc.compile(model, image[:1])
    with torch.no_grad():
        expected = model(image)
    assert torch.equal(network(image), expected)
    largest = max(16 * 48, 1) * ((size[0] + 1) // 2) * ((size[1] + 1) // 2)
    assert network.arena_bytes < 4 * largest


def test_bands_have_the_same_bits_for_any_number_of_threads() -> None:
    image = torch.randn(1, 3, 224, 224)
    network = sc.compile(_network(2, 3, seed=1), image)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = network(image)
        torch.set_num_threads(2)
        assert torch.equal(network(image), one)
    finally:
        torch.set_num_threads(threads)
