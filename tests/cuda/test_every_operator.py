"""What must hold of every operator: tensors that are not where they should be, memory that runs out, compilers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.cuda.conftest import EMULATED
from tests.cuda.operators import CALLS, TOKENS, Call

HOST = -1
OPERATOR_FILES = Path(__file__).parents[2] / "csrc/torch/cuda"

emulated = pytest.mark.skipif(not EMULATED, reason="needs SPARSECORE_CUDA_EMULATED (make test-cuda)")


@pytest.fixture(params=CALLS)
def call(device: str, request: pytest.FixtureRequest) -> Call:
    return CALLS[request.param](device)


@contextmanager
def placed(where: int, *tensors: Tensor) -> Iterator[None]:
    """The tensors are taken to be on this device of the emulated machine."""
    place = torch.ops.sparsecore_emulated.place
    try:
        for tensor in tensors:
            place(tensor, where)
        yield
    finally:
        for tensor in tensors:
            place(tensor, 0)


def equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


@emulated  # a machine with a GPU has the library, and its sources only by chance
def test_every_operator_is_here() -> None:
    files = "".join(path.read_text() for path in sorted(OPERATOR_FILES.glob("*_ops.cpp")))
    operators = set(re.findall(r'm\.impl\("(\w+)"', files)) - {"cuda_use_kernel"}  # which takes no tensor
    assert len(operators) > 15
    assert operators == {name.split(",")[0] for name in CALLS}


@emulated
def test_every_wrong_device_is_named(call: Call) -> None:
    if len(call.tensors) == 1:
        return
    for name, tensor in call.tensors.items():
        with placed(1, tensor), pytest.raises(RuntimeError) as caught:
            call()
        said = str(caught.value).splitlines()[0]
        assert re.search(
            rf"{call.operator}: \w[\w ]* is on cuda:[01] and the other tensors are on cuda:[01]\. "
            r"Move it with \.to\('cuda:[01]'\)\.",
            said,
        ), f"{name}: {said}"


@emulated
def test_a_tensor_on_the_host_is_named(call: Call) -> None:
    for name, tensor in call.tensors.items():
        with placed(HOST, tensor), pytest.raises(RuntimeError) as caught:
            call()
        said = str(caught.value).splitlines()[0]
        assert re.search(rf"{call.operator}: .* is on the host and .*Move it with \.to\('cuda", said), (
            f"{name}: {said}"
        )


def test_a_tensor_on_meta_is_named(call: Call) -> None:
    for name, tensor in call.tensors.items():
        if len(call.tensors) > 1:
            with pytest.raises(RuntimeError, match=rf"^{call.operator}: \w+ is on (meta|.* on meta\.)"):
                call(**{name: tensor.to("meta")})


@emulated
def test_the_second_device_serves_as_well(call: Call) -> None:
    expected = call()
    with placed(1, *call.tensors.values()):
        assert equal(call(), expected)


def awkward(tensor: Tensor) -> Tensor:
    """The same numbers two elements into their memory, and of matrices every other column of it."""
    if tensor.dim() < 2 or not tensor.is_floating_point() or tensor.dim() > 2:
        moved = torch.empty(tensor.numel() + 2, dtype=tensor.dtype, device=tensor.device)[2:]
        return moved.view(tensor.shape).copy_(tensor)
    wide = torch.empty(*tensor.shape, 2, dtype=tensor.dtype, device=tensor.device)
    return wide[..., 0].copy_(tensor)


@emulated
@pytest.mark.parametrize("views", [False, True])
def test_memory_that_runs_out(call: Call, views: bool) -> None:
    """At every allocation, those of copies too: the error says how much was missing, and nothing has changed."""
    fail_allocation = torch.ops.sparsecore_emulated.fail_allocation
    if views:
        # Index arrays and packed values have to be in one piece: only where they begin differs.
        in_pieces = {"input", "weight", "grad", "grad_output", "dense", "residual"}
        changed = {
            name: awkward(tensor) if name in in_pieces else awkward(tensor.flatten()).view(tensor.shape)
            for name, tensor in call.tensors.items()
        }
        call = Call(call.operator, {**call.arguments, **changed}, call.aside)
    before = {name: tensor.clone() for name, tensor in call.tensors.items()}
    fail_allocation(0)
    expected = call()
    count = fail_allocation(0)
    assert count > 0
    purposes = set()
    try:
        for number in range(1, count + 1):
            fail_allocation(number)
            with pytest.raises(RuntimeError) as caught:
                call()
            said = re.search(
                rf"{call.operator}: ([\w ]+) needs (\d+) bytes, which cuda:0 could not give\. Pass fewer tokens at "
                r"once, or free memory first\. torch says: CUDA out of memory\.",
                str(caught.value),
            )
            assert said, caught.value
            purposes.add(said[1])
            assert int(said[2]) > 0
            fail_allocation(0)
            assert equal(call(), expected)
    finally:
        fail_allocation(0)
    assert all(torch.equal(call.arguments[name], tensor) for name, tensor in before.items())
    few = call.arguments.get("input", call.tensors[call.varied]).shape[0] == TOKENS
    if few and (call.operator.endswith("_linear") or call.operator == "block_sparse_input_grad"):
        assert {"the output", "the workspace"} <= purposes
    if call.operator == "bitmap_decode_linear" and not few:
        assert {"the dense weight", "the dense product"} <= purposes
    if views and few and "input" in before:
        assert "a copy of input in one piece" in purposes


@pytest.mark.filterwarnings("default")  # of the compiler
def test_compiles_whole(call: Call) -> None:
    torch.compiler.reset()
    varied = call.varied
    compiled = torch.compile(lambda x: call(**{varied: x}), fullgraph=True, backend="aot_eager")
    assert equal(compiled(call.arguments[varied]), call())
