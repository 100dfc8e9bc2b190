"""What else computes the same product on a GPU, each made as fast as its interface allows.

A peer is a function of the work and of the device; it returns the call to time. What it needs once (packing, choosing
the best algorithm, padding few tokens to the number it takes) is not timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .device import Device
from .families.base import FLOATS, Call
from .sampling import interleaved


@dataclass(frozen=True)
class Work:
    """``x @ weight.T + bias``; 8-bit types leave the bias out and cuBLAS's int8 the scale as well."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    out_dtype: torch.dtype
    block: tuple[int, int] | None


def fastest(calls: dict[str, Call], device: Device) -> tuple[str, Call]:
    """The best of a few configurations, by five timings each; those that fail are left out."""
    working: dict[str, Call] = {}
    problem: Exception | None = None
    for name, call in calls.items():
        try:
            call()
            device.finish()
            working[name] = call
        except Exception as error:
            problem = error
    if not working:
        raise RuntimeError(f"no configuration works: {problem}")
    samples = interleaved(device, working, 5)
    best = min(working, key=lambda name: sorted(samples[name])[2])
    return best, working[best]


def padded(x: Tensor, multiple: int) -> Tensor:
    """Rows of zeros up to a multiple."""
    more = x.new_zeros(x.shape[0] + -x.shape[0] % multiple, x.shape[1])
    more[: x.shape[0]] = x
    return more


def cublas(work: Work, device: Device) -> tuple[str, Call]:
    if work.x.dtype in FLOATS:
        return "", lambda: functional.linear(work.x, work.weight, work.bias)
    transposed = work.weight.T
    if work.x.dtype == torch.int8:
        x = padded(work.x, 32)
        return "int32 out, no scale, no bias", lambda: torch._int_mm(x, transposed)
    x, one = padded(work.x, 16), torch.ones((), device=work.x.device)
    return "no bias", lambda: torch._scaled_mm(x, transposed, one, one, out_dtype=work.out_dtype)


def cusparselt(work: Work, device: Device) -> tuple[str, Call]:
    """The best of all its algorithms, and of what its own search recommends."""
    packed = torch._cslt_compress(work.weight)
    dense = padded(work.x, 8 if work.x.dtype in FLOATS else 16).T
    floats = work.x.dtype in FLOATS
    bias, out_dtype = (work.bias, None) if floats else (None, work.out_dtype)

    def product(algorithm: int, split_k: int = 1, mode: int = -1) -> Call:
        return lambda: torch._cslt_sparse_mm(
            packed,
            dense,
            bias=bias,
            out_dtype=out_dtype,
            transpose_result=True,
            alg_id=algorithm,
            split_k=split_k,
            split_k_mode=mode,
        )

    calls = {f"algorithm {i}": product(i) for i in range(32)}
    search = getattr(torch._C, "_cusparselt", None)
    if search is not None and hasattr(search, "mm_search"):
        algorithm, split_k, mode, _ = search.mm_search(packed, dense, bias, None, out_dtype, True)
        calls[f"its search: algorithm {algorithm}, split {split_k}, mode {mode}"] = product(
            algorithm, split_k, mode
        )
    return fastest(calls, device)


def cutlass(work: Work, device: Device) -> tuple[str, Call]:
    from torch.sparse import SparseSemiStructuredTensorCUTLASS

    sparse = SparseSemiStructuredTensorCUTLASS.from_dense(work.weight)
    x = padded(work.x, 8 if work.x.dtype in FLOATS else 16)
    bias = work.bias if work.x.dtype in FLOATS else None
    return "", lambda: functional.linear(x, sparse, bias)


def torch_bsr(work: Work, device: Device) -> tuple[str, Call]:
    assert work.block is not None
    sparse = work.weight.to_sparse_bsr(work.block)
    return "", lambda: functional.linear(work.x, sparse, work.bias)


def triton_bsr(work: Work, device: Device) -> tuple[str, Call]:
    from .triton_bsr import CONFIGURATIONS, bsr_linear

    assert work.block is not None
    sparse = work.weight.to_sparse_bsr(work.block)
    calls: dict[str, Call] = {
        str(configuration): lambda configuration=configuration: bsr_linear(
            work.x, sparse, work.bias, configuration
        )
        for configuration in CONFIGURATIONS
        if configuration[0] <= max(16, 2 ** math.ceil(math.log2(work.x.shape[0])))
    }
    return fastest(calls, device)


PEERS: dict[str, Callable[[Work, Device], tuple[str, Call]]] = {
    "cuBLAS": cublas,
    "cuSPARSELt": cusparselt,
    "CUTLASS 2:4": cutlass,
    "torch BSR": torch_bsr,
    "Triton BSR": triton_bsr,
}


NEED_CUDA = ("cuSPARSELt", "CUTLASS 2:4", "torch BSR", "Triton BSR")


def stand_in(work: Work) -> tuple[str, Call]:
    """In a dry run, for what needs a GPU."""
    bias = work.bias.float() if work.x.dtype in FLOATS else torch.zeros(())
    return "stand-in: dense torch", lambda: (work.x.float() @ work.weight.float().T + bias).to(work.out_dtype)


def peer(name: str, work: Work, device: Device) -> tuple[str, Call]:
    """A note and the call; raises where the peer cannot do this work."""
    return stand_in(work) if device.dry and name in NEED_CUDA else PEERS[name](work, device)
