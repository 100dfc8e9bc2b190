"""Makes the networks that the page runs, and what it says about them.

    python examples/browser/make_networks.py build/browser/networks

MobileNetV1 has random weights, pruned by magnitude without training: no trained one can be shipped, so that the page
shows what it costs and not what it recognises. A small network of the same kind is trained here on scikit-learn's
handwritten digits, dense, then pruned step by step to 90 %: it recognises what the visitor draws.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

import sparsecore as sc

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
from models import calibrate_, mobilenet_v1, prune_
from models.common import conv_norm

SPARSITY = 0.9
DENSE_EPOCHS, SPARSE_EPOCHS, BATCH = 15, 25, 64


class DigitNet(nn.Module):
    """``(batch, 1, 8, 8)`` to ``(batch, 10)``, depthwise separable convolutions as in MobileNet."""

    def __init__(self) -> None:
        super().__init__()
        layers = [conv_norm(1, 32, kernel=3)]
        for channels, out_channels, stride in ((32, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2)):
            layers += [
                conv_norm(channels, channels, 3, stride, groups=channels),
                conv_norm(channels, out_channels),
            ]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(x)).flatten(1))


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images in [0, 1] and labels, four fifths to train with and every fifth to test with."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    tests = torch.arange(len(labels)) % 5 == 0
    return images[~tests], labels[~tests], images[tests], labels[tests]


def moved(images: Tensor) -> Tensor:
    """A little turned, scaled and shifted, each its own way, as drawn digits are."""
    n = len(images)
    angle, scale = 0.15 * torch.randn(n), 1 + 0.1 * torch.randn(n)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    shift = 0.12 * torch.randn(2, n)
    theta = torch.stack([torch.stack([cos, -sin, shift[0]]), torch.stack([sin, cos, shift[1]])]).permute(
        2, 0, 1
    )
    return functional.grid_sample(
        images, functional.affine_grid(theta, list(images.shape), False), align_corners=False
    )


def train_(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float, sparse: bool) -> None:
    """Adam with a cosine schedule; where ``sparse``, zeros grow along a cubic over the first two thirds."""
    optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        progress = min(1.0, (epoch + 1) / (epochs * 2 / 3))
        for batch in torch.randperm(len(images)).split(BATCH):
            model.train()
            loss = functional.cross_entropy(model(moved(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if sparse:
                prune_(model, SPARSITY * (1 - (1 - progress) ** 3))
        schedule.step()
    model.eval()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.inference_mode():
        return (model(images).argmax(1) == labels).float().mean().item()


def write(
    folder: Path, key: str, title: str, model: nn.Module, example: Tensor, **facts: object
) -> dict[str, object]:
    path = folder / f"{key}.safetensors"
    sc.export_network(model, example, path)
    print(
        f"{path.name}: {path.stat().st_size / 1e6:.2f} MB",
        *(f"{name} {value}" for name, value in facts.items()),
    )
    return {"key": key, "title": title, "file": path.name, **facts}


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    image = torch.randn(1, 3, 224, 224)
    dense = calibrate_(mobilenet_v1(), 224)
    speed = [write(folder, "mobilenet_dense", "Dense", dense, image)]
    for key, title, rows in (
        ("mobilenet_unstructured", "90 % zeros", 1),
        ("mobilenet_4x1", "90 % zeros, groups 4x1", 4),
    ):
        speed.append(write(folder, key, title, prune_(copy.deepcopy(dense), SPARSITY, rows), image))

    train_images, train_labels, test_images, test_labels = digits()
    digit_net = DigitNet()
    train_(digit_net, train_images, train_labels, DENSE_EPOCHS, 4e-3, sparse=False)
    recognition = []
    for key, title, sparse in (("digits_dense", "Dense", False), ("digits_sparse", "90 % zeros", True)):
        if sparse:
            train_(digit_net, train_images, train_labels, SPARSE_EPOCHS, 2e-3, sparse=True)
        right = round(accuracy(digit_net, test_images, test_labels), 4)
        recognition.append(write(folder, key, title, digit_net, test_images[:1], accuracy=right))
    manifest = {"speed": speed, "recognition": recognition, "digit": test_images[3].flatten().tolist()}
    (folder / "networks.json").write_text(json.dumps(manifest), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
