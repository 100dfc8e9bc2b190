"""EfficientNet-B0 (Tan and Le, 2019, table 1): gated inverted residuals with SiLU, 5 288 548 parameters."""

from __future__ import annotations

from torch import Tensor, nn

from models.common import SqueezeExcite, conv_norm, initialize_

# expansion, kernel, stride of the first, output channels, repeats
STAGES = [
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
]


class MBConv(nn.Module):
    """An inverted residual whose gates are computed from a quarter of the block's input channels."""

    def __init__(self, channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.adds = stride == 1 and channels == out_channels
        expand = [conv_norm(channels, hidden, activation=nn.SiLU)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            conv_norm(hidden, hidden, kernel, stride, hidden, nn.SiLU),
            SqueezeExcite(hidden, max(1, channels // 4), nn.SiLU, nn.Sigmoid),
            conv_norm(hidden, out_channels, activation=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.adds else self.layers(x)


class EfficientNetB0(nn.Module):
    """``(batch, 3, 224, 224)`` to ``(batch, num_classes)``."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        channels = 32
        layers: list[nn.Module] = [conv_norm(3, channels, kernel=3, stride=2, activation=nn.SiLU)]
        for expansion, kernel, stride, out_channels, repeats in STAGES:
            for repeat in range(repeats):
                layers.append(MBConv(channels, out_channels, kernel, 1 if repeat else stride, expansion))
                channels = out_channels
        layers.append(conv_norm(channels, 4 * channels, activation=nn.SiLU))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(4 * channels, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


def efficientnet_b0(num_classes: int = 1000, seed: int = 0) -> nn.Module:
    """With random weights, in eval mode."""
    return initialize_(EfficientNetB0(num_classes), seed)
