"""Folders pruned tensor by tensor are those that pruning the model in memory gives, and need no memory for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import sparsecore as sc
from sparsecore.cli.app import app
from sparsecore.integrations.prune_folder import prune_folder

transformers = pytest.importorskip("transformers")

from sparsecore.integrations.compressed_tensors import load_folder  # noqa: E402
from sparsecore.integrations.transformers import register  # noqa: E402

IDS = torch.arange(20).view(2, 10)
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    register()
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.set_verbosity(level)


def write(folder: Path, shard: str, dtype: torch.dtype = torch.float32, tied: bool = True) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(num_hidden_layers=2, vocab_size=100, tie_word_embeddings=tied, **SIZES)
    model = transformers.LlamaForCausalLM(config).to(dtype).eval()
    model.save_pretrained(folder, max_shard_size=shard)
    (folder / "tokenizer.json").write_text("{}")
    return transformers.AutoModelForCausalLM.from_pretrained(folder).eval()


def answer(model: Any) -> Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("shard", ["50GB", "20KB"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_in_memory(tmp_path: Path, shard: str, dtype: torch.dtype) -> None:
    model = write(tmp_path / "in", shard, dtype)
    done = prune_folder(tmp_path / "in", tmp_path / "out", sc.NM(2, 4))
    assert {each.layout for each in done} == {"row_lists"}
    sc.sparsify_(model, "2:4", lambda _, name: name != "lm_head")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    packed = [name for name, m in again.named_modules() if isinstance(m, sc.nn.SparseLinear)]
    assert sorted(packed) == sorted(each.name for each in done) and len(packed) == 14
    assert torch.equal(answer(again), answer(model))
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    index = tmp_path / "out" / "model.safetensors.index.json"
    assert index.exists() == (shard != "50GB")
    if index.exists():
        files = {path.name: path for path in (tmp_path / "out").glob("*.safetensors")}
        found = json.loads(index.read_text())
        assert set(found["weight_map"].values()) == set(files)
        headers = sum(8 + int.from_bytes(path.read_bytes()[:8], "little") for path in files.values())
        assert found["metadata"]["total_size"] == sum(p.stat().st_size for p in files.values()) - headers


def test_the_form_of_compressed_tensors(tmp_path: Path) -> None:
    model = write(tmp_path / "in", "20KB")
    prune_folder(tmp_path / "in", tmp_path / "out", sc.NM(2, 4), format="sparse-24-bitmask")
    sc.sparsify_(model, "2:4", lambda _, name: name != "lm_head")
    assert torch.equal(answer(load_folder(tmp_path / "out")), answer(model))
    block = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert block["sparsity_config"]["ignore"] == ["lm_head"]
    total = sum(parameter.numel() for parameter in write(tmp_path / "again", "50GB").parameters())
    zeros = sum(
        m.in_features * m.out_features // 2 for m in model.modules() if isinstance(m, sc.nn.SparseLinear)
    )
    assert block["sparsity_config"]["global_sparsity"] == pytest.approx(zeros / total, abs=1e-6)
    with pytest.raises(ValueError, match="holds 2:4 only"):
        prune_folder(tmp_path / "in", tmp_path / "o", sc.NM(1, 4), format="sparse-24-bitmask")


def test_values_of_another_dtype_than_the_config_states(tmp_path: Path) -> None:
    write(tmp_path / "in", "50GB", torch.bfloat16)
    path = tmp_path / "in" / "config.json"
    content = json.loads(path.read_text())
    content["dtype"] = "float32"
    path.write_text(json.dumps(content))
    prune_folder(tmp_path / "in", tmp_path / "out", sc.NM(2, 4))
    block = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert all(layer["dtype"] == "bfloat16" for layer in block["layers"].values())
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert again.model.layers[0].mlp.up_proj.weight_values.dtype == torch.bfloat16


def test_heads_and_ties(tmp_path: Path) -> None:
    write(tmp_path / "tied", "50GB")
    done = prune_folder(tmp_path / "tied", tmp_path / "out", sc.NM(2, 4), targets=["re:.*"], ignore=())
    assert not {"lm_head", "model.embed_tokens"} & {each.name for each in done}
    write(tmp_path / "own", "50GB", tied=False)
    done = prune_folder(tmp_path / "own", tmp_path / "out", sc.NM(2, 4), targets=["lm_head"], ignore=())
    assert [each.name for each in done] == ["lm_head"]
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert isinstance(again.lm_head, sc.nn.SparseLinear)


def test_matrices_that_are_no_linear_layers_stay(tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=50, n_positions=16)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "in")  # its layers are Conv1D, transposed
    with pytest.raises(ValueError, match="holds no matrix to prune"):
        prune_folder(tmp_path / "in", tmp_path / "out", sc.NM(2, 4))
    assert not (tmp_path / "out").exists()


def test_mistakes_leave_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "in", "20KB")
    prune_folder(tmp_path / "in", tmp_path / "out", sc.NM(2, 4))
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    last = sorted((tmp_path / "in").glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-7])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        prune_folder(tmp_path / "in", tmp_path / "out", sc.NM(1, 4))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    (tmp_path / "in" / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(ValueError, match="does not know the model"):
        prune_folder(tmp_path / "in", tmp_path / "out", sc.NM(2, 4))
    (tmp_path / "in" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        prune_folder(tmp_path / "in", tmp_path / "out", sc.NM(2, 4))


def test_by_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    write(tmp_path / "in", "20KB")
    arguments = [
        "prune",
        str(tmp_path / "in"),
        "--pattern",
        "2:4",
        "--output",
        str(tmp_path / "out"),
        "--json",
    ]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    assert len(json.loads(found.stdout)["layers"]) == 14
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out") is not None


GROWTH = """
import sys
from pathlib import Path
import sparsecore as sc
from sparsecore.integrations.prune_folder import _Skeleton, prune_folder

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) << 10

source, target = Path(sys.argv[1]), Path(sys.argv[2])
prune_folder(sys.argv[3], target, sc.NM(2, 4))  # imports, and threads of their own
before, peak = anonymous(), 0

def watch():
    global peak
    peak = max(peak, anonymous())

prune_folder(source, target, sc.NM(2, 4), advance=watch)
print(peak - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to read resident memory")
def test_memory_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "small", "50GB")
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    }
    config = transformers.LlamaConfig(num_hidden_layers=48, vocab_size=100, **sizes)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "large", max_shard_size="20MB")
    size = sum(path.stat().st_size for path in (tmp_path / "large").glob("*.safetensors"))
    assert size > 180 << 20
    command = [sys.executable, "-c", GROWTH, *(str(tmp_path / name) for name in ("large", "out", "small"))]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) < size // 3, done.stdout
