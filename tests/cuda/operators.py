"""One call of every operator that has CUDA kernels, for what must hold of all of them: devices, memory, streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecore import Group
from sparsecore.formats import BlockSparse
from sparsecore.ops import semi_structured_compress, vnm_compress
from tests.cuda import test_bitmap_decode, test_group_lists, test_shared_lists

# Few tokens, few outputs and many inputs: the products split their sums and need a workspace.
TOKENS, OUTPUTS, INPUTS = 5, 32, 4096


@dataclass(frozen=True)
class Call:
    """An operator and its arguments; ``aside`` names tensors that only the backward pass reads."""

    operator: str
    arguments: dict[str, Any]
    aside: tuple[str, ...] = ()

    def __call__(self, **changed: Any) -> tuple[Tensor, ...]:
        output = getattr(torch.ops.sparsecore, self.operator)(**{**self.arguments, **changed})
        return output if isinstance(output, tuple) else (output,)

    @property
    def varied(self) -> str:
        """The tensor that may hold other numbers."""
        names = ("input", "grad_output", "grad", "dense", "weight", "values", "order", "columns")
        return next(name for name in names if name in self.arguments)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Those that the operator itself reads."""
        return {
            name: value
            for name, value in self.arguments.items()
            if isinstance(value, Tensor) and name not in self.aside
        }


def random(*shape: int, device: str, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(device).to(dtype)


def dense_side(device: str) -> dict[str, Any]:
    """What every linear operator takes beside its weight and sizes."""
    return {
        "input": random(TOKENS, INPUTS, device=device),
        "scale": torch.linspace(0.5, 1.5, OUTPUTS, device=device),
        "bias": random(OUTPUTS, device=device),
        "out_features": OUTPUTS,
        "activation": 0,
    }


def full_side(device: str) -> dict[str, Any]:
    """What tensor-core formats take besides."""
    return {
        **dense_side(device),
        "token_scale": torch.linspace(0.5, 1.5, TOKENS, device=device),
        "residual": random(TOKENS, OUTPUTS, device=device),
        "out_dtype": torch.bfloat16,
    }


def weight_of(device: str) -> Tensor:
    return random(OUTPUTS, INPUTS, device=device)


def packed(device: str, group: int = 4) -> dict[str, Tensor]:
    values, metadata = semi_structured_compress(weight_of(device), group=group)
    return {"values": values, "metadata": metadata}


def compress(device: str) -> Call:
    weight = weight_of(device)
    mask = (torch.arange(INPUTS, device=device) % 4 < 2).repeat(OUTPUTS, 1)
    return Call(
        "semi_structured_compress", {"weight": weight, "mask": mask, "selection": 0, "transposed": False}
    )


def compress_both_ways(device: str) -> Call:
    arguments = {"weight": weight_of(device), "mask": None, "selection": 2, "transposed": True}
    return Call("semi_structured_compress", arguments)


def of_packed(operator: str) -> Callable[[str], Call]:
    return lambda device: Call(operator, {**packed(device), "out_features": OUTPUTS, "in_features": INPUTS})


def semi_structured_linear(group: int) -> Callable[[str], Call]:
    return lambda device: Call(
        "semi_structured_linear", {**full_side(device), **packed(device, group), "group": group}
    )


def masked_linear(device: str) -> Call:
    weight = weight_of(device)
    values, metadata, values_t, metadata_t = semi_structured_compress(
        weight, selection="two_way", transposed=True
    )
    arguments = {
        "input": random(TOKENS, INPUTS, device=device),
        "weight": weight,
        "bias": random(OUTPUTS, device=device),
        "values": values,
        "metadata": metadata,
        "values_t": values_t,
        "metadata_t": metadata_t,
        "decay": 0.0,
    }
    return Call("semi_structured_masked_linear", arguments, ("weight", "values_t", "metadata_t"))


def gather(device: str) -> Call:
    return Call(
        "semi_structured_gather", {"dense": weight_of(device), "metadata": packed(device)["metadata"]}
    )


def gradients(device: str) -> dict[str, Tensor]:
    return {
        "grad_output": random(TOKENS, OUTPUTS, device=device),
        "input": random(TOKENS, INPUTS, device=device),
    }


def sampled(device: str) -> Call:
    both = gradients(device)
    arguments = {
        "grad": both["grad_output"],
        "input": both["input"],
        "metadata": packed(device)["metadata"],
    }
    return Call("semi_structured_sampled", arguments)


def straight_through(device: str) -> Call:
    weight = weight_of(device)
    return Call(
        "semi_structured_straight_through",
        {"grad": weight + 1, "weight": weight, **packed(device), "decay": 0.5},
    )


def vnm_linear(device: str) -> Call:
    values, metadata, columns = vnm_compress(weight_of(device), vector=32, m=8)
    arguments = {"values": values, "metadata": metadata, "columns": columns, "vector": 32}
    return Call("vnm_linear", {**full_side(device), **arguments})


def shared_lists(device: str) -> dict[str, Tensor]:
    weight = test_shared_lists.packed(OUTPUTS, INPUTS, 16, torch.bfloat16, device)
    return dict(zip(("values", "columns", "group_ptr"), test_shared_lists.lists(weight), strict=True))


def shared_lists_linear(device: str) -> Call:
    return Call("shared_lists_linear", {**dense_side(device), **shared_lists(device), "compute": 0})


def shared_lists_weight_grad(device: str) -> Call:
    lists = shared_lists(device)
    del lists["values"]
    return Call("shared_lists_weight_grad", {**gradients(device), **lists, "vector": 16})


def shared_lists_unpack(device: str) -> Call:
    return Call(
        "shared_lists_unpack", {**shared_lists(device), "out_features": OUTPUTS, "in_features": INPUTS}
    )


def shared_lists_fault(device: str) -> Call:
    lists = shared_lists(device)
    del lists["values"]
    sizes = {"vector": 16, "out_features": OUTPUTS, "in_features": INPUTS}
    return Call("shared_lists_fault", {**lists, **sizes})


def group_lists(device: str) -> tuple[dict[str, Tensor], dict[str, int]]:
    weight = test_group_lists.packed(OUTPUTS, INPUTS, Group(4, 1), torch.bfloat16, device)
    names = ("values", "index", "order", "starts")
    lists = dict(zip(names, test_group_lists.lists(weight), strict=True))
    return lists, {"depth": weight.depth, "window": weight.window}


def group_lists_linear(device: str) -> Call:
    lists, sizes = group_lists(device)
    return Call("group_lists_linear", {**dense_side(device), **lists, **sizes, "compute": 0})


def group_lists_weight_grad(device: str) -> Call:
    lists, sizes = group_lists(device)
    del lists["values"]
    return Call("group_lists_weight_grad", {**gradients(device), **lists, "rows": 4, "cols": 1, **sizes})


def group_lists_fault(device: str) -> Call:
    lists, sizes = group_lists(device)
    del lists["values"]
    sizes |= {"rows": 4, "cols": 1, "out_features": OUTPUTS, "in_features": INPUTS}
    return Call("group_lists_fault", {**lists, **sizes})


def bitmap_decode_linear(device: str) -> Call:
    _, arrays = test_bitmap_decode.packed_weight(OUTPUTS, INPUTS, torch.int8, device)
    weight = dict(zip(("values", "bitmap", "row_ptr"), arrays, strict=True))
    return Call("bitmap_decode_linear", {**dense_side(device), **weight, "compute": 0})


def bitmap_decode(device: str) -> dict[str, Any]:
    _, arrays = test_bitmap_decode.packed_weight(OUTPUTS, INPUTS, torch.bfloat16, device)
    return dict(zip(("values", "bitmap", "row_ptr"), arrays, strict=True))


def bitmap_decode_many_tokens(device: str) -> Call:
    """Beyond what the kernel takes: the weight is unpacked for a dense product."""
    side = {**dense_side(device), "input": random(129, INPUTS, device=device)}
    return Call("bitmap_decode_linear", {**side, **bitmap_decode(device), "compute": 0})


def bitmap_decode_unpack(device: str) -> Call:
    sizes = {"out_features": OUTPUTS, "in_features": INPUTS}
    return Call("bitmap_decode_unpack", {**bitmap_decode(device), **sizes})


def bitmap_decode_fault(device: str) -> Call:
    sizes = {"out_features": OUTPUTS, "in_features": INPUTS}
    return Call("bitmap_decode_fault", {**bitmap_decode(device), **sizes})


def bitmap_decode_gather(device: str) -> Call:
    arrays = bitmap_decode(device)
    stored = arrays.pop("values").numel()
    return Call("bitmap_decode_gather", {"dense": weight_of(device), **arrays, "stored": stored})


def block_sparse(device: str, outputs: int = OUTPUTS, inputs: int = INPUTS) -> BlockSparse:
    mask = torch.rand(outputs // 16, inputs // 16, generator=torch.Generator().manual_seed(2)) < 0.5
    return BlockSparse.from_dense(random(outputs, inputs, device=device), mask.to(device), block_size=16)


def block_sparse_linear(device: str) -> Call:
    weight = block_sparse(device)
    arrays = {name: getattr(weight, name) for name in ("values", "crow_indices", "col_indices", "order")}
    return Call("block_sparse_linear", {**full_side(device), **arrays})


TRANSPOSED = ("ccol_indices", "row_indices", "order_t", "source")


def block_sparse_input_grad(device: str) -> Call:
    weight = block_sparse(device, INPUTS, OUTPUTS)  # whose gradient is split as the other products are
    arrays = dict(zip(TRANSPOSED, weight.transposed, strict=True))
    grad = {"grad_output": random(TOKENS, INPUTS, device=device)}
    return Call(
        "block_sparse_input_grad", {**grad, "values": weight.values, **arrays, "in_features": OUTPUTS}
    )


def block_sparse_weight_grad(device: str) -> Call:
    weight = block_sparse(device)
    index = {"crow_indices": weight.crow_indices, "col_indices": weight.col_indices, "block_size": 16}
    return Call("block_sparse_weight_grad", {**gradients(device), **index, "out_dtype": torch.bfloat16})


def block_sparse_validate(device: str) -> Call:
    weight = block_sparse(device)
    arrays = {name: getattr(weight, name) for name in ("crow_indices", "col_indices", "order")}
    arrays |= dict(zip(TRANSPOSED, weight.transposed, strict=True))
    sizes = {"out_features": OUTPUTS, "in_features": INPUTS, "block_size": 16}
    return Call("block_sparse_validate", {**arrays, **sizes})


CALLS: dict[str, Callable[[str], Call]] = {
    "bitmap_decode_fault": bitmap_decode_fault,
    "bitmap_decode_gather": bitmap_decode_gather,
    "bitmap_decode_linear": bitmap_decode_linear,
    "bitmap_decode_linear, many tokens": bitmap_decode_many_tokens,
    "bitmap_decode_unpack": bitmap_decode_unpack,
    "block_sparse_input_grad": block_sparse_input_grad,
    "block_sparse_linear": block_sparse_linear,
    "block_sparse_validate": block_sparse_validate,
    "block_sparse_weight_grad": block_sparse_weight_grad,
    "group_lists_fault": group_lists_fault,
    "group_lists_linear": group_lists_linear,
    "group_lists_weight_grad": group_lists_weight_grad,
    "semi_structured_compress": compress,
    "semi_structured_compress, both ways": compress_both_ways,
    "semi_structured_decompress": of_packed("semi_structured_decompress"),
    "semi_structured_gather": gather,
    "semi_structured_linear": semi_structured_linear(4),
    "semi_structured_linear, groups of 6": semi_structured_linear(6),
    "semi_structured_masked_linear": masked_linear,
    "semi_structured_sampled": sampled,
    "semi_structured_straight_through": straight_through,
    "semi_structured_validate": of_packed("semi_structured_validate"),
    "shared_lists_fault": shared_lists_fault,
    "shared_lists_linear": shared_lists_linear,
    "shared_lists_unpack": shared_lists_unpack,
    "shared_lists_weight_grad": shared_lists_weight_grad,
    "vnm_linear": vnm_linear,
}
