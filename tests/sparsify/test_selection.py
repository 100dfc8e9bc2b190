"""Exact counts, ties, tails, and runs of columns that add up to the whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecore.formats.check import mask_violations
from sparsecore.patterns import NM, Group, Pattern, Unstructured
from sparsecore.sparsify.selection import Selector, check

SCOPES = ("row", "block", "layer")


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 20),
    width=st.integers(1, 40),
    sparsity=st.floats(0.0, 0.99),
    group=st.sampled_from([(1, 1), (4, 1), (8, 1), (1, 4), (2, 8), (4, 4)]),
    within=st.sampled_from(SCOPES),
    step=st.integers(1, 40),
    levels=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_counts_are_exact_whole_and_in_runs(
    rows: int,
    width: int,
    sparsity: float,
    group: tuple[int, int],
    within: str,
    step: int,
    levels: int,
    seed: int,
) -> None:
    height, cols = group
    pattern: Pattern = Group(height, cols) if group != (1, 1) else Unstructured()
    selector = Selector(pattern, sparsity, within)  # type: ignore[arg-type]
    # Few distinct scores: ties everywhere.
    score = torch.randint(0, levels, (rows, width), generator=torch.Generator().manual_seed(seed)).float()
    units, columns, step = -(-rows // height), -(-width // cols), step * cols
    expected = (
        units * round((1 - sparsity) * columns)
        if within == "row"
        else round((1 - sparsity) * units * columns)
    )
    whole = selector.mask(score)
    runs = torch.cat([selector.mask(score[:, s : s + step], s) for s in range(0, width, step)], 1)
    for mask in (whole, runs):
        assert mask[::height, ::cols].sum() == expected
        assert not mask_violations(mask, pattern)[0].any()


def test_ties_go_to_the_lowest_index() -> None:
    score = torch.ones(2, 6)
    assert Selector(Unstructured(), 0.5, "row").mask(score).tolist() == [[True] * 3 + [False] * 3] * 2
    assert Selector(Unstructured(), 0.5, "layer").mask(score).tolist() == [[True] * 6, [False] * 6]
    assert Selector(NM(2, 3), 1 / 3, "row").mask(score)[0].tolist() == [True, True, False] * 2


def test_short_last_groups() -> None:
    score = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]])
    assert Selector(NM(2, 4), 0.5, "row").mask(score)[0].tolist() == [
        False,
        False,
        True,
        True,
        False,
        True,
        True,
    ]
    assert Selector(NM(3, 5), 0.4, "row").mask(score)[0].tolist() == [
        False,
        False,
        True,
        True,
        True,
        True,
        True,
    ]


def test_shared_lists_sum_their_rows() -> None:
    score = torch.tensor([[9.0, 0, 0, 1], [0, 4, 4, 4], [0, 4, 5, 4], [0, 0, 0, 0.5]])
    mask = Selector(NM(1, 4, vector=4), 0.75, "row").mask(score)
    assert mask.tolist() == [[False, False, False, True]] * 4


def test_check_refuses_what_does_not_fit() -> None:
    assert check(NM(2, 4), None) == check(NM(2, 4), 0.5) == 0.5
    with pytest.raises(ValueError, match=r"fixes the sparsity to 0\.5, got 0\.6"):
        check(NM(2, 4), 0.6)
    with pytest.raises(ValueError, match="leaves the sparsity open"):
        check(Unstructured(), None)
    with pytest.raises(TypeError, match="got str"):
        check("2:4", None)  # type: ignore[arg-type]
