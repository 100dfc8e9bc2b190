"""What torch and scipy offer for the same layer. Every peer is a function without arguments that computes it once.

Weights are prepared outside the function (packing them is not timed, here as for ours); whatever happens to activations
is inside it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

Peer = Callable[[], object]

# The names that result files use.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Problem:
    """A dense layer and its input, in float32; peers convert."""

    input: Tensor
    weight: Tensor
    bias: Tensor


def linear(problem: Problem, dtype: torch.dtype) -> Peer:
    """``torch.nn.functional.linear``, as a model calls it."""
    input, weight, bias = (tensor.to(dtype) for tensor in (problem.input, problem.weight, problem.bias))
    return lambda: torch.nn.functional.linear(input, weight, bias)


def linear_packed(problem: Problem, dtype: torch.dtype) -> Peer:
    """OneDNN with the weight reordered beforehand: what a frozen, compiled model calls."""
    input, weight, bias = (tensor.to(dtype) for tensor in (problem.input, problem.weight, problem.bias))
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, input.shape[0])
    return lambda: torch.ops.mkldnn._linear_pointwise(input, packed, bias, "none", [], "")


# Every dense peer in floating point, by name.
DENSE: dict[str, Callable[[Problem], Peer]] = {
    **{f"linear {name}": partial(linear, dtype=dtype) for name, dtype in DTYPES.items()},
    "packed float32": partial(linear_packed, dtype=torch.float32),
}
if torch.ops.mkldnn._is_mkldnn_bf16_supported():
    DENSE["packed bfloat16"] = partial(linear_packed, dtype=torch.bfloat16)


def _int8_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(1).clamp_min(1e-30) / 127
    return (weight / scale.unsqueeze(1)).round().to(torch.int8), scale


def int8_linear_dynamic(problem: Problem, engine: str) -> Peer:
    """Torch's dynamically quantised layer (one scale for all activations), of the engine ``"onednn"`` or ``"x86"``."""
    scale = problem.weight.abs().amax(1).clamp_min(1e-30) / 127
    zeros = torch.zeros(len(scale), dtype=torch.long)
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weight = torch.quantize_per_channel(problem.weight, scale.double(), zeros, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(weight, problem.bias)
    torch.backends.quantized.engine = before
    return lambda: torch.ops.quantized.linear_dynamic(problem.input, packed, reduce_range=False)


def int8_qlinear(problem: Problem) -> Peer:
    """OneDNN's ``qlinear`` behind one scale for all activations, quantised by torch's own operators."""
    values, scale = _int8_rows(problem.weight)
    packed = torch.ops.onednn.qlinear_prepack(values, list(problem.input.shape))
    zeros = torch.zeros(len(scale), dtype=torch.int32)

    def run() -> Tensor:
        low, high = (float(bound) for bound in torch.aminmax(problem.input))
        step = max(high - low, 1e-30) / 255
        zero = round(-low / step)
        quantised = torch.quantize_per_tensor(problem.input, step, zero, torch.quint8).int_repr()
        return torch.ops.onednn.qlinear_pointwise(
            quantised, step, zero, packed, scale, zeros, problem.bias, 1.0, 0, torch.float32, "none", [], ""
        )

    return run


def int8_mm(problem: Problem) -> Peer:
    """``torch._int_mm`` with what a layer needs around it: a scale per token before, scales and bias after."""
    values, scale = _int8_rows(problem.weight)
    transposed = values.T

    def run() -> Tensor:
        largest = problem.input.abs().amax(1, keepdim=True).clamp_min_(1e-30)
        quantised = (problem.input * (127.0 / largest)).round_().to(torch.int8)
        sums = torch._int_mm(quantised, transposed)
        return torch.addcmul(problem.bias, sums.float(), largest * (scale / 127))

    return run


def int8_mm_alone(problem: Problem) -> Peer:
    """``torch._int_mm`` on activations that are already quantised: the product alone, not a layer."""
    values, _ = _int8_rows(problem.weight)
    transposed, quantised = values.T, torch.randint(-127, 128, tuple(problem.input.shape), dtype=torch.int8)
    return lambda: torch._int_mm(quantised, transposed)


# Every dense int8 layer, by name.
INT8: dict[str, Callable[[Problem], Peer]] = {
    **{
        f"linear_dynamic {engine}": partial(int8_linear_dynamic, engine=engine)
        for engine in ("onednn", "x86")
        if engine in torch.backends.quantized.supported_engines
    },
    "qlinear onednn": int8_qlinear,
    "_int_mm": int8_mm,
}


def sparse(problem: Problem, mask: Tensor, threads: int) -> dict[str, Peer]:
    """Torch CSR and scipy CSR of ``weight * mask``, each in the order of operands that suits it best."""
    weight = problem.weight * mask
    columns = problem.input.T.contiguous()
    bias = problem.bias.unsqueeze(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        csr = weight.to_sparse_csr()
        csr = torch.sparse_csr_tensor(
            csr.crow_indices().int(), csr.col_indices().int(), csr.values(), size=tuple(weight.shape)
        )
    peers: dict[str, Peer] = {"torch CSR": lambda: torch.addmm(bias, csr, columns)}
    if threads == 1:  # scipy has no threads
        from scipy.sparse import csr_matrix

        matrix, array, offset = csr_matrix(weight.numpy()), columns.numpy(), bias.numpy()
        peers["scipy CSR"] = lambda: matrix @ array + offset
    return peers


def block_sparse(problem: Problem, size: int, sparsity: float) -> Peer:
    """Torch BSR with square blocks, at random places: the pattern is its own, the number of weights is ours."""
    n, k = problem.weight.shape
    blocks = torch.rand(n // size, k // size)
    kept = blocks > blocks.flatten().kthvalue(max(1, round(sparsity * blocks.numel()))).values
    weight = problem.weight * kept.repeat_interleave(size, 0).repeat_interleave(size, 1)
    columns, bias = problem.input.T.contiguous(), problem.bias.unsqueeze(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bsr = weight.to_sparse_bsr((size, size))
    return lambda: torch.addmm(bias, bsr, columns)
