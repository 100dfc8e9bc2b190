"""The demo end to end on a random two-layer BERT: no download, seconds."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sparsecore as sc
from sparsecore.demo import __main__ as command
from sparsecore.demo import report, text, timing
from sparsecore.demo.encoder import embed, embedding_task, fuse_gelu, quality
from sparsecore.demo.models import Model
from sparsecore.demo.run import Settings, run
from sparsecore.demo.source import Batch, Source
from sparsecore.demo.store import Store
from sparsecore.demo.variants import VARIANTS, Variant, load

transformers = pytest.importorskip("transformers")

SETTINGS = Settings(
    held_out=24, calibration=16, tokens=16, threads=(1,), batches=(1,), dense_peers=False, recovery=0.1
)


def make() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=200,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=32,
        attn_implementation="sdpa",
    )
    return transformers.BertModel(config, add_pooling_layer=False).eval()


def batch(size: int, seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 200, (size, SETTINGS.tokens), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, -4:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture
def source() -> Source:
    return Source(
        "tiny",
        make,
        calibration=[batch(8, 1), batch(8, 2)],
        held_out=[batch(12, 3), batch(12, 4)],
        timing=lambda size: batch(size, 5),
        task=embedding_task("16 tokens"),
        targets=(r"re:encoder\..*",),
    )


def test_demo_runs_resumes_and_reports(source: Source, tmp_path: Path) -> None:
    said: list[str] = []
    results = run(source, SETTINGS, tmp_path, progress=False, say=said.append)
    assert results == json.loads((tmp_path / "results.json").read_text()) | {"settings": results["settings"]}
    assert len(results["variants"]) == len(VARIANTS)
    for variant in VARIANTS:
        found = results["variants"][variant.key]
        expected = 1 - variant.sparsity if variant.sparsity else 0.5
        assert found["kept"] == pytest.approx(expected, abs=0.01)
        assert ("one_shot" in found) == (variant.steps > 0)
        if variant.steps:
            assert found["cosine"] != found["one_shot"]["cosine"]
            assert all(0.0 <= loss < 1.0 for loss in found["recovery_losses"])
        assert found["disk_bytes"] < results["dense"]["disk_bytes"]
        assert found["packed_bytes"] < found["dense_bytes"]
        assert 0.0 < found["cosine"] <= 1.0
    cosines = [
        results["variants"][key].get("one_shot", results["variants"][key])["cosine"]
        for key in ("unstructured-50", "unstructured-70", "unstructured-85")
    ]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[0] > 0.9
    timed = results["latency"]["batch 1, threads 1"]
    assert timed["best_dense"] == "torch eager"
    assert timed["engines"]["torch eager"]["speedup"] == 1.0
    assert all(
        values["q1_ms"] <= values["median_ms"] <= values["q3_ms"] for values in timed["engines"].values()
    )

    shown = report.text(results)
    assert re.search(r"2:4 per row +50\.0 %", shown)
    pytest.importorskip("matplotlib")
    report.figure(results, tmp_path / "results.png")
    assert (tmp_path / "results.png").stat().st_size > 10_000

    def forbidden() -> nn.Module:
        raise AssertionError("a finished part was computed again")

    source.calibration = []
    again = run(source, SETTINGS, tmp_path, progress=False, say=said.append)
    assert again["latency"] == results["latency"]
    assert again["variants"] == results["variants"]
    with pytest.raises(ValueError, match="data holds no batch"):
        run(source, SETTINGS, tmp_path, fresh=True, progress=False, say=said.append)


def test_stages_end_where_they_say_and_go_on(source: Source, tmp_path: Path) -> None:
    variants = [
        Variant("one", "unstructured 50 %", sc.Unstructured(), 0.5, steps=20),
        Variant("slow", "advised, any time", None, latency=1.0),
    ]

    def go(until: str) -> tuple[dict[str, Any], set[str]]:
        found = run(
            source, SETTINGS, tmp_path, variants=variants, until=until, progress=False, say=lambda _: None
        )
        return found, {path.stem for path in (tmp_path / "parts").glob("*/*.json")}

    found, parts = go("advice")
    assert parts == {"advice"} and not found["variants"]
    advice = next((tmp_path / "parts").glob("*/advice.json")).read_text()

    found, parts = go("models")
    assert {"prune-one", "recovery-one", "prune-slow"} <= parts
    assert not found["latency"] and not any(name.startswith("latency") for name in parts)
    assert not (tmp_path / "results.json").exists()
    made = found["variants"]

    found, _ = go("times")
    assert found["variants"].keys() == made.keys()
    assert found["variants"]["one"]["cosine"] == made["one"]["cosine"]
    assert found["latency"] and (tmp_path / "results.json").exists()
    assert next((tmp_path / "parts").glob("*/advice.json")).read_text() == advice

    with pytest.raises(ValueError, match="until must be one of advice, models, times"):
        go("never")


def test_quality_of_an_earlier_run(source: Source, tmp_path: Path) -> None:
    def go(folder: str, **options: Any) -> dict[str, Any]:
        variants = [Variant("one", "unstructured 50 %", sc.Unstructured(), 0.5, steps=20)]
        return run(
            source,
            SETTINGS,
            tmp_path / folder,
            variants=variants,
            progress=False,
            say=lambda _: None,
            **options,
        )

    first = go("first")
    again = go("again", quality=first)
    assert not list((tmp_path / "again").rglob("*-recovered.safetensors"))
    one = again["variants"]["one"]
    assert one["cosine"] == first["variants"]["one"]["cosine"] != one["one_shot"]["cosine"]
    assert one["recovered_by"] == {key: first["environment"][key] for key in ("commit", "date")}
    assert again["latency"]["batch 1, threads 1"]["engines"]["unstructured 50 %"]["median_ms"] > 0.0
    assert "recovered_by" not in go("first", quality=first)["variants"]["one"]  # it has been trained here

    other = json.loads(json.dumps(first))
    other["variants"]["one"]["one_shot"]["cosine"] -= 0.1
    with pytest.raises(ValueError, match="They are of other code or data"):
        go("third", quality=other)
    other = json.loads(json.dumps(first))
    other["settings"]["method"] = "sparsegpt"
    with pytest.raises(ValueError, match="measured with method 'sparsegpt', this run has 'alps'"):
        go("third", quality=other)
    with pytest.raises(ValueError, match="must be the results of an earlier run"):
        go("third", quality={"settings": {}})


def test_one_document_on_standard_output(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = (Variant("one", "unstructured 50 %", sc.Unstructured(), 0.5),)
    tiny = Model(make, fuse_gelu, lambda: batch(1, 1), lambda *_: source, variants, variants, ())
    monkeypatch.setattr(command, "MODELS", {"encoder": tiny})
    command.main(["--output", str(tmp_path), "--until", "models", "--json"])
    shown = capsys.readouterr()
    assert 0.9 < json.loads(shown.out)["variants"]["one"]["cosine"] <= 1.0
    assert "models done" in shown.err
    with pytest.raises(SystemExit, match="2"):
        command.main(["--until", "never"])
    assert "invalid choice" in capsys.readouterr().err


def test_packed_model_with_fused_gelu_is_the_pruned_model(source: Source, tmp_path: Path) -> None:
    pruned = source.make()
    masks = sc.sparsify.magnitude(pruned, sc.NM(2, 4), targets=source.targets, progress=False)
    assert len(masks) == 12
    expected = embed(pruned, source.held_out)
    sc.sparsify_(pruned, sc.NM(2, 4), lambda _, name: name in masks, masks=masks)
    sc.save(pruned, tmp_path / "model.safetensors")
    model = fuse_gelu(load(source, tmp_path / "model.safetensors"))
    fused = [m for m in model.modules() if isinstance(m, sc.nn.SparseLinear) and m.activation == "gelu"]
    assert len(fused) == 2
    torch.testing.assert_close(embed(model, source.held_out), expected, rtol=1e-4, atol=1e-5)


def test_only_the_exact_gelu_is_fused() -> None:
    config = transformers.BertConfig(
        vocab_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_act="relu",
    )
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    sc.sparsify_(model, sc.NM(2, 4))
    before = model.encoder.layer[0].intermediate.intermediate_act_fn
    fuse_gelu(model)
    assert model.encoder.layer[0].intermediate.intermediate_act_fn is before


def test_quality_of_known_embeddings() -> None:
    eye = torch.eye(4)
    assert quality(eye, eye) == {"cosine": 1.0, "top1": 1.0}
    dense = nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.2], [0.1, 1.0]]), dim=1)
    turned = dense[[1, 0, 2]]
    assert quality(turned, dense)["top1"] == pytest.approx(2 / 3)  # the third's nearest moved
    assert quality(turned, dense)["cosine"] == pytest.approx((dense * turned).sum(1).mean().item())


def test_docstrings_of_a_folder(tmp_path: Path) -> None:
    long = "word " * 30
    (tmp_path / "tests").mkdir()
    (tmp_path / "a.py").write_text(
        f'"""{long}one"""\n\ndef f():\n    """{long}two"""\n\nclass C:\n    """Short."""\n'
    )
    (tmp_path / "b.py").write_text(f'"""{long}one"""\n')
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "tests" / "c.py").write_text(f'"""{long}three"""\n')
    found = text.docstrings(tmp_path)
    assert sorted(found) == [f"{long}one", f"{long}two"]
    assert text.split(found, 1, 1) == (found[:1], found[1:])
    with pytest.raises(ValueError, match="2 docstrings, and 2 \\+ 1 are needed"):
        text.split(found, 2, 1)
    assert text.docstrings() == text.docstrings()


def test_interleaving_visits_everyone_equally() -> None:
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = timing.interleave(calls, rounds=3, repeats=2, advance=lambda: None)
    assert order == [name for turn in ("abc", "bca", "cab") for name in turn for _ in range(3)]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    found = timing.summary([0.002, 0.001, 0.004], [0.004, 0.004, 0.004])
    assert found["median_ms"] == pytest.approx(2.0)
    assert found["speedup"] == pytest.approx(2.0)


def test_store_keeps_settings_apart_and_only_whole_parts(tmp_path: Path) -> None:
    store = Store(tmp_path, {"a": 1})
    assert store.part("x", lambda: [1]) == [1]
    assert store.part("x", lambda: [2]) == [1]
    assert Store(tmp_path, {"a": 2}).part("x", lambda: [3]) == [3]

    def interrupted() -> list[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.part("y", interrupted)
    assert store.part("y", lambda: [4]) == [4]
    assert Store(tmp_path, {"a": 1}, fresh=True).part("x", lambda: [5]) == [5]
