"""Group lists as the exporter writes them, read back by the specification."""

from __future__ import annotations

import pytest
import torch

from sparsecore.export.pack import blocks_of, choose_blocks, pack_group_lists, quantise_rows
from sparsecore.reference import group_lists_unpack


def _matrix(n: int, k: int, rows: int, cols: int, density: float) -> torch.Tensor:
    groups, blocks = -(-n // rows), -(-k // cols)
    kept = torch.rand(groups, blocks) < density
    whole = kept.repeat_interleave(rows, 0).repeat_interleave(cols, 1)[:n, :k]
    return torch.randint(1, 9, (n, k)).float() * whole


@pytest.mark.parametrize(
    ("rows", "cols"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (32, 1), (1, 8), (4, 4), (16, 16)]
)
@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 15), (64, 128), (257, 129), (31, 1300)])
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_round_trip(n: int, k: int, rows: int, cols: int, density: float) -> None:
    matrix = _matrix(n, k, rows, cols, density)
    blocks = blocks_of(matrix, rows, cols)
    arrays, described = pack_group_lists(matrix, blocks)
    assert len(arrays["values"]) == int(blocks.kept.sum()) + 1
    arrays["index"] = arrays["index"].long()
    sizes = {name: described[name] for name in ("depth", "window")}
    assert torch.equal(group_lists_unpack(**arrays, out_features=n, in_features=k, **sizes), matrix)


@pytest.mark.parametrize(
    ("rows", "cols", "density", "expected"),
    [
        (1, 1, 0.1, (1, 1)),
        (4, 1, 0.1, (4, 1)),
        (16, 1, 0.1, (16, 1)),
        (16, 1, 0.7, (16, 1)),
        (4, 4, 0.2, (4, 4)),
        (1, 8, 0.1, (1, 8)),
        (1, 1, 1.0, (8, 1)),
        (1, 1, 0.95, (8, 1)),  # few zeros: stored, because taller groups are that much faster
    ],
)
def test_blocks_are_found(rows: int, cols: int, density: float, expected: tuple[int, int]) -> None:
    found = choose_blocks(_matrix(128, 256, rows, cols, density))
    assert (found.rows, found.cols) == expected


def test_blocks_of_an_empty_matrix() -> None:
    assert choose_blocks(torch.zeros(5, 7)).density == 0


def test_quantised_rows() -> None:
    matrix = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    values, scale = quantise_rows(matrix)
    assert values.tolist() == [[64, -127, 32], [0, 0, 0]]
    assert torch.isfinite(scale).all()
    assert float((values * scale[:, None] - matrix).abs().max()) <= 2 / 127 / 2
