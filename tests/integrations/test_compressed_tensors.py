"""Whole sparse-24-bitmask checkpoints: loaded completely, or not at all."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.formats import write_bitmask24
from sparsecore.integrations.compressed_tensors import load_bitmask24


class Network(nn.Module):
    """Two compressed layers, one of them used twice, a dense one that shares its weight with an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32, bias=False)
        self.again = self.up
        self.head = nn.Linear(32, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.down(self.up(self.embed(tokens)).relu())
        return self.head(self.down(self.again(hidden)))


def _checkpoint(seed: int = 1) -> tuple[Network, dict[str, Tensor]]:
    """A network with 2:4 weights and the tensors that compressed-tensors would write for it."""
    torch.manual_seed(seed)
    network, tensors = Network(), {}
    for name in ("up", "down"):
        packed = sc.pack(getattr(network, name).weight, "2:4")
        getattr(network, name).weight.data = packed.to_dense()
        tensors |= write_bitmask24(packed, f"{name}.weight")
    tensors["up.bias"], tensors["embed.weight"] = network.up.bias.detach(), network.embed.weight.detach()
    return network, tensors


def test_a_checkpoint_becomes_packed_layers(tmp_path: Path) -> None:
    source, tensors = _checkpoint()
    save_file(tensors, tmp_path / "model.safetensors")
    torch.manual_seed(2)
    model = load_bitmask24(Network().eval(), tmp_path / "model.safetensors")
    assert isinstance(model.up, sc.nn.SparseLinear)
    assert isinstance(model.down, sc.nn.SparseLinear)
    assert model.again is model.up
    assert type(model.head) is nn.Linear
    assert model.head.weight is model.embed.weight
    assert not model.up.training
    assert torch.equal(model.up.to_dense().weight, source.up.weight)
    tokens = torch.arange(20)
    (tmp_path / "model.safetensors").unlink()  # nothing is left mapped
    with torch.no_grad():
        assert torch.allclose(model(tokens), source(tokens), atol=1e-5)


def test_a_bare_linear_is_returned_converted(tmp_path: Path) -> None:
    packed, bias = sc.pack(torch.randn(16, 8).bfloat16(), "2:4"), torch.randn(16).bfloat16()
    save_file(write_bitmask24(packed, "") | {"bias": bias}, tmp_path / "layer.safetensors")
    layer = load_bitmask24(nn.Linear(8, 16), tmp_path / "layer.safetensors")
    assert isinstance(layer, sc.nn.SparseLinear)
    assert torch.equal(layer.weight.to_dense(), packed.to_dense())
    assert torch.equal(layer.bias, bias)


def test_files_of_one_checkpoint_load_one_after_the_other(tmp_path: Path) -> None:
    source, tensors = _checkpoint()
    for part in ("up", "down", "embed"):
        one = {key: tensor for key, tensor in tensors.items() if key.startswith(part)}
        save_file(one, tmp_path / f"{part}.safetensors")
    model = Network()
    with pytest.raises(ValueError, match="is missing"):
        load_bitmask24(model, tmp_path / "up.safetensors")
    for part in ("up", "down", "embed"):
        load_bitmask24(model, tmp_path / f"{part}.safetensors", strict=False)
    tokens = torch.arange(20)
    assert torch.allclose(model(tokens), source(tokens), atol=1e-5)


def _flip(tensor: Tensor) -> Tensor:
    changed = tensor.clone()
    changed[5, 2] ^= 1
    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"up.bitmask": _flip}, "read_bitmask24: up: the bitmask keeps [13] of 4 weights at row 5"),
        ({"up.compressed": None}, r"missing: up\.compressed"),
        ({"up.compressed": lambda t: t[:, 1:].contiguous()}, r"compressed must be torch\.float32 of shape"),
        ({"up.bias": None}, r"up\.bias is missing"),
        ({"up.bias": lambda t: t[1:].contiguous()}, r"up\.bias is \(63,\), the model's \(64,\)"),
        ({"embed.weight": lambda t: t[1:].contiguous()}, r"embed\.weight is \(19, 32\)"),
        ({"extra.weight": lambda t: torch.ones(1)}, r"extra\.weight is not in the model"),
        ({"down.shape": None, "down.compressed": None, "down.bitmask": None}, r"down\.weight is missing"),
        ({"gone.bitmask": lambda t: torch.zeros(1, 1).byte()}, "no module of that name"),
        ({"embed.bitmask": lambda t: torch.zeros(1, 1).byte()}, "and has Embedding"),
    ],
)
def test_what_does_not_fit_changes_nothing(tmp_path: Path, change: dict[str, object], message: str) -> None:
    _, tensors = _checkpoint()
    for key, edit in change.items():
        if edit is None:
            del tensors[key]
        else:
            tensors[key] = edit(tensors.get(key))  # type: ignore[operator]
    save_file(tensors, tmp_path / "model.safetensors")
    _refused(tmp_path / "model.safetensors", message)


def test_layers_of_another_size_change_nothing(tmp_path: Path) -> None:
    _, tensors = _checkpoint()
    tensors |= write_bitmask24(sc.pack(torch.randn(32, 60), "2:4"), "down")
    save_file(tensors, tmp_path / "model.safetensors")
    _refused(tmp_path / "model.safetensors", "layer 'down' is 32 x 60, the model's is 32 x 64")


def test_truncated_files_change_nothing(tmp_path: Path) -> None:
    _, tensors = _checkpoint()
    save_file(tensors, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "part.safetensors").write_bytes(whole[:length])
        _refused(tmp_path / "part.safetensors", "is not a complete safetensors file")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_bitmask24(Network(), tmp_path / "nowhere.safetensors")


def _refused(path: Path, message: str) -> None:
    model = Network()
    modules, before = dict(model.named_modules()), copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        load_bitmask24(model, path)
    assert dict(model.named_modules()) == modules
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])
