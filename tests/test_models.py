"""Whole models: conversion, reports, files."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import sparsecore as sc


def _model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64), nn.Linear(64, 10)).eval()


@pytest.mark.parametrize("pattern", ["2:4", "2:4/16", "16x1", "unstructured"])
def test_sparsify_and_densify(pattern: str) -> None:
    model, input = _model(), torch.randn(5, 64)
    sparsity = None if ":" in pattern else 0.5
    assert sc.sparsify_(model, pattern, lambda _, name: name != "3", sparsity=sparsity) is model
    assert isinstance(model[0], sc.nn.SparseLinear)
    assert isinstance(model[3], nn.Linear)
    with torch.no_grad():
        sparse = model(input)
        sc.densify_(model)
        assert isinstance(model[0], nn.Linear)
        assert torch.allclose(model(input), sparse, atol=1e-5)


def test_report_counts_real_bytes() -> None:
    model = sc.sparsify_(_model(), "2:4", lambda _, name: name != "3")
    found = sc.report(model)
    assert [layer.layout for layer in found.layers] == ["row_lists", "row_lists", "dense"]
    assert (
        found.nbytes
        == sum(layer.weight.nbytes for layer in model if isinstance(layer, sc.nn.SparseLinear)) + 2560
    )
    assert found.dense_bytes == 4 * (64 * 128 * 2 + 640)
    assert "2:4 (keeps 2 of every 4)" in str(found)
    assert found.to_dict()["nbytes"] == found.nbytes
    assert "<table>" in found._repr_html_()


def test_an_error_leaves_the_model_as_it_was() -> None:
    model = _model()
    with pytest.raises(ValueError, match="layer '2'"):
        sc.sparsify_(
            model, "2:4", masks={"0": torch.zeros(128, 64, dtype=torch.bool), "2": torch.ones(64, 128).bool()}
        )
    assert all(not isinstance(module, sc.nn.SparseLinear) for module in model)
    with pytest.raises(ValueError, match="not converted"):
        sc.sparsify_(model, "2:4", masks={"nowhere": torch.ones(1, 1).bool()})


def test_save_and_load(tmp_path: Path) -> None:
    path, input = tmp_path / "model.safetensors", torch.randn(5, 64)
    model = sc.sparsify_(_model(), "2:4/16", lambda _, name: name != "3")
    sc.save(model, path)
    for fresh in (_model(), sc.sparsify_(_model(), "1:4", lambda _, name: name == "0")):
        assert sc.load(fresh, path) is fresh
        with torch.no_grad():
            assert torch.equal(fresh(input), model(input))
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_tied_weights_are_saved_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 64, bias=False))
    model[2] = model[0]
    sc.sparsify_(model, "2:4")
    assert model[2] is model[0]
    sc.save(model, tmp_path / "tied.safetensors")
    assert (tmp_path / "tied.safetensors").stat().st_size < 1.5 * model[0].nbytes
    other = sc.sparsify_(
        nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 64, bias=False)), "2:4"
    )
    sc.load(other, tmp_path / "tied.safetensors")
    input = torch.randn(3, 64)
    assert torch.equal(other(input), model(input))


def test_damaged_files_are_refused_and_the_model_kept(tmp_path: Path) -> None:
    path, input = tmp_path / "model.safetensors", torch.randn(5, 64)
    sc.save(sc.sparsify_(_model(), "2:4"), path)
    whole = path.read_bytes()
    fresh = _model()
    with torch.no_grad():
        before = fresh(input)
        for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match="load: "):
                sc.load(fresh, path)
            assert torch.equal(fresh(input), before)
        start = whole.index(b"}}") + 2
        refused = 0
        for place in range(start, len(whole), max(1, (len(whole) - start) // 300)):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            trial = _model()
            try:
                sc.load(trial, path)
            except ValueError:
                refused += 1
            else:
                assert trial(input).shape == (5, 10)
        assert refused > 0
    with pytest.raises(FileNotFoundError):
        sc.load(fresh, tmp_path / "missing.safetensors")


def test_saving_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, model = tmp_path / "model.safetensors", sc.sparsify_(_model(), "2:4")
    sc.save(model, path)
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("sparsecore.io.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        sc.save(model, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_environment_and_backends() -> None:
    assert "torch" in sc.collect_env()
    rows = sc.backends()
    assert {row.op for row in rows} >= {
        "row_lists_linear",
        "shared_lists_linear",
        "nm_decode_linear",
        "bitmap_decode_linear",
    }
    with sc.cpu.use("scalar"):
        assert sc.cpu.isa() == "scalar"
        assert {row.isa for row in sc.backends() if row.usable} == {"scalar"}
    assert sc.cpu.isa() == sc.cpu.available()[-1]
    with pytest.raises(ValueError, match="no instruction set"):
        sc.cpu.use("avx1024")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("pattern", ["2:4", "channels", "unstructured"])
@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoders_of_torch(pattern: str, norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=norm_first)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first).eval()
    sc.sparsify_(model, pattern, sparsity=None if pattern == "2:4" else 0.5)
    dense = sc.densify_(copy.deepcopy(model))
    input, padding = torch.randn(3, 7, 32), torch.arange(7) >= torch.tensor([[7], [5], [4]])
    for options in ({}, {"src_key_padding_mask": padding}):
        with torch.no_grad():  # torch would hand all weights of a layer to one operator
            mine, theirs = model(input, **options), dense(input, **options)
        kept = ~padding if options else torch.ones(3, 7, dtype=torch.bool)
        assert torch.allclose(mine[kept], theirs[kept], atol=1e-5)
    with pytest.raises(TypeError, match=r"torch\.linear: a packed weight"):
        nn.functional.linear(torch.randn(3, 32), model.layers[0].linear1.weight)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weights_that_are_computed_at_each_call_are_up_to_date() -> None:
    for prepare in (
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        nn.utils.weight_norm,
    ):
        layer, input = nn.Linear(16, 8), torch.randn(3, 16)
        prepare(layer)
        with torch.no_grad():
            layer(input)
            for part in layer.parameters():
                part.mul_(2)  # a step: the weight of the layer is that of before
        packed = sc.sparsify_(nn.Sequential(layer), "unstructured")
        assert torch.allclose(packed(input), layer(input), atol=1e-5)


def test_convolutions_stay_dense_under_patterns_of_matrices() -> None:
    for pattern in ("n:16", "channels"):
        model = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(16, 16))
        sc.sparsify_(model, pattern, sparsity=0.5)
        assert [type(part) for part in model] == [nn.Conv2d, nn.Flatten, sc.nn.SparseLinear]


def test_a_layer_used_twice_is_loaded_as_one(tmp_path: Path) -> None:
    def model() -> nn.Sequential:
        layer = nn.Linear(32, 32)
        return nn.Sequential(layer, nn.ReLU(), layer)

    saved = sc.sparsify_(model(), "2:4")
    sc.save(saved, tmp_path / "model.safetensors")
    loaded, input = sc.load(model(), tmp_path / "model.safetensors"), torch.randn(3, 32)
    assert isinstance(loaded[0], sc.nn.SparseLinear) and loaded[0] is loaded[2]
    assert torch.equal(loaded(input), saved(input))
