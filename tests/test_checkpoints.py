"""Files that lie, or belong to another model: refused with a reason, and the model stays as it was to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import sparsecore as sc

State = dict[str, Tensor]


def _dense() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 3))


def _packed(pattern: str = "2:4", layout: str = "auto", dtype: torch.dtype | None = None) -> nn.Sequential:
    model = _dense()
    sparsity = None if ":" in pattern else 0.5
    model[0] = sc.nn.SparseLinear.from_dense(model[0], pattern, sparsity=sparsity, layout=layout, dtype=dtype)
    return model


def _described(state: State, **changed: Any) -> State:
    """A state dict whose first layer describes itself otherwise."""
    described = json.loads(bytes(state["0._extra_state"].tolist())) | changed
    return state | {"0._extra_state": torch.tensor(list(json.dumps(described).encode()), dtype=torch.uint8)}


def _kept(model: nn.Module) -> tuple[list[str], State]:
    return [repr(part) for part in model.modules()], {k: v.clone() for k, v in model.state_dict().items()}


def _assert_refused(state: State, path: Path, words: str, metadata: dict[str, str] | None = None) -> None:
    """Into a dense model, and into one that is packed already."""
    save_file({key: tensor.clone() for key, tensor in state.items()}, path, metadata=metadata)
    for model in (_dense(), _packed()):
        modules, before = _kept(model)
        with pytest.raises(ValueError, match=words) as raised:
            sc.load(model, path)
        assert str(path) in str(raised.value)
        again, after = _kept(model)
        assert again == modules and after.keys() == before.keys()
        assert all(torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(
    ("pattern", "layout", "claimed"),
    [
        ("unstructured", "row_lists", "2:4"),
        ("2:4", "row_lists", "1:4"),
        ("2:4", "row_lists", "64:2:8"),
        ("2:4", "row_lists", "1x4"),
        ("2:4/16", "shared_lists", "1:4/16"),
        ("2:4/16", "shared_lists", "2:4/64"),
        ("16x1", "shared_lists", "64x1"),
        ("4x4", "group_lists", "4x8"),
        ("unstructured", "bitmap_decode", "4x4"),
        ("16x16", "block_sparse", "32x32"),
        ("16:2:8", "vnm", "16:2:9"),
        ("channels", "channels", "2:4"),
        ("2:4", "nm_decode", "2:5"),
    ],
)
def test_a_pattern_that_the_tensors_do_not_follow(
    pattern: str, layout: str, claimed: str, tmp_path: Path
) -> None:
    state = _packed(pattern, layout).state_dict()
    _assert_refused(_described(state, pattern=claimed), tmp_path / "model.safetensors", layout)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"compute": "int8"}, "int8 values"),
        ({"compute": []}, "compute type"),
        ({"activation": ["relu"]}, "activation"),
        ({"activation": {}}, "activation"),
        ({"pattern": [2, 4]}, "pattern"),
        ({"shape": [48, 10**30]}, "shape"),
    ],
)
def test_descriptions_that_make_no_sense(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    _assert_refused(_described(_packed().state_dict(), **changed), tmp_path / "model.safetensors", words)


def test_a_description_nested_without_end(tmp_path: Path) -> None:
    state = _packed().state_dict() | {"0._extra_state": torch.full((100_000,), ord("["), dtype=torch.uint8)}
    _assert_refused(state, tmp_path / "model.safetensors", "readable JSON")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda bias: bias[:-1], "bias"),
        (lambda bias: bias.unsqueeze(0), "bias"),
        (lambda bias: None, "bias"),
    ],
)
def test_biases(damage: Callable[[Tensor], Tensor | None], words: str, tmp_path: Path) -> None:
    state = _packed().state_dict()
    bias = damage(state.pop("0.bias"))
    _assert_refused(
        state if bias is None else state | {"0.bias": bias}, tmp_path / "model.safetensors", words
    )


def test_a_bias_must_be_a_floating_vector() -> None:
    weight = sc.pack(torch.randn(8, 16), "2:4")
    convolution = sc.pack(torch.randn(8, 16), "2:4", layout="group_lists")
    for bias in (
        torch.randn(7),
        torch.randn(1, 8),
        torch.ones(8, dtype=torch.int64),
        torch.randn(8).double(),
    ):
        with pytest.raises(ValueError, match=r"SparseLinear\.from_packed: bias must be \(8,\)"):
            sc.nn.SparseLinear.from_packed(weight, bias)
        with pytest.raises(ValueError, match=r"SparseConv2d\.from_packed: bias must be \(8,\)"):
            sc.nn.SparseConv2d.from_packed(convolution, bias, kernel_size=1)


def test_a_bias_that_the_model_has_not_is_refused_unless_it_may_differ(tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", _packed()
    sc.save(model, path)
    bare = _dense()
    bare[0] = nn.Linear(64, 48, bias=False)
    with pytest.raises(ValueError, match="a bias, the model's layer has none"):
        sc.load(bare, path)
    assert type(bare[0]) is nn.Linear
    assert torch.equal(sc.load(bare, path, strict=False)[0].bias, model[0].bias)
    save_file({k: v for k, v in model.state_dict().items() if k != "0.bias"}, path)
    own = _dense()
    kept = own[0].bias.detach().clone()
    assert torch.equal(sc.load(own, path, strict=False)[0].bias, kept)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda state: {k: v for k, v in state.items() if k != "2.bias"}, "Missing"),
        (lambda state: state | {"2.scale": torch.ones(3)}, "Unexpected"),
        (lambda state: state | {"0.weight_places": torch.ones(3)}, "Unexpected"),
        (lambda state: state | {"2.weight": torch.ones(3, 47)}, "size mismatch"),
        (lambda state: {k: v for k, v in state.items() if k != "0._extra_state"}, r"0\.weight|_extra_state"),
    ],
)
def test_files_of_another_model_leave_nothing_half_loaded(
    damage: Callable[[State], State], words: str, tmp_path: Path
) -> None:
    _assert_refused(damage(_packed().state_dict()), tmp_path / "model.safetensors", words)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"sparsecore": "2"}, "version '2'"),
        ({"sparsecore.alias.2.bias": "0.bias"}, "says that it is 0.bias"),
        ({"sparsecore.alias.3.bias": "4.bias"}, "does not hold"),
    ],
)
def test_metadata(metadata: dict[str, str], words: str, tmp_path: Path) -> None:
    _assert_refused(_packed().state_dict(), tmp_path / "model.safetensors", words, metadata)


def test_a_layer_refuses_a_bias_of_another_shape_and_stays_as_it_was() -> None:
    layer, other = _packed()[0], _packed("1:4")[0]
    before = layer.weight.to_dense()
    with pytest.raises(RuntimeError, match="a bias of shape"):
        layer.load_state_dict(other.state_dict() | {"bias": torch.zeros(47)})
    assert torch.equal(layer.weight.to_dense(), before) and layer.pattern == sc.NM(2, 4)
    with pytest.raises(RuntimeError, match="weight_values must be a tensor"):
        layer.load_state_dict(other.state_dict() | {"weight_values": [1.0]})


def test_moving_a_weight_that_breaks_its_pattern_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from sparsecore.formats.layouts import ORDER, Row

    lying = replace(sc.pack(torch.randn(8, 16), "unstructured"), pattern=sc.NM(2, 4))
    monkeypatch.setitem(ORDER, "cpu", (Row("nm_decode", lambda pattern: True),))
    with pytest.raises(ValueError, match="placed: the pattern is said to be 2:4"):
        sc.formats.placed(lying, "cpu")


@pytest.mark.parametrize("layout", ["row_lists", "nm_decode", "semi_structured"])
def test_two_ways(layout: str, tmp_path: Path) -> None:
    one, both = sc.NM(2, 4), sc.NM(2, 4, two_way=True)
    weight = torch.randn(8, 16)
    for pattern, mask in ((both, None), (both, torch.eye(8, 16, dtype=torch.bool))):
        packed = sc.pack(weight, pattern, mask, layout=layout)
        sc.formats.from_tensors(layout, packed.shape, both, packed.tensors(), packed.attributes())
    packed = sc.pack(weight, one, layout=layout)
    with pytest.raises(ValueError, match="breaks it at row 0, column 0"):
        sc.formats.from_tensors(layout, packed.shape, both, packed.tensors(), packed.attributes())


def test_int8_products_of_a_gpu_become_float32_ones_on_a_cpu() -> None:
    packed = sc.pack(torch.randn(48, 64), "2:4", dtype=torch.int8, layout="semi_structured")
    there = sc.nn.SparseLinear.from_packed(packed, torch.randn(48), compute_dtype=torch.int8)
    here, input = sc.nn.SparseLinear(64, 48, pattern="2:4"), torch.randn(3, 64)
    here.load_state_dict(there.state_dict())
    again = sc.nn.SparseLinear(64, 48, pattern="2:4")
    again.load_state_dict(here.state_dict())
    for layer in (here, again):
        assert (layer.layout, layer.compute_dtype) == ("row_lists", torch.int8)
        with torch.no_grad():
            assert torch.allclose(layer(input), input @ packed.to_dense().T + there.bias, atol=1e-4)
