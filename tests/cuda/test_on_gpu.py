"""What only a GPU can show: streams, graphs, compiled code, device guards, memory that runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from benchmarks.gpu.families import FAMILIES
from torch import Tensor

from sparsecore import NM, Group, Unstructured, pack
from sparsecore.formats import select_mask
from sparsecore.nn import SparseConv2d
from sparsecore.ops import semi_structured_compress, semi_structured_linear
from tests.cuda.conftest import EMULATED
from tests.cuda.operators import CALLS
from tests.cuda.test_layers import layers, make_layer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(EMULATED is not None or not torch.cuda.is_available(), reason="needs a GPU"),
]


@dataclass(frozen=True)
class Work:
    """Something to compute from a tensor, and two such tensors. Most of it needs a workspace."""

    call: Callable[[Tensor], tuple[Tensor, ...]]
    inputs: tuple[Tensor, Tensor]


VARIANTS = {variant.name: variant for family in FAMILIES for variant in family.variants}


def of_variant(name: str, device: str) -> Work:
    variant, generator = VARIANTS[name], torch.Generator(device).manual_seed(3)
    packed = variant.make(variant.random(512, 4096, device=device, generator=generator))
    x, other = (variant.random(64, 4096, device=device, generator=generator) for _ in range(2))
    return Work(lambda x: (packed.linear(x, None),), (x, other))


def of_operator(name: str, device: str) -> Work:
    call = CALLS[name](device)
    tensor = call.arguments[call.varied]
    other = tensor.flip(0) if tensor.is_floating_point() else tensor.clone()
    return Work(lambda x: call(**{call.varied: x}), (tensor, other))


@pytest.fixture(params=[*VARIANTS, *CALLS])
def work(device: str, request: pytest.FixtureRequest) -> Work:
    return (of_variant if request.param in VARIANTS else of_operator)(request.param, device)


def equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


def test_two_streams_at_once(work: Work) -> None:
    """Workspaces of calls that overlap are apart."""
    expected = [work.call(input) for input in work.inputs]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    for _ in range(50):
        outputs = []
        for stream, input in zip(streams, work.inputs, strict=True):
            with torch.cuda.stream(stream):
                outputs.append(work.call(input))
        torch.cuda.synchronize()
        assert all(equal(*pair) for pair in zip(outputs, expected, strict=True))


def test_the_current_stream_is_used(work: Work) -> None:
    """What another stream is still to write is not read early: the call waits behind a long kernel of its stream."""
    x = work.inputs[0]
    expected = work.call(x)
    late = torch.zeros_like(x)
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(50_000_000)
        late.copy_(x)
        output = work.call(late)
    torch.cuda.synchronize()
    assert equal(output, expected)


def test_graph_replays_with_new_input(work: Work) -> None:
    static = work.inputs[0].clone()
    work.call(static)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = work.call(static)
    for other in (*work.inputs, work.inputs[0]):
        static.copy_(other)
        graph.replay()
        torch.cuda.synchronize()
        assert equal(output, work.call(other))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # that it is a prototype, once
def test_nothing_waits_for_the_device(work: Work) -> None:
    x = work.inputs[0]
    work.call(x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        work.call(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    torch.cuda._sleep(100_000_000)
    work.call(x)
    assert not torch.cuda.current_stream().query()  # the call came back while the device was asleep
    torch.cuda.synchronize()


@pytest.mark.filterwarnings("default")  # of the compiler
def test_compiled(work: Work) -> None:
    """By inductor, with CUDA graphs around it."""
    torch.compiler.reset()
    compiled = torch.compile(lambda x: work.call(x), fullgraph=True, mode="reduce-overhead")
    for _ in range(3):
        output = tuple(tensor.clone() for tensor in compiled(work.inputs[0]))
    assert equal(output, work.call(work.inputs[0]))


@pytest.mark.filterwarnings("default")  # of the compiler
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


@layers
def test_a_training_step_of_a_layer_in_a_graph(
    pattern: str, layout: str, sparsity: float | None, device: str
) -> None:
    """Whatever the layout's gradients go through: nothing waits for the device, and replays give the same bits."""
    linear = make_layer(pattern, sparsity, device, n=256, k=512)
    x = torch.randn(300, 512, device=device).to(torch.bfloat16).requires_grad_()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        linear(x).square().sum().backward()
    torch.cuda.current_stream().wait_stream(side)
    expected = [x.grad.clone(), *(parameter.grad.clone() for parameter in linear.parameters())]
    x.grad = linear.weight_values.grad = linear.bias.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        linear(x).square().sum().backward()
    found = [x.grad, *(parameter.grad for parameter in linear.parameters())]
    for grad in found:
        grad.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(grad, want) for grad, want in zip(found, expected, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_tensors_device_is_used(work: Work) -> None:
    expected = work.call(work.inputs[0])
    with torch.cuda.device(1):
        assert equal(work.call(work.inputs[0]), expected)
        assert torch.cuda.current_device() == 1


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("other", ["cpu", "cuda:1"])
def test_tensors_of_different_devices_are_refused(name: str, other: str, device: str) -> None:
    if other == "cuda:1" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    call = CALLS[name](device)
    if len(call.tensors) == 1:
        pytest.skip("has one tensor")
    for argument, tensor in call.tensors.items():
        with pytest.raises(RuntimeError, match=r"is on .* and .*\. Move it with \.to\('cuda"):
            call(**{argument: tensor.to(other)})


def test_no_memory(work: Work) -> None:
    """Neither for the output nor for the workspace; the next call works."""
    x = work.inputs[0]
    expected = work.call(x)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    kept: list[object] = []
    try:
        torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
        with pytest.raises(
            RuntimeError, match=r"needs \d+ bytes, which cuda:0 could not give.* out of memory"
        ):
            for _ in range(1 << 18):  # of a few hundred bytes each, where a result is small
                kept.append(work.call(x))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    kept.clear()
    assert equal(work.call(x), expected)


def test_convolutions_say_where_their_kernels_are(device: str) -> None:
    layer = SparseConv2d.from_dense(torch.nn.Conv2d(16, 32, 1), Unstructured(), sparsity=0.9).to(device)
    with pytest.raises(RuntimeError, match="kernels run on the CPU"):
        layer(torch.randn(1, 16, 8, 8, device=device))


def test_load_time_work_stays_on_the_device(device: str) -> None:
    """Raw operators without a kernel of their name: no copy to the host, which the debug mode would report."""
    weight = torch.randn(70, 150)
    for pattern, name in ((Group(4, 1), "group_lists"), (NM(2, 8, vector=16), "shared_lists")):
        sparsity = 0.6 if name == "group_lists" else None
        mask = select_mask(weight.abs(), pattern, sparsity)
        on_host = pack(weight, pattern, mask, layout=name)
        there = pack(weight.to(device), pattern, mask.to(device), layout=name).validate()
        for mine, theirs in zip(there.tensors().values(), on_host.tensors().values(), strict=True):
            assert mine.is_cuda and torch.equal(mine.cpu(), theirs)
        assert torch.equal(there.to_dense().cpu(), on_host.to_dense())
    lists = pack(weight, Group(4, 1), sparsity=0.6, layout="group_lists")
    arrays, sizes = (lists.index, lists.order, lists.starts), (lists.rows, lists.cols, 70, 150)
    moved = tuple(array.to(device) for array in arrays)
    ops, windows = torch.ops.sparsecore, (lists.depth, lists.window)
    expected = ops.group_lists_transpose(*arrays, *sizes, *windows, 128, 64)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = ops.group_lists_transpose(*moved, *sizes, *windows, 128, 64)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(mine.cpu(), theirs) for mine, theirs in zip(found, expected, strict=True))
    damaged = (moved[0].clone().fill_(255), *moved[1:])
    verdict = ops.group_lists_validate(*damaged, *sizes, *windows)
    assert verdict != (0, -1)
    assert verdict == ops.group_lists_validate(*(array.cpu() for array in damaged), *sizes, *windows)
    with pytest.raises(RuntimeError, match=r"row_lists_pack: .*sparsecore\.pack"):
        ops.row_lists_pack(weight.to(device), torch.ones(70, 150, dtype=torch.bool, device=device), 64)
