"""MobileNetV2 (Sandler et al., 2018, table 2): inverted residuals, 3 504 872 parameters."""

from __future__ import annotations

from torch import Tensor, nn

from models.common import conv_norm, initialize_

# expansion, output channels, repeats, stride of the first
STAGES = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


class InvertedResidual(nn.Module):
    """Expands, filters every channel, projects without an activation; adds the input where shapes allow."""

    def __init__(self, channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.adds = stride == 1 and channels == out_channels
        expand = [conv_norm(channels, hidden, activation=nn.ReLU6)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            conv_norm(hidden, hidden, kernel=3, stride=stride, groups=hidden, activation=nn.ReLU6),
            conv_norm(hidden, out_channels, activation=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class MobileNetV2(nn.Module):
    """``(batch, 3, 224, 224)`` to ``(batch, num_classes)``."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        channels = 32
        layers: list[nn.Module] = [conv_norm(3, channels, kernel=3, stride=2, activation=nn.ReLU6)]
        for expansion, out_channels, repeats, stride in STAGES:
            for repeat in range(repeats):
                layers.append(InvertedResidual(channels, out_channels, 1 if repeat else stride, expansion))
                channels = out_channels
        layers.append(conv_norm(channels, 1280, activation=nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


def mobilenet_v2(num_classes: int = 1000, seed: int = 0) -> nn.Module:
    """With random weights, in eval mode."""
    return initialize_(MobileNetV2(num_classes), seed)
