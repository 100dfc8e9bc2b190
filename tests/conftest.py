"""Fixtures for all tests: a fixed seed, and the caller's threads and instruction set put back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import sparsecore as sc


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    torch.manual_seed(0)
    threads, isa = torch.get_num_threads(), sc.cpu.isa()
    yield
    torch.set_num_threads(threads)
    sc.cpu.use(isa)
    torch._dynamo.reset()


@pytest.fixture(params=sc.cpu.available())
def isa(request: pytest.FixtureRequest) -> str:
    """Runs the test once under each instruction set of this machine."""
    sc.cpu.use(request.param)
    return str(request.param)
