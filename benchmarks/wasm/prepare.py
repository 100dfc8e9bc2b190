"""Writes MobileNetV1 for benchmarks/wasm/networks.mjs: ours dense and pruned, and the dense one for its peers.

    python benchmarks/wasm/prepare.py [folder]          build/wasm_networks where left out

    dense, unstructured_90, group4x1_90 .safetensors    network files of sparsecore.export_network
    mobilenet_v1.onnx                                   for onnxruntime-web (needs onnx and onnxscript)
    plain.safetensors                                   folded weights in order, for tfjs; an input and torch's output

Weights are random, with statistics like a trained network's: this is about time. Batch norms are folded for everyone.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import sparsecore as sc

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from models import calibrate_, mobilenet_v1, prune_

ROOT = Path(__file__).resolve().parents[2]
SIZE = 224
VARIANTS = {"dense": (0.0, 1), "unstructured_90": (0.9, 1), "group4x1_90": (0.9, 4)}


def folded(model: nn.Module) -> nn.Module:
    """A copy without batch norms."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[1], nn.BatchNorm2d):
            module[0] = fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()
    return model


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = mobilenet_v1()
    calibrate_(model, SIZE)
    image = torch.randn(1, 3, SIZE, SIZE)
    tensors = {"input": image.permute(0, 2, 3, 1).contiguous()}
    for name, (sparsity, rows) in VARIANTS.items():
        variant = folded(prune_(copy.deepcopy(model), sparsity, rows) if sparsity else model)
        sc.export_network(variant, image, folder / f"{name}.safetensors")
        with torch.inference_mode():
            tensors[f"output.{name}"] = variant(image)
        if name == "dense":
            layers = [m for m in variant.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
            for i, layer in enumerate(layers):
                tensors[f"{i}.weight"], tensors[f"{i}.bias"] = layer.weight, layer.bias
            torch.onnx.export(
                variant, (image,), folder / "mobilenet_v1.onnx", dynamo=True, external_data=False
            )
    save_file(
        {key: value.detach().contiguous() for key, value in tensors.items()}, folder / "plain.safetensors"
    )
    print(f"written: {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/wasm_networks")
