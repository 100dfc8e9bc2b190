"""Whole sparse-24-bitmask folders: out, in, the same bits; anything else is refused and nothing half-written."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.integrations.compressed_tensors import load_folder, save_folder
from sparsecore.integrations.transformers import register

UP = "model.layers.0.mlp.up_proj"
IDS = torch.arange(20).view(2, 10)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(level)


def _model(**options: Any) -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(
        num_hidden_layers=2, vocab_size=100, attention_bias=True, tie_word_embeddings=True, **sizes
    )
    model = transformers.LlamaForCausalLM(config).eval()
    return sc.sparsify_(model, "2:4", lambda _, name: name != "lm_head", **options)


def _output(model: Any) -> Tensor:
    with torch.no_grad():
        return model(IDS)[0]


@pytest.mark.parametrize("shard", ["50GB", "20KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_bit_for_bit(tmp_path: Path, shard: str, dtype: torch.dtype) -> None:
    model = _model().to(dtype)
    model.model.rotary_emb = type(model.model.rotary_emb)(
        model.config
    )  # transformers keeps frequencies in float32
    save_folder(model, tmp_path / "out", max_shard_size=shard)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    again = load_folder(tmp_path / "out")
    assert type(again) is transformers.LlamaForCausalLM
    assert again.dtype == dtype
    assert isinstance(again.get_submodule(UP), sc.nn.SparseLinear)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(_output(again), _output(model))


def test_the_files_are_those_of_the_format(tmp_path: Path) -> None:
    model = _model()
    save_folder(model, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    linears = {name for name, layer in model.named_modules() if isinstance(layer, sc.nn.SparseLinear)}
    assert {key.removesuffix(".bitmask") for key in tensors if key.endswith(".bitmask")} == linears
    assert not any("weight_" in key or "_extra_state" in key for key in tensors)
    assert tensors[f"{UP}.shape"].tolist() == [[96], [64]]
    dense = torch.zeros(96, 64)
    bits = tensors[f"{UP}.bitmask"].unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8) & 1
    dense[bits.flatten(1).bool()] = tensors[f"{UP}.compressed"].flatten()
    assert torch.equal(dense, model.get_submodule(UP).to_dense().weight)
    block = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert block["quant_method"] == "compressed-tensors"
    assert block["sparsity_config"]["format"] == "sparse-24-bitmask"
    assert block["sparsity_config"]["ignore"] == ["lm_head"]
    kept = sum(
        layer.weight.values.numel() for layer in model.modules() if isinstance(layer, sc.nn.SparseLinear)
    )
    total = sum(p.numel() for p in sc.densify_(model).parameters())
    assert block["sparsity_config"]["global_sparsity"] == pytest.approx(kept / total, abs=1e-6)


def test_from_this_form_into_ours_and_back(tmp_path: Path) -> None:
    register()
    model = _model()
    save_folder(model, tmp_path / "theirs")
    load_folder(tmp_path / "theirs", transformers.AutoModelForCausalLM).save_pretrained(tmp_path / "ours")
    ours = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    save_folder(ours, tmp_path / "theirs", max_shard_size="30KB")  # over the first, in other files
    assert not (tmp_path / "theirs" / "model.safetensors").exists()
    assert ours.config.quantization_config.quant_method == "sparsecore"
    assert torch.equal(_output(load_folder(tmp_path / "theirs")), _output(model))
    bare = load_folder(tmp_path / "theirs", transformers.AutoModel)
    assert torch.equal(_output(bare), _output(model.model))
    save_folder(ours, tmp_path / "theirs")
    assert not list((tmp_path / "theirs").glob("*-of-*"))
    assert torch.equal(_output(load_folder(tmp_path / "theirs")), _output(model))


def test_an_error_while_saving_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    save_folder(model, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def fail(self: Any, folder: Path, **_: Any) -> None:
        (folder / "config.json").write_text("{}")
        raise OSError("no space left")

    monkeypatch.setattr(transformers.LlamaForCausalLM, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space left"):
        save_folder(_model(), tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="needs a transformers model"):
        save_folder(nn.Linear(4, 4), tmp_path)
    with pytest.raises(ValueError, match="no packed layer"):
        save_folder(sc.densify_(_model()), tmp_path)
    with pytest.raises(ValueError, match=r"no scales for torch\.int8"):
        save_folder(_model(dtype=torch.int8), tmp_path)
    model = sc.densify_(_model())
    sc.sparsify_(model, "unstructured", lambda _, name: name == UP, sparsity=0.1)
    with pytest.raises(ValueError, match=f"{UP}: .* keep more than 2 of 4"):
        save_folder(model, tmp_path)
    model = _model()
    model.get_submodule(UP).activation = "silu"
    with pytest.raises(ValueError, match=f"layer '{UP}' has the fused activation"):
        save_folder(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_partner_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setitem(sys.modules, "transformers.quantizers", None)
    monkeypatch.delitem(sys.modules, "sparsecore.integrations.transformers")
    for call in (lambda: load_folder(tmp_path), lambda: importlib.import_module(register.__module__)):
        with pytest.raises(ImportError, match=r"pip install 'sparsecore\[transformers\]'"):
            call()


def _sharded(folder: Path) -> Path:
    save_folder(_model(), folder, max_shard_size="20KB")
    return folder


def _edit_config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        change(content["quantization_config"])
        (folder / "config.json").write_text(json.dumps(content))

    return edit


def _edit_tensor(key: str, change: Callable[[Tensor], Tensor] | None) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        place = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][key]
        tensors = load_file(folder / place)
        stored = tensors.pop(key)
        save_file(
            tensors if change is None else tensors | {key: change(stored)}, folder / place, {"format": "pt"}
        )

    return edit


def _flip(tensor: Tensor) -> Tensor:
    changed = tensor.clone()
    changed[5, 2] ^= 1
    return changed


def _truncate(folder: Path) -> None:
    path = sorted(folder.glob("model-*"))[0]
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (_edit_config(lambda b: b.update(quant_method="gptq")), ValueError, "got 'gptq'"),
        (_edit_config(lambda b: b["sparsity_config"].update(format="dense")), ValueError, "with 'dense'"),
        (
            _edit_config(lambda b: b.update(config_groups={"group_0": {"weights": {"num_bits": 8}}})),
            ValueError,
            "is quantised or transformed beside its sparsity \\(group_0\\)",
        ),
        (
            _edit_tensor(f"{UP}.bitmask", _flip),
            ValueError,
            rf"read_bitmask24: {UP}: the bitmask keeps [13] of 4",
        ),
        (_edit_tensor(f"{UP}.compressed", None), ValueError, rf"missing: {UP}\.compressed"),
        (_edit_tensor(f"{UP}.shape", lambda t: t + 4), ValueError, f"{UP}: compressed must be"),
        (_truncate, ValueError, "is not a complete safetensors file"),
        (lambda folder: (folder / "config.json").write_text("{"), ValueError, "is not readable JSON"),
        (lambda folder: (folder / "config.json").unlink(), FileNotFoundError, "there is no file"),
        (lambda folder: sorted(folder.glob("model-*"))[1].unlink(), FileNotFoundError, "there is no file"),
        (
            lambda folder: (folder / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "../b"}}'
            ),
            ValueError,
            "outside of its folder",
        ),
    ],
)
def test_damaged_folders_are_refused(
    tmp_path: Path, edit: Callable[[Path], Any], error: type[Exception], message: str
) -> None:
    edit(_sharded(tmp_path))
    with pytest.raises(error, match=message):
        load_folder(tmp_path)
