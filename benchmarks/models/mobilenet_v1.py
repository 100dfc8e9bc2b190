"""MobileNetV1 (Howard et al., 2017, table 1): depthwise separable convolutions, 4 231 976 parameters."""

from __future__ import annotations

from torch import Tensor, nn

from models.common import conv_norm, initialize_

# output channels and stride of each separable convolution
LAYERS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]


class MobileNetV1(nn.Module):
    """``(batch, 3, 224, 224)`` to ``(batch, num_classes)``."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv_norm(3, 32, kernel=3, stride=2)]
        channels = 32
        for out_channels, stride in LAYERS:
            layers.append(conv_norm(channels, channels, kernel=3, stride=stride, groups=channels))
            layers.append(conv_norm(channels, out_channels))
            channels = out_channels
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


def mobilenet_v1(num_classes: int = 1000, seed: int = 0) -> nn.Module:
    """With random weights, in eval mode."""
    return initialize_(MobileNetV1(num_classes), seed)
