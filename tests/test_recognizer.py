"""The text recognizer of the demo, its drawn lines and how reading is judged."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.demo import lines, ocr, recognizer

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("rapidocr") is None or importlib.util.find_spec("onnx") is None,
    reason="the weights come with rapidocr, as ONNX",
)
TEXTS = ["one line of text", "Another, with 12 marks!", "f(x) = [a, b]"]


def test_phrases_are_whole_words_and_short() -> None:
    found = lines.phrases(["the quick brown fox jumps", "naïve words stay out", "x" * 40], longest=10)
    assert found == ["the quick", "brown fox", "words stay"]


def test_lines_are_drawn_alike_every_time() -> None:
    pytest.importorskip("PIL")
    pytest.importorskip("matplotlib")
    pictures = [lines.draw(text, 1) for text in TEXTS]
    assert all(picture.shape == (3, 48, 320) and picture.abs().max() <= 1.0 for picture in pictures)
    assert torch.equal(lines.draw(TEXTS[0], 1), pictures[0])
    assert not torch.equal(lines.draw(TEXTS[0], 2), pictures[0])
    assert all(picture.std() > 0.05 for picture in pictures)


@pytest.mark.parametrize(
    ("a", "b", "distance"), [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("ab", "ba", 2)]
)
def test_edit_distance(a: str, b: str, distance: int) -> None:
    assert lines.edit_distance(a, b) == lines.edit_distance(b, a) == distance


def test_repeats_collapse_and_blanks_separate() -> None:
    assert ocr.decode(torch.tensor([0, 1, 1, 0, 1, 2, 2, 0]), "ab") == "aab"
    assert ocr.decode(torch.zeros(4, dtype=torch.long), "ab") == ""


def test_quality_of_known_readings() -> None:
    found = ocr.reading_quality(["abcd", "efgh"], ["abcx", "efgh"], ["abcx", "xfgh"])
    assert found == {"read": pytest.approx(7 / 8), "same": 0.5}
    assert ocr.reading_quality(["ab"], ["zzzzzzzz"], ["ab"])["read"] == 0.0


def test_amplitudes_are_unit_vectors() -> None:
    rows = ocr.amplitudes(torch.randn(2, 5, 11) * 9.0, {})
    assert torch.allclose(rows.norm(dim=-1), torch.ones(2, 5), atol=1e-5)


def test_packed_recognizer_with_fused_gelu_is_the_pruned_one() -> None:
    torch.manual_seed(0)
    model = recognizer.Recognizer(40).eval()
    x = torch.rand(2, 3, 48, 96) * 2.0 - 1.0
    masks = sc.sparsify.magnitude(model, sc.NM(2, 4), ignore=["re:.*gate.*"], progress=False)
    with torch.inference_mode():
        expected = model(x)
        assert expected.shape == (2, 12, 40)
        sc.sparsify_(model, sc.NM(2, 4), lambda _, name: name in masks, masks=masks)
        fused = [m for m in ocr.fuse_gelu(model).modules() if getattr(m, "activation", None) == "gelu"]
        assert len(fused) == 13
        torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-4)


@needs_package
def test_it_reads() -> None:
    pytest.importorskip("PIL")
    model = recognizer.recognizer_model()
    images = torch.stack([lines.draw(text, 7) for text in TEXTS])
    readings = ocr.read(recognizer.characters(), model, [{"image": images}])
    assert ocr.reading_quality(TEXTS, readings, readings)["read"] > 0.95


@needs_package
def test_it_computes_what_the_published_file_does(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    recognizer.write_without_softmax(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    x = torch.rand(2, 3, 48, 160) * 2.0 - 1.0
    expected = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    with torch.inference_mode():
        torch.testing.assert_close(recognizer.recognizer_model()(x), expected, rtol=1e-3, atol=1e-3)


@needs_package
def test_another_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def other() -> list[Tensor]:
        return [nn.Linear(3, 3).weight.detach()]

    monkeypatch.setattr(recognizer, "_weights_in_order", lambda: iter(other()))
    with pytest.raises(ValueError, match=r"stem.first.weight needs \(48, 3, 3, 3\)"):
        recognizer.recognizer_model()
