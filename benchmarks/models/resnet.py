"""ResNet-50 (He et al., 2016, table 1), the stride in the 3x3 convolutions: 25 557 032 parameters."""

from __future__ import annotations

from torch import Tensor, nn

from models.common import conv_norm, initialize_

# bottlenecks and inner channels of each stage
STAGES = [(3, 64), (4, 128), (6, 256), (3, 512)]
EXPANSION = 4


class Bottleneck(nn.Module):
    """Reduces, filters, expands; the input, projected where shapes differ, is added before the last activation."""

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        out_channels = inner * EXPANSION
        self.layers = nn.Sequential(
            conv_norm(channels, inner),
            conv_norm(inner, inner, kernel=3, stride=stride),
            conv_norm(inner, out_channels, activation=None),
        )
        same = stride == 1 and channels == out_channels
        self.shortcut = (
            nn.Identity() if same else conv_norm(channels, out_channels, stride=stride, activation=None)
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.layers(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """``(batch, 3, 224, 224)`` to ``(batch, num_classes)``."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        channels = 64
        layers: list[nn.Module] = [
            conv_norm(3, channels, kernel=7, stride=2),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        for stage, (repeats, inner) in enumerate(STAGES):
            for repeat in range(repeats):
                layers.append(Bottleneck(channels, inner, 2 if stage and not repeat else 1))
                channels = inner * EXPANSION
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


def resnet50(num_classes: int = 1000, seed: int = 0) -> nn.Module:
    """With random weights, in eval mode."""
    return initialize_(ResNet50(num_classes), seed)
