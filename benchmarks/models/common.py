"""What the networks share: convolution with batch norm, squeeze and excitation, channel rounding, initial weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Activation = Callable[[], nn.Module]


def conv_norm(
    channels: int,
    out_channels: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = nn.ReLU,
    eps: float = 1e-5,
) -> nn.Sequential:
    """Convolution without bias, batch norm, activation; the size is kept, or divided by the stride, rounded up."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels, eps=eps),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


class SqueezeExcite(nn.Module):
    """Scales every channel by a gate that is computed from the mean of all channels (Hu et al., 2018)."""

    def __init__(self, channels: int, squeezed: int, inner: Activation, gate: Activation) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.inner = nn.Conv2d(channels, squeezed, 1), inner()
        self.expand, self.gate = nn.Conv2d(squeezed, channels, 1), gate()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.inner(self.reduce(self.pool(x)))))


def divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of ``divisor``, never more than a tenth below ``channels``."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def initialize_(model: nn.Module, seed: int) -> nn.Module:
    """Normal weights of variance 2 / fan-out (He et al., 2015), small for the classifier; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels / module.groups
                module.weight.normal_(0, (2 / fan_out) ** 0.5, generator=generator)
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5, generator=generator)
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                module.bias.zero_()
    return model.eval()


def calibrate_(model: nn.Module, size: int = 96, images: int = 8, seed: int = 0) -> nn.Module:
    """Gives batch norms the statistics of random images, so that activations neither vanish nor explode; eval mode."""
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    channels = next(module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of what is seen
    model.train()
    with torch.no_grad():
        model(torch.randn(images, channels, size, size, generator=generator))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()
