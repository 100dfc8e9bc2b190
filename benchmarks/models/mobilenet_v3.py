"""MobileNetV3-Small (Howard et al., 2019, table 2): hard swish, squeeze and excitation, 2 542 856 parameters."""

from __future__ import annotations

from torch import Tensor, nn

from models.common import SqueezeExcite, conv_norm, divisible, initialize_

EPS = 1e-3
# kernel, expanded channels, output channels, squeeze and excitation, activation, stride
BLOCKS = [
    (3, 16, 16, True, nn.ReLU, 2),
    (3, 72, 24, False, nn.ReLU, 2),
    (3, 88, 24, False, nn.ReLU, 1),
    (5, 96, 40, True, nn.Hardswish, 2),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 240, 40, True, nn.Hardswish, 1),
    (5, 120, 48, True, nn.Hardswish, 1),
    (5, 144, 48, True, nn.Hardswish, 1),
    (5, 288, 96, True, nn.Hardswish, 2),
    (5, 576, 96, True, nn.Hardswish, 1),
    (5, 576, 96, True, nn.Hardswish, 1),
]


class Bottleneck(nn.Module):
    """Expansion, depthwise convolution, gates, projection; adds the input where shapes allow."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        hidden: int,
        out_channels: int,
        gates: bool,
        activation: type[nn.Module],
        stride: int,
    ) -> None:
        super().__init__()
        self.adds = stride == 1 and channels == out_channels
        layers: list[nn.Module] = []
        if hidden != channels:
            layers.append(conv_norm(channels, hidden, activation=activation, eps=EPS))
        layers.append(conv_norm(hidden, hidden, kernel, stride, hidden, activation, EPS))
        if gates:
            layers.append(SqueezeExcite(hidden, divisible(hidden / 4), nn.ReLU, nn.Hardsigmoid))
        layers.append(conv_norm(hidden, out_channels, activation=None, eps=EPS))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class MobileNetV3Small(nn.Module):
    """``(batch, 3, 224, 224)`` to ``(batch, num_classes)``."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        channels = 16
        layers: list[nn.Module] = [conv_norm(3, channels, 3, 2, activation=nn.Hardswish, eps=EPS)]
        for kernel, hidden, out_channels, gates, activation, stride in BLOCKS:
            layers.append(Bottleneck(channels, kernel, hidden, out_channels, gates, activation, stride))
            channels = out_channels
        layers.append(conv_norm(channels, 6 * channels, activation=nn.Hardswish, eps=EPS))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(6 * channels, 1024), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(1024, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


def mobilenet_v3_small(num_classes: int = 1000, seed: int = 0) -> nn.Module:
    """With random weights, in eval mode."""
    return initialize_(MobileNetV3Small(num_classes), seed)
