"""Packing: exact selection, exact round trips, real byte counts, and refusal of everything malformed."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsecore as sc
from sparsecore.formats.check import mask_violations
from sparsecore.formats.pack import from_tensors
from tests.cases import PACKINGS, packings


@packings
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_round_trip(pattern: sc.Pattern, layout: str, sparsity: float | None, dtype: torch.dtype) -> None:
    weight = torch.randn(45, 203, dtype=dtype)
    packed = sc.pack(weight, pattern, sparsity=sparsity, layout=layout).validate()
    assert torch.equal(packed.to_dense(), weight * packed.mask())
    if isinstance(pattern, sc.NM):
        assert sc.check_pattern(packed.to_dense(), pattern).ok
    again = from_tensors(layout, packed.shape, pattern, packed.tensors(), packed.attributes())
    assert torch.equal(again.to_dense(), packed.to_dense())


@packings
def test_kernels_pack_as_the_reference_does(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    for n, k in ((45, 203), (16, 64), (1, 1), (5, 0), (0, 7)):
        single = sc.pack(torch.randn(n, k), pattern, sparsity=sparsity, layout=layout)
        double = sc.pack(single.to_dense().double(), pattern, single.mask(), layout=layout)
        assert torch.equal(double.values.float(), single.values)
        for name in single.index_names:
            assert torch.equal(getattr(single, name), getattr(double, name)), name


def test_bytes_are_what_the_formats_say() -> None:
    n, k = 96, 512
    weight = torch.randn(n, k)
    rows = sc.pack(weight, sc.NM(2, 4))
    assert isinstance(rows, sc.RowLists)
    assert rows.nbytes == n * k // 2 * (4 + 1) + 4 * (k // rows.block) * (n + 1)
    shared = sc.pack(weight, sc.NM(2, 4, vector=32))
    assert shared.nbytes == n // 32 * (k // 2) * (32 * 4 + 2) + 4 * (n // 32 + 1)
    codes = sc.pack(weight, sc.NM(2, 4), layout="nm_decode")
    assert codes.nbytes == n * (k // 2 * 4 + k // 2 * 2 // 8)
    bits = sc.pack(weight, sc.Unstructured(), sparsity=0.75, layout="bitmap_decode")
    assert bits.nbytes == n * k // 4 * 4 + n * k // 8 + 4 * (n + 1)
    for group, dtype in (((4, 4), torch.float32), ((1, 16), torch.bfloat16), ((2, 1), torch.float16)):
        blocks = sc.pack(weight, sc.Group(*group), sparsity=0.75, dtype=dtype, layout="group_lists")
        assert isinstance(blocks, sc.GroupLists)
        records, size, panels = n * k // 4 // (group[0] * group[1]), dtype.itemsize, k // blocks.depth
        assert blocks.records == records
        bytes = (records + 1) * (group[0] * group[1] * size + 1) + panels * (5 * n // group[0] + 4)
        assert blocks.nbytes == bytes
    small = sc.pack(weight, sc.NM(2, 4, vector=32), dtype=torch.int8)
    assert small.nbytes == n // 32 * (k // 2) * (32 + 2) + 4 * (n // 32 + 1) + 4 * n


def test_selection_is_exact_and_ties_go_to_the_lowest_index() -> None:
    mask = sc.formats.select_mask(torch.ones(2, 10), sc.NM(2, 4))
    assert mask[0].tolist() == [True, True, False, False] * 2 + [True, True]
    mask = sc.formats.select_mask(torch.zeros(3, 5), sc.Unstructured(), 0.4)
    assert int(mask.sum()) == 9
    assert mask.flatten()[:9].all()
    mask = sc.formats.select_mask(torch.rand(33, 7), sc.Group(16, 1), 0.5)
    assert all(torch.equal(mask[0], mask[row]) for row in range(16))
    assert int(mask[::16].sum()) == round(0.5 * 3 * 7)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 40), k=st.integers(1, 90), m=st.integers(2, 32), data=st.data())
def test_every_group_keeps_n(n: int, k: int, m: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, m - 1))
    mask = sc.formats.select_mask(torch.rand(n, k), sc.NM(kept, m))
    full = k // m
    assert (mask[:, : full * m].view(n, full, m).sum(-1) == kept).all()
    assert (mask[:, full * m :].sum(-1) == min(kept, k - full * m)).all()


def test_check_pattern_counts_and_locates() -> None:
    weight = torch.zeros(8, 16)
    weight[5, 8:11] = 1.0
    found = sc.check_pattern(weight, sc.NM(2, 4))
    assert (found.ok, found.violations, found.groups, found.first) == (False, 1, 32, (5, 8))
    assert "first at row 5, column 8" in str(found)
    assert sc.check_pattern(weight, sc.NM(3, 4)).ok
    assert sc.check_pattern(weight, sc.Unstructured()).ok
    assert sc.check_pattern(weight, "4x4").sparsity == 1 - 3 / 128  # zeros inside a kept block do no harm
    with pytest.raises(ValueError, match=r"got shape \(8,\)"):
        sc.check_pattern(weight[:, 0], "4x4")


@pytest.mark.parametrize(
    "group", [(2, 1), (4, 1), (64, 1), (1, 4), (1, 32), (4, 4), (16, 4), (32, 32)], ids=str
)
@pytest.mark.parametrize("shape", [(32, 64), (33, 7), (1, 1), (0, 5), (5, 0), (70, 95)], ids=str)
def test_groups_are_kept_whole_at_edges_too(group: tuple[int, int], shape: tuple[int, int]) -> None:
    pattern, score = sc.Group(*group), torch.rand(shape)
    mask = sc.formats.select_mask(score, pattern, 0.5)
    assert not mask_violations(mask, pattern)[0].any()
    units = -(-shape[0] // group[0]) * -(-shape[1] // group[1])
    assert int(mask[:: group[0], :: group[1]].sum()) == round(0.5 * units)
    if mask.any() and mask[: group[0], : group[1]].numel() > 1:
        row, column = mask.nonzero()[-1].tolist()
        torn = mask.clone()
        torn[row, column] = False
        last = (row // group[0] * group[0], column // group[1] * group[1])
        if mask[last[0] : last[0] + group[0], last[1] : last[1] + group[1]].numel() > 1:
            with pytest.raises(ValueError, match=f"first at row {last[0]}, column {last[1]}"):
                sc.pack(score, pattern, torn)


def test_convolutions_are_checked_as_matrices() -> None:
    weight = torch.zeros(4, 8, 3, 3)
    weight[:, 4:8, 1, 2] = 1.0  # neighbouring inputs of one kernel position
    assert sc.check_pattern(weight, "2:4").first == (0, 44)
    assert sc.check_pattern(weight, "1x4").ok


def test_patterns_are_values() -> None:
    assert sc.NM(2, 4) == sc.pattern("2:4")
    assert sc.pattern("2:4/16") == sc.NM(2, 4, vector=16)
    assert sc.pattern("16x1") == sc.Group(16, 1)
    for rows, cols in ((2, 1), (64, 1), (1, 4), (1, 32), (4, 4), (16, 4), (16, 16), (32, 32)):
        name = f"{rows}x{cols}"
        assert sc.pattern(name) == sc.Group(rows, cols)
        assert sc.patterns.pattern_name(sc.pattern(name)) == name
    assert len({sc.NM(2, 4), sc.NM(2, 4), sc.Unstructured()}) == 2
    assert str(sc.NM(2, 4)) == "2:4 (keeps 2 of every 4)"
    for wrong in (
        lambda: sc.NM(4, 4),
        lambda: sc.NM(0, 4),
        lambda: sc.NM(1, 33),
        lambda: sc.NM(2, 4, vector=3),
        lambda: sc.Group(3, 1),
        lambda: sc.Group(1, 1),
        lambda: sc.Group(64, 2),
        lambda: sc.Group(4, 64),
        lambda: sc.Group(4, 12),
        lambda: sc.pattern("two of four"),
    ):
        with pytest.raises(ValueError, match=r"."):
            wrong()
    with pytest.raises(TypeError):
        sc.NM(2.0, 4)  # type: ignore[arg-type]


def test_pack_refuses_what_does_not_fit() -> None:
    weight = torch.randn(8, 16)
    with pytest.raises(ValueError, match="breaks 2:4"):
        sc.pack(weight, sc.NM(2, 4), torch.ones(8, 16, dtype=torch.bool))
    with pytest.raises(ValueError, match="mask must be bool"):
        sc.pack(weight, sc.NM(2, 4), torch.ones(8, 15, dtype=torch.bool))
    with pytest.raises(ValueError, match="fixes the sparsity"):
        sc.pack(weight, sc.NM(2, 4), sparsity=0.9)
    with pytest.raises(ValueError, match="not as 'nm_decode'"):
        sc.pack(weight, sc.Unstructured(), sparsity=0.5, layout="nm_decode")
    with pytest.raises(ValueError, match="weight must be"):
        sc.pack(torch.randn(8), sc.NM(2, 4))
    with pytest.raises(ValueError, match="inf or nan"):
        sc.pack(torch.full((4, 4), float("inf")), sc.NM(2, 4), dtype=torch.int8)


def _damage(packed: sc.PackedWeight) -> list[tuple[str, sc.PackedWeight]]:
    """Every way a file can lie about this weight, one at a time."""
    broken = []

    def change(label: str, **fields: object) -> None:
        broken.append((label, dataclasses.replace(packed, **fields)))

    for name in ("values", *packed.index_names):
        tensor = getattr(packed, name)
        change(f"short {name}", **{name: tensor[:-1].clone()})
        change(f"flat {name}", **{name: tensor.reshape(-1, 1)})
        change(f"typed {name}", **{name: tensor.to(torch.complex64)})
        if name != "values" and not tensor.is_floating_point():
            for place in (0, tensor.numel() // 2, tensor.numel() - 1):
                for value in (torch.iinfo(tensor.dtype).max, torch.iinfo(tensor.dtype).min):
                    other = tensor.clone()
                    if int(other.view(-1)[place]) != value:
                        other.view(-1)[place] = value
                        change(f"{name}[{place}] = {value}", **{name: other})
    change("shape", shape=(packed.shape[0] + 64, packed.shape[1]))
    return broken


@packings
def test_malformed_weights_are_refused(pattern: sc.Pattern, layout: str, sparsity: float | None) -> None:
    packed = sc.pack(torch.randn(37, 70), pattern, sparsity=sparsity, layout=layout)
    tolerated = []
    for label, broken in _damage(packed):
        try:
            broken.validate()
        except ValueError:
            continue
        tolerated.append((label, broken))
    for label, broken in tolerated:
        # a changed index may happen to be legal: then it must be a different, safe matrix
        assert "[" in label, label
        assert broken.linear(torch.randn(3, 70)).shape == (3, 37)
        assert not torch.equal(broken.mask(), packed.mask()) or layout == "nm_decode"


@packings
def test_kernels_survive_what_validate_refuses(
    pattern: sc.Pattern, layout: str, sparsity: float | None
) -> None:
    packed = sc.pack(torch.randn(37, 70), pattern, sparsity=sparsity, layout=layout)
    for _, broken in _damage(packed):
        for tokens in (1, 40):
            try:
                broken.linear(torch.randn(tokens, 70))
            except RuntimeError:
                continue


def test_scales_are_checked() -> None:
    packed = sc.pack(torch.randn(8, 16), sc.NM(2, 4), dtype=torch.int8)
    assert packed.scale is not None
    for scale in (None, torch.full((8,), float("nan")), torch.ones(7), torch.ones(8, dtype=torch.float64)):
        with pytest.raises(ValueError, match="scale"):
            dataclasses.replace(packed, scale=scale).validate()


def test_packings_cover_every_layout() -> None:
    # in files of their own: whole channels, which run as torch's dense product, blocks with a budget of bytes, and
    # what runs on CUDA alone
    elsewhere = {"channels", "variable_nm", "semi_structured", "block_sparse", "vnm"}
    assert {layout for _, layout, _ in PACKINGS} | elsewhere == set(sc.formats.pack.__globals__["LAYOUTS"])


@pytest.mark.parametrize(
    ("pattern", "layout"),
    [
        ("unstructured", "row_lists"),
        ("2:4", "row_lists"),
        ("2:4/4", "group_lists"),
        ("2:4/8", "group_lists"),
        ("2:4/16", "shared_lists"),
        ("1:4/64", "shared_lists"),
        ("2x1", "row_lists"),
        ("1x16", "row_lists"),
        ("2x4", "row_lists"),
        ("4x1", "group_lists"),
        ("8x1", "group_lists"),
        ("16x1", "shared_lists"),
        ("4x4", "group_lists"),
        ("16x16", "group_lists"),
    ],
)
def test_default_layouts_are_those_that_were_fastest(pattern: str, layout: str) -> None:
    weight = torch.randint(-8, 9, (64, 96)).float()
    sparsity = None if ":" in pattern else 0.5
    packed = sc.pack(weight, pattern, sparsity=sparsity)
    assert packed.layout == layout
    x = torch.randint(-4, 5, (33, 96)).float()
    for other in sc.formats.layouts_for(packed.pattern):
        same = sc.pack(weight, pattern, packed.mask(), layout=other)
        assert torch.equal(same.linear(x), x @ torch.where(packed.mask(), weight, 0.0).T)
