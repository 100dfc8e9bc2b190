"""A text recognizer in plain torch: PP-OCRv6 small, with the weights that the package ``rapidocr`` ships as ONNX.

An image of one line of text becomes a sequence of character probabilities, one every eight pixels:

    stem            3 x 48 x W  ->  96 x 12 x W/4
    mixers          depthwise 3x3, then x + contract(gelu(expand(x))) for every pixel; two steps halve the height
    neck            mean over the height and pairs of columns, two transformer blocks of 120 channels
    head            120 -> characters, for a CTC decoder

Activations are kept channels-last, so that every 1x1 convolution is a linear layer over pixels: torch computes the same
either way, and linear layers are what can be pruned and packed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_FILE = Path("models", "PP-OCRv6_rec_small.onnx")


def _pixels(layer: nn.Module, x: Tensor) -> Tensor:
    """Applies a layer to the channels of each pixel of ``(batch, channels, height, width)``."""
    y: Tensor = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return y


class Stem(nn.Module):
    """``(batch, 3, 48, W)`` to ``(batch, 96, 12, W/4)``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 48, 3, 2, 1)
        self.narrow = nn.Conv2d(48, 24, 2)
        self.wide = nn.Conv2d(24, 48, 2)
        self.join = nn.Conv2d(96, 48, 3, 2, 1)
        self.out = nn.Linear(48, 96)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        detail = F.relu(self.narrow(F.pad(x, (0, 1, 0, 1))))
        detail = F.relu(self.wide(F.pad(detail, (0, 1, 0, 1))))
        largest = F.max_pool2d(
            F.pad(x, (0, 1, 0, 1)), 2, 1
        )  # zeros at the border are harmless: x is not negative
        x = F.relu(self.join(torch.cat([largest, detail], 1)))
        return F.relu(_pixels(self.out, x))


class Gate(nn.Module):
    """Squeeze and excite: scales channels by what the whole image says."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // 4)
        self.excite = nn.Linear(channels // 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.hardsigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        y: Tensor = x * scale[:, :, None, None]
        return y


class Mixer(nn.Module):
    """Depthwise convolution, a gate perhaps, then two linear layers over channels beside a residual."""

    def __init__(self, channels: int, gated: bool) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels)
        self.gate = Gate(channels) if gated else None
        self.expand = nn.Linear(channels, 2 * channels)
        self.activation: nn.Module = nn.GELU()
        self.contract = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(x)
        if self.gate is not None:
            x = self.gate(x)
        pixels = x.permute(0, 2, 3, 1)
        y: Tensor = pixels + self.contract(self.activation(self.expand(pixels)))
        return y.permute(0, 3, 1, 2)


class Halve(nn.Module):
    """Halves the height and doubles the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, (2, 1), 1, groups=channels)
        self.expand = nn.Linear(channels, 2 * channels)
        self.activation: nn.Module = nn.GELU()
        self.contract = nn.Linear(2 * channels, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.depthwise(x).permute(0, 2, 3, 1)
        y: Tensor = self.contract(self.activation(self.expand(pixels)))
        return y.permute(0, 3, 1, 2)


class Block(nn.Module):
    """Transformer block over columns, norms in front."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(channels, eps=1e-5)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.norm2 = nn.LayerNorm(channels, eps=1e-5)
        self.fc1 = nn.Linear(channels, 2 * channels)
        self.fc2 = nn.Linear(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, columns, channels = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, columns, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(0))
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, columns, channels))
        y: Tensor = x + self.fc2(F.silu(self.fc1(self.norm2(x))))
        return y


class Neck(nn.Module):
    """``(batch, 384, 3, W/4)`` to ``(batch, W/8, 120)``."""

    def __init__(self, channels: int = 384, hidden: int = 120) -> None:
        super().__init__()
        self.beside = nn.Linear(channels, hidden, bias=False)
        self.beside_norm = nn.BatchNorm1d(hidden, eps=1e-5)
        self.enter = nn.Linear(channels, hidden, bias=False)
        self.enter_norm = nn.BatchNorm1d(hidden, eps=1e-5)
        self.along = nn.Conv1d(hidden, hidden, 7, 1, 3, groups=hidden, bias=False)
        self.along_norm = nn.BatchNorm1d(hidden, eps=1e-5)
        self.blocks = nn.Sequential(Block(hidden, 8), Block(hidden, 8))
        self.norm = nn.LayerNorm(hidden, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, (3, 2)).squeeze(2).transpose(1, 2)
        beside = F.silu(self.beside_norm(self.beside(x).transpose(1, 2)))
        inner = F.silu(self.enter_norm(self.enter(x).transpose(1, 2)))
        inner = inner + F.silu(self.along_norm(self.along(inner)))
        inner = self.norm(self.blocks(inner.transpose(1, 2)))
        y: Tensor = inner + beside.transpose(1, 2)
        return y


class Recognizer(nn.Module):
    """Lines of text, ``(batch, 3, 48, width)`` in [-1, 1], to logits ``(batch, width / 8, characters)``.

    Args:
        characters: Number of classes; class 0 is the blank of CTC.
    """

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.stem = Stem()
        self.body = nn.Sequential(
            *(Mixer(96, gated) for gated in (True, False, False)),
            Halve(96),
            *(Mixer(192, gated) for gated in (True, False) * 3),
            Halve(192),
            *(Mixer(384, gated) for gated in (True, False)),
        )
        self.neck = Neck()
        self.head = nn.Linear(120, characters)

    def forward(self, image: Tensor) -> Tensor:
        x = self.body(self.stem(image.contiguous(memory_format=torch.channels_last)))
        logits: Tensor = self.head(self.neck(x))
        return logits


def onnx_file() -> Path:
    """Where the package keeps the network.

    Raises:
        ModuleNotFoundError: The package is not installed.
    """
    found = importlib.util.find_spec("rapidocr")
    if found is None or found.origin is None:
        raise ModuleNotFoundError(
            "demo: the recognizer's weights come with rapidocr. pip install --no-deps rapidocr==3.10.0"
        )
    return Path(found.origin).parent / _FILE


def characters() -> list[str]:
    """What class 1, 2, ... stand for; the last is the space."""
    import onnx

    properties = onnx.load(onnx_file(), load_external_data=False).metadata_props
    return [*next(each.value for each in properties if each.key == "character").split("\n"), " "]


def recognizer_model() -> Recognizer:
    """The network with its weights, in eval mode. Needs no network connection.

    Raises:
        ValueError: The file holds another network.
    """
    weights = _weights_in_order()
    model = Recognizer(len(characters()) + 1)
    for name, target in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        value = next(weights, torch.empty(0))
        value = value.T if value.dim() == target.dim() == 2 else value
        if value.numel() != target.numel():
            raise ValueError(
                f"recognizer_model: {name} needs {tuple(target.shape)}, {_FILE.name} has {tuple(value.shape)} there. "
                "Install rapidocr==3.10.0."
            )
        target.copy_(value.reshape(target.shape))
    return model.eval()


def _weights_in_order() -> Iterator[Tensor]:
    """The floating constants of the graph in the order they are used in, which is the order of the modules above."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(onnx_file()).graph
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        for name in node.input:
            if name in constants and constants[name].data_type == onnx.TensorProto.FLOAT:
                value = torch.from_numpy(numpy_helper.to_array(constants[name]).copy())
                if value.numel() > 1:
                    yield value


def write_without_softmax(path: Path) -> None:
    """Copies the published network, with logits as its result: what :class:`Recognizer` computes, and no more."""
    import onnx

    model = onnx.load(onnx_file())
    last = model.graph.node[-1]
    if last.op_type != "Softmax":
        raise ValueError(
            f"write_without_softmax: {_FILE.name} ends in {last.op_type}. Install rapidocr==3.10.0."
        )
    model.graph.output[0].name = last.input[0]
    del model.graph.node[-1]
    onnx.save(model, path)
