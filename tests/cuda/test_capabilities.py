"""What no kernel does is refused with what was needed and what there is."""

from __future__ import annotations

import pytest
import torch

import sparsecore
from sparsecore import NM, Unstructured
from sparsecore.formats import BitmapDecode, BlockSparse, SharedLists
from sparsecore.ops import (
    block_sparse_linear,
    semi_structured_compress,
    semi_structured_linear,
    shared_lists_linear,
    vnm_compress,
    vnm_linear,
)


def test_vectors_of_shared_lists(device: str) -> None:
    weight = sparsecore.pack(
        torch.randn(32, 64, dtype=torch.bfloat16), NM(2, 8, vector=4), layout="shared_lists"
    )
    assert isinstance(weight, SharedLists)
    values, columns, group_ptr = (
        tensor.to(device) for tensor in (weight.values, weight.columns, weight.group_ptr)
    )
    input = torch.randn(3, 64, device=device, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError) as refusal:
        shared_lists_linear(input, values, columns, group_ptr, out_features=32)
    message = str(refusal.value)
    assert "shared_lists_linear: no kernel for bfloat16 on sm_" in message
    assert ", vectors of 4, 3 tokens. There are " in message
    assert (
        "matmul_sm90: bfloat16, float16 on sm_90, vectors of 64, values at multiples of 16 bytes;" in message
    )
    assert "matmul_small_sm80: bfloat16, float16 on sm_80+, vectors of 8, 16, 32, 64," in message
    assert "up to 32 tokens;" in message
    assert "Convert or pack the weight for one of these" in message


def test_types_behind_a_bitmap(device: str) -> None:
    weight = sparsecore.pack(
        torch.randn(16, 100, dtype=torch.bfloat16), Unstructured(), sparsity=0.5, layout="bitmap_decode"
    )
    assert isinstance(weight, BitmapDecode)
    bitmap, row_ptr = weight.bitmap.to(device), weight.row_ptr.to(device)
    stored = weight.values.numel()
    narrow = torch.zeros(16, 100, device=device, dtype=torch.int8)
    message = (
        r"bitmap_decode_gather: no kernel for int8 on sm_\d+\. There are .*bitmap_to_dense_sm80 with int8 values: "
        r"float32, bfloat16, float16, int8 on sm_80\+; bitmap_gather_sm80: float32, bfloat16, float16 on sm_80\+"
    )
    with pytest.raises(RuntimeError, match=message):
        torch.ops.sparsecore.bitmap_decode_gather(narrow, bitmap, row_ptr, stored)
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int8):
        values = torch.ones(stored, device=device, dtype=dtype)
        dense = torch.ops.sparsecore.bitmap_decode_unpack(values, bitmap, row_ptr, 16, 100)
        assert int(dense.float().sum()) == stored


def test_types_of_lifted_products(device: str) -> None:
    _, metadata = semi_structured_compress(torch.randn(64, 96, device=device).to(torch.bfloat16), group=6)
    narrow = torch.zeros(1, 2, 4096, device=device).to(torch.float8_e4m3fn)
    input = torch.zeros(3, 96, device=device).to(torch.float8_e4m3fn)
    with pytest.raises(
        RuntimeError, match=r"no kernel for float8_e4m3 on .*lift.*bfloat16, float16, int8 on sm_80\+"
    ):
        semi_structured_linear(input, narrow, metadata.repeat(1, 1, 2), out_features=64, group=6)


def test_types_of_blocks_and_runs(device: str) -> None:
    blocks = BlockSparse.from_dense(torch.ones(32, 32, device=device, dtype=torch.bfloat16), block_size=16)
    input = torch.zeros(3, 32, device=device, dtype=torch.int8)
    with pytest.raises(
        RuntimeError, match=r"no kernel for int8 on .*linear_sm80: .* blocks of 16, 32, 64, 128"
    ):
        block_sparse_linear(
            input,
            blocks.values.to(torch.int8),
            blocks.crow_indices,
            blocks.col_indices,
            blocks.order,
            out_features=32,
            out_dtype=torch.float32,
        )
    values, metadata, columns = vnm_compress(torch.randn(32, 64, device=device).to(torch.bfloat16), vector=16)
    with pytest.raises(RuntimeError, match=r"no kernel for int8 on .*matmul_sm90: .* runs of 64, 128"):
        vnm_linear(
            torch.zeros(3, 64, device=device, dtype=torch.int8),
            values.to(torch.int8),
            metadata,
            columns,
            out_features=32,
            vector=16,
            out_dtype=torch.float32,
        )
