"""CUDA operators without a GPU: a build of the operator library whose launches run on the emulator, for CPU tensors.

    SPARSECORE_CUDA_EMULATED=build/cuda/csrc/torch/cuda/libsparsecore_torch_cuda_emulated.so pytest tests/cuda

On a machine with a GPU and a sparsecore built with CUDA the same tests run there.
"""

from __future__ import annotations

import os

import pytest
import torch

from sparsecore.formats.layouts import ORDER
from sparsecore.ops import _common

EMULATED = os.environ.get("SPARSECORE_CUDA_EMULATED")
if EMULATED:
    torch.ops.load_library(EMULATED)


@pytest.fixture(scope="session")
def device() -> str:
    if EMULATED:
        return "cpu"
    key = torch._C._dispatch_has_kernel_for_dispatch_key("sparsecore::semi_structured_linear", "CUDA")
    if not torch.cuda.is_available() or not key:
        pytest.skip(
            "needs a GPU and sparsecore built with CUDA, or SPARSECORE_CUDA_EMULATED (make test-cuda)"
        )
    return "cuda"


@pytest.fixture
def as_cuda(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on ``device`` are treated as CUDA's; the CPU's own plan is kept as ``ORDER["cpu of the tests"]``."""
    monkeypatch.setitem(ORDER, "cpu of the tests", ORDER["cpu"])
    if device == "cpu":
        monkeypatch.setitem(ORDER, "cpu", ORDER["cuda"])
        monkeypatch.setattr(_common, "SIXTEEN_BITS", _common.SIXTEEN_BITS | {"cpu"})
