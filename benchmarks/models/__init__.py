"""Image networks for measurements, in plain torch, with random weights whose activations look like a trained net's."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from models.common import calibrate_
from models.efficientnet import efficientnet_b0
from models.mobilenet_v1 import mobilenet_v1
from models.mobilenet_v2 import mobilenet_v2
from models.mobilenet_v3 import mobilenet_v3_small
from models.prune import prunable, prune_
from models.resnet import resnet50

__all__ = [
    "MODELS",
    "calibrate_",
    "efficientnet_b0",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "prunable",
    "prune_",
    "resnet50",
]

# By name, each called with num_classes and seed.
MODELS: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3_small": mobilenet_v3_small,
    "efficientnet_b0": efficientnet_b0,
    "resnet50": resnet50,
}
