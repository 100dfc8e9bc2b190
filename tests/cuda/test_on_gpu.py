"""What only a GPU can show: streams, graphs, compiled code, device guards, memory that runs out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sparsecore.ops import semi_structured_compress, semi_structured_linear
from tests.cuda.conftest import EMULATED

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(EMULATED is not None or not torch.cuda.is_available(), reason="needs a GPU"),
]


@pytest.fixture
def layer(device: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A layer whose few tokens need a workspace of split inputs, and an input of it."""
    weight = torch.randn(512, 4096, device=device).to(torch.bfloat16)
    packed = semi_structured_compress(weight)
    x = torch.randn(64, 4096, device=device).to(torch.bfloat16)
    return lambda x: semi_structured_linear(x, *packed, out_features=512), x


def test_two_streams_at_once(layer: tuple[Callable[[Tensor], Tensor], Tensor]) -> None:
    """Workspaces of calls that overlap are apart."""
    call, x = layer
    inputs = [x, -x]
    expected = [call(input) for input in inputs]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    for _ in range(50):
        outputs = []
        for stream, input in zip(streams, inputs, strict=True):
            with torch.cuda.stream(stream):
                outputs.append(call(input))
        torch.cuda.synchronize()
        assert all(torch.equal(*pair) for pair in zip(outputs, expected, strict=True))


def test_the_current_stream_is_used(layer: tuple[Callable[[Tensor], Tensor], Tensor]) -> None:
    """What another stream is still to write is not read early: the call waits behind a long kernel of its stream."""
    call, x = layer
    expected = call(x)
    late = torch.zeros_like(x)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(50_000_000)
        late.copy_(x)
        output = call(late)
    torch.cuda.synchronize()
    assert torch.equal(output, expected)


def test_nothing_waits_for_the_device(layer: tuple[Callable[[Tensor], Tensor], Tensor]) -> None:
    call, x = layer
    call(x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        call(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    torch.cuda._sleep(100_000_000)
    call(x)
    assert not torch.cuda.current_stream().query()  # the call came back while the device was asleep
    torch.cuda.synchronize()


def test_graph_replays_with_new_input(layer: tuple[Callable[[Tensor], Tensor], Tensor]) -> None:
    call, x = layer
    static = x.clone()
    call(static)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = call(static)
    for other in (x, -x, 2 * x):
        static.copy_(other)
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(output, call(other))


def test_compiled(layer: tuple[Callable[[Tensor], Tensor], Tensor]) -> None:
    """By inductor, with CUDA graphs around it."""
    call, x = layer
    compiled = torch.compile(lambda x: call(x) * 2, fullgraph=True, mode="reduce-overhead")
    for _ in range(3):
        output = compiled(x)
    assert torch.equal(output, call(x) * 2)


def test_gradients_in_a_compiled_step(device: str) -> None:
    weight = torch.randn(256, 512, device=device).to(torch.bfloat16)
    values, metadata, *other = semi_structured_compress(weight, selection="two_way", transposed=True)
    x = torch.randn(32, 512, device=device).to(torch.bfloat16).requires_grad_()

    def loss(x: Tensor) -> Tensor:
        y = semi_structured_linear(x, values, metadata, out_features=256, transposed=(other[0], other[1]))
        return y.float().square().mean()

    (expected,) = torch.autograd.grad(loss(x), x)
    (got,) = torch.autograd.grad(torch.compile(loss, fullgraph=True)(x), x)
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_tensors_device_is_used(layer: tuple[Callable[[Tensor], Tensor], Tensor]) -> None:
    call, x = layer
    expected = call(x)
    with torch.cuda.device(1):
        assert torch.equal(call(x), expected)
        assert torch.cuda.current_device() == 1


def test_tensors_of_different_devices_are_refused(device: str) -> None:
    weight = torch.randn(64, 128, device=device).to(torch.bfloat16)
    values, metadata = semi_structured_compress(weight)
    x = torch.randn(4, 128, device=device).to(torch.bfloat16)
    with pytest.raises(RuntimeError, match=r"metadata must be on the same CUDA device"):
        semi_structured_linear(x, values, metadata.cpu(), out_features=64)


def test_no_memory_for_the_workspace(layer: tuple[Callable[[Tensor], Tensor], Tensor]) -> None:
    """The error is torch's, and the next call works."""
    call, x = layer
    expected = call(x)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    try:
        torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
        kept = []
        with pytest.raises(torch.OutOfMemoryError):
            for _ in range(1 << 14):
                kept.append(call(x))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    del kept
    assert torch.equal(call(x), expected)
