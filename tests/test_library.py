"""Where the CUDA operators are loaded, and that all else goes on without them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

import sparsecore as sc
from sparsecore import _library


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What torch is told to load."""
    paths: list[str] = []
    monkeypatch.setattr(torch.ops, "load_library", paths.append)
    return paths


def test_a_torch_without_cuda_leaves_the_cuda_operators_alone(
    loaded: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_library, "_compiled", lambda stem: tmp_path / stem)
    monkeypatch.setattr(torch.version, "cuda", None)
    _library.load_cuda_operators()
    assert loaded == []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    _library.load_cuda_operators()
    assert loaded == [str(tmp_path / "sparsecore_torch_cuda")]


@pytest.mark.parametrize("fails", ["missing", "unloadable"])
def test_a_cuda_torch_goes_on_without_them(
    fails: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if fails == "unloadable":
        (tmp_path / "sparsecore_torch_cuda").write_text("no library")
        monkeypatch.setattr(_library, "_compiled", lambda stem: tmp_path / stem)
    else:

        def missing(stem: str) -> Path:
            raise ImportError(f"{stem} is missing")

        monkeypatch.setattr(_library, "_compiled", missing)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with caplog.at_level(logging.INFO, logger="sparsecore"):
        _library.load_cuda_operators()
    assert "The CUDA operators are not available" in caplog.text
    layer = sc.nn.SparseLinear.from_dense(torch.nn.Linear(16, 8), pattern=sc.NM(2, 4))
    assert layer(torch.randn(2, 16)).shape == (2, 8)


@pytest.mark.skipif(sc.cuda._built(), reason="this installation has CUDA kernels")
def test_kernels_cannot_be_chosen_where_there_are_none() -> None:
    with pytest.raises(RuntimeError, match=r"no CUDA kernels here.*SPARSECORE_CUDA=ON"):
        sc.cuda.use("matmul_sm80")
