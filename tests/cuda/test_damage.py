"""Damaged and crafted indices: refused on the device they are loaded to, and harmless to a product all the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import sparsecore as sc
from sparsecore._library import has_kernel
from sparsecore.formats.base import PackedWeight
from sparsecore.nn._packed import _as_buffer
from sparsecore.ops import vnm_compress, vnm_linear, vnm_validate
from sparsecore.ops._fault import first_fault

pytestmark = pytest.mark.usefixtures("as_cuda")
N, K = 70, 200
Damage = Callable[[PackedWeight], PackedWeight]
LAYOUTS = {
    "shared_lists": sc.NM(2, 8, vector=16),
    "group_lists": sc.Group(4, 4),
    "bitmap_decode": sc.Unstructured(),
    "semi_structured": sc.NM(2, 4),
    "lifted": sc.NM(4, 6),
    "block_sparse": sc.Group(16, 16),
    "vnm": sc.VNM(32, 2, 8),
}


def packed(kind: str, device: str) -> PackedWeight:
    torch.manual_seed(1)
    dense, pattern = torch.randn(N, K).to(torch.bfloat16), LAYOUTS[kind]
    sparsity = None if isinstance(pattern, sc.NM) else 0.6
    layout = "semi_structured" if kind == "lifted" else kind
    weight = sc.pack(
        dense.to(device) if layout == "semi_structured" else dense, pattern, sparsity=sparsity, layout=layout
    )
    return weight.to(device=device)


def put(name: str, place: int, value: int) -> Damage:
    """One element of an array becomes another number."""

    def damage(weight: PackedWeight) -> PackedWeight:
        array = getattr(weight, name).clone()
        array.view(-1)[place] = value
        return replace(weight, **{name: array})

    return damage


def swap(name: str, place: int) -> Damage:
    """Two neighbours change places."""

    def damage(weight: PackedWeight) -> PackedWeight:
        array = getattr(weight, name).clone()
        flat = array.view(-1)
        flat[place : place + 2] = flat[place : place + 2].flip(0).clone()
        return replace(weight, **{name: array})

    return damage


def repeat(name: str, place: int) -> Damage:
    """An element is that before it once more."""

    def damage(weight: PackedWeight) -> PackedWeight:
        array = getattr(weight, name).clone()
        array.view(-1)[place] = array.view(-1)[place - 1]
        return replace(weight, **{name: array})

    return damage


def cut(name: str) -> Damage:
    """The last of an array's first dimension is missing."""
    return lambda weight: replace(weight, **{name: getattr(weight, name)[:-1].clone()})


def bit(word: int, place: int) -> Damage:
    """A bit of a bitmap is another."""

    def damage(weight: PackedWeight) -> PackedWeight:
        bitmap = weight.bitmap.clone()  # type: ignore[attr-defined]
        bitmap.view(-1)[word] ^= -(2**63) if place == 63 else 2**place
        return replace(weight, bitmap=bitmap)  # type: ignore[call-arg]

    return damage


ASCEND = "the starts of the lists do not ascend"
OUTSIDE = "an index points outside its block, group or row"
UNSORTED = "not strictly ascending"
SIZES = "must be .* of shape|must have shape|records"
CASES: list[tuple[str, str, Damage, str]] = [
    ("shared_lists", "column past the end", put("columns", 3, K), f"{OUTSIDE}, at record 3"),
    ("shared_lists", "largest column", put("columns", 7, -1), f"{OUTSIDE}, at record 7"),
    ("shared_lists", "descending columns", swap("columns", 10), f"{UNSORTED}, at record 11"),
    ("shared_lists", "a column twice", repeat("columns", 20), f"{UNSORTED}, at record 20"),
    ("shared_lists", "starts descend", swap("group_ptr", 1), ASCEND),
    ("shared_lists", "starts past the end", put("group_ptr", 2, 2**31 - 1), ASCEND),
    ("shared_lists", "negative start", put("group_ptr", 1, -(2**31)), ASCEND),
    ("shared_lists", "first start", put("group_ptr", 0, 1), ASCEND),
    ("shared_lists", "too few records", put("group_ptr", -1, 3), ASCEND),
    ("shared_lists", "columns cut off", cut("columns"), SIZES),
    ("shared_lists", "starts cut off", cut("group_ptr"), SIZES),
    ("shared_lists", "values cut off", cut("values"), SIZES),
    ("group_lists", "index past the end", put("index", 3, 255), f"{OUTSIDE}, at record or place 3"),
    ("group_lists", "a block twice", repeat("index", 1), f"{UNSORTED}, at record or place 1"),
    ("group_lists", "descending blocks", swap("index", 0), f"{UNSORTED}, at record or place 1"),
    ("group_lists", "padding", put("index", -1, 1), OUTSIDE),
    ("group_lists", "starts descend", put("starts", 2, 0), ASCEND),
    ("group_lists", "starts past the end", put("starts", 1, 2**31 - 1), ASCEND),
    ("group_lists", "negative start", put("starts", 5, -1), ASCEND),
    ("group_lists", "too few records", put("starts", -1, 3), ASCEND),
    ("group_lists", "a group twice", repeat("order", 1), f"{OUTSIDE}, at record or place 1"),
    ("group_lists", "a group past the window", put("order", 2, 255), OUTSIDE),
    ("group_lists", "index cut off", cut("index"), SIZES),
    ("group_lists", "order cut off", cut("order"), SIZES),
    ("group_lists", "starts cut off", cut("starts"), SIZES),
    ("bitmap_decode", "a bit past the end", bit(3, 63), f"{OUTSIDE}, at row 0"),
    ("bitmap_decode", "a bit too many or too few", bit(5, 17), f"{ASCEND}.*, at row 1"),
    ("bitmap_decode", "starts descend", swap("row_ptr", 5), ASCEND),
    ("bitmap_decode", "starts past the end", put("row_ptr", 2, 2**31 - 1), ASCEND),
    ("bitmap_decode", "negative start", put("row_ptr", 4, -7), ASCEND),
    ("bitmap_decode", "too few values", put("row_ptr", -1, 3), ASCEND),
    ("bitmap_decode", "values cut off", cut("values"), ASCEND),
    ("bitmap_decode", "bitmap cut off", cut("bitmap"), SIZES),
    ("bitmap_decode", "starts cut off", cut("row_ptr"), SIZES),
    ("semi_structured", "equal places", put("metadata", 3, 0), "two ascending places"),
    ("semi_structured", "descending places", put("metadata", 9, 0x11111111), "two ascending places"),
    ("semi_structured", "metadata cut off", cut("metadata"), SIZES),
    ("semi_structured", "values cut off", cut("values"), SIZES),
    ("semi_structured", "a value past the last channel", put("values", -1, 1), "inside the matrix"),
    ("lifted", "equal places", put("metadata", 3, 0), "two ascending places"),
    (
        "lifted",
        "an input in two windows",
        put("metadata", 3, 0x4E4E4E4E),
        "two windows|different inputs|past the last",
    ),
    (
        "block_sparse",
        "column past the end",
        put("col_indices", 2, 99),
        "col_indices are outside.* at entry 2",
    ),
    ("block_sparse", "negative column", put("col_indices", 1, -1), "col_indices are outside.* at entry 1"),
    ("block_sparse", "a column twice", repeat("col_indices", 1), "do not ascend strictly, at entry 1"),
    ("block_sparse", "starts descend", swap("crow_indices", 1), "crow_indices do not ascend"),
    ("block_sparse", "starts past the end", put("crow_indices", 2, 2**31 - 1), "crow_indices do not ascend"),
    ("block_sparse", "negative start", put("crow_indices", 1, -(2**31)), "crow_indices do not ascend"),
    ("block_sparse", "a row twice", repeat("order", 1), "order is not the rows"),
    ("block_sparse", "columns cut off", cut("col_indices"), SIZES),
    ("block_sparse", "starts cut off", cut("crow_indices"), SIZES),
    ("block_sparse", "order cut off", cut("order"), SIZES),
    ("vnm", "column past the end", put("columns", 3, K), "at place 3 of run 0 is outside of the weight's"),
    ("vnm", "descending columns", swap("columns", 4), "does not ascend"),
    ("vnm", "a column twice", repeat("columns", 9), "does not ascend"),
    ("vnm", "equal places", put("metadata", 3, 0), "two ascending places"),
    ("vnm", "columns cut off", cut("columns"), SIZES),
    ("vnm", "metadata cut off", cut("metadata"), SIZES),
    ("lifted", "metadata cut off", cut("metadata"), SIZES),
]


@pytest.mark.parametrize(
    ("kind", "damage", "message"), [(c[0], c[2], c[3]) for c in CASES], ids=[f"{c[0]}-{c[1]}" for c in CASES]
)
def test_damage_is_refused_on_the_device(kind: str, damage: Damage, message: str, device: str) -> None:
    weight = packed(kind, device)
    layer = sc.nn.SparseLinear.from_packed(weight)
    input = torch.randn(5, K, device=device).to(torch.bfloat16)
    before = layer(input)
    damaged = damage(weight)
    with pytest.raises(ValueError, match=message):
        damaged.validate()
    # A layer that is given it, by a checkpoint or as it is, keeps what it has.
    state = layer.state_dict()
    with pytest.raises(RuntimeError, match=message):
        layer.load_state_dict(
            state | {f"weight_{name}": _as_buffer(tensor) for name, tensor in damaged.tensors().items()}
        )
    with pytest.raises(ValueError, match=message):
        layer.replace_weight(damaged)
    assert torch.equal(layer(input), before)
    # Nobody asked: a product refuses sizes that do not fit, and stays inside of the arrays whatever they hold.
    try:
        output = damaged.linear(input)
    except RuntimeError as refusal:
        assert re.search(r"must|bytes of values|values has", str(refusal))
    else:
        assert output.shape == before.shape


@pytest.mark.parametrize("kind", ["shared_lists", "group_lists", "bitmap_decode"])
def test_the_verdict_is_the_hosts(kind: str, device: str) -> None:
    """Where the host says nothing more of a place, neither does this test."""
    assert has_kernel(f"{kind}_fault", device)
    for case in CASES:
        if case[0] != kind or case[3] == SIZES:
            continue
        weight = case[2](packed(kind, device))
        n, k = weight.shape
        arguments: tuple[object, ...] = (
            (weight.values, weight.bitmap, weight.row_ptr, n, k) if kind == "bitmap_decode" else ()
        )
        if kind == "shared_lists":
            arguments = (weight.columns, weight.group_ptr, weight.vector, n, k)
        if kind == "group_lists":
            arrays = (weight.index, weight.order, weight.starts)
            arguments = (*arrays, weight.rows, weight.cols, n, k, weight.depth, weight.window)
        on_host = [argument.cpu() if isinstance(argument, Tensor) else argument for argument in arguments]
        expected = getattr(torch.ops.sparsecore, f"{kind}_validate")(*on_host)
        found = first_fault(kind, *arguments)
        assert found[0] != 0
        assert (found[0] if kind == "bitmap_decode" else found) == expected, case[1]


def test_a_good_weight_has_no_fault(device: str) -> None:
    for kind in LAYOUTS:
        packed(kind, device).validate()
    weight = packed("shared_lists", device)
    assert first_fault("shared_lists", weight.columns, weight.group_ptr, 16, N, K) == (0, -1)
    torch.library.opcheck(
        torch.ops.sparsecore.shared_lists_fault.default, (weight.columns, weight.group_ptr, 16, N, K)
    )


@pytest.mark.parametrize("column", [-2, K, 2**15 - 1])
@pytest.mark.parametrize("place", [0, 9, 99])
def test_columns_of_runs(place: int, column: int, device: str) -> None:
    dense = torch.randn(N, K, device=device).to(torch.bfloat16)
    values, metadata, columns = vnm_compress(dense, vector=32)
    columns[1, place] = column
    with pytest.raises(ValueError, match=r"at place \d+ of run 1 is outside of the weight's 200 inputs"):
        vnm_validate(values, metadata, columns, out_features=N, in_features=K, vector=32)
    input = torch.randn(5, K, device=device).to(torch.bfloat16)
    assert vnm_linear(input, values, metadata, columns, out_features=N, vector=32).shape == (5, N)
    for missing in (columns[:1], columns[:, :-40], columns.int()):
        with pytest.raises((ValueError, RuntimeError), match=r"must|needs|has"):
            vnm_validate(values, metadata, missing.contiguous(), out_features=N, in_features=K, vector=32)
        with pytest.raises(RuntimeError, match=r"must|needs|has"):
            vnm_linear(input, values, metadata, missing.contiguous(), out_features=N, vector=32)
