"""Sparse matrices of torch and scipy: exact round trips, and nothing damaged gets through."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

import sparsecore as sc
from sparsecore.formats import from_scipy, from_torch_sparse, to_torch_sparse

LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc)


@pytest.fixture(autouse=True)
def quiet() -> object:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Sparse (CSR|CSC|BSR|BSC) tensor support.*")
        yield


def _matrix(n: int = 24, k: int = 40, zeros: float = 0.7) -> Tensor:
    return torch.randn(n, k) * (torch.rand(n, k) > zeros)


def _sparse(dense: Tensor, layout: torch.layout, block: tuple[int, int] = (4, 2)) -> Tensor:
    blocked = layout in (torch.sparse_bsr, torch.sparse_bsc)
    return dense.to_sparse(layout=layout, **({"blocksize": block} if blocked else {}))


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_torch_round_trip(layout: torch.layout, dtype: torch.dtype) -> None:
    dense = _matrix().to(dtype)
    packed = from_torch_sparse(_sparse(dense, layout)).validate()
    assert torch.equal(packed.to_dense(), dense)
    blocked = layout in (torch.sparse_bsr, torch.sparse_bsc)
    assert packed.pattern == (sc.Group(4, 2) if blocked else sc.Unstructured())
    back = to_torch_sparse(packed, layout)
    assert back.layout == layout
    assert torch.equal(back.to_dense(), dense)
    assert from_torch_sparse(back).nbytes == packed.nbytes


@pytest.mark.parametrize("pattern", ["2:4", "unstructured", "4x1", "1x8", "4x4", "16x16", "channels"])
def test_any_packed_weight_becomes_a_sparse_tensor(pattern: str) -> None:
    packed = sc.pack(_matrix(zeros=0.0), pattern, sparsity=None if pattern == "2:4" else 0.5)
    for layout in (None, torch.sparse_coo, torch.sparse_csr, torch.sparse_csc):
        sparse = to_torch_sparse(packed, layout)
        assert torch.equal(sparse.to_dense(), packed.to_dense())
    if pattern == "16x16":
        with pytest.raises(ValueError, match="do not tile"):
            to_torch_sparse(packed, torch.sparse_bsr)
    assert to_torch_sparse(sc.pack(torch.zeros(4, 4), "4x4")).values().numel() == 0


def test_stored_zeros_stay_and_duplicates_follow_their_library() -> None:
    places = torch.tensor([[0, 0, 1, 1], [2, 2, 0, 1]])
    packed = from_torch_sparse(
        torch.sparse_coo_tensor(places, torch.tensor([1.0, 2.0, 0.0, 4.0]), (2, 3), check_invariants=True)
    )
    assert packed.to_dense().tolist() == [[0.0, 0.0, 3.0], [0.0, 4.0, 0.0]]
    assert packed.stored == 3  # a zero among them
    with pytest.raises(ValueError, match="not strictly ascending"):
        from_torch_sparse(
            torch.sparse_compressed_tensor(
                torch.tensor([0, 2, 3]),
                torch.tensor([2, 2, 0]),
                torch.ones(3),
                (2, 3),
                layout=torch.sparse_csr,
                check_invariants=False,
            )
        )


@pytest.mark.parametrize(
    ("pointers", "indices", "reason"),
    [
        ([0, 1, 5], [0, 1, 2], "row pointers must be"),
        ([0, 3, 1], [0, 1, 2], "row pointers"),
        ([1, 1, 3], [0, 1, 2], "row pointers must be"),
        ([0, 5, 3], [0, 1, 2], "descend"),
        ([0, 1, 3], [0, 1, 3], "outside of 0 to 2"),
        ([0, 1, 3], [0, -1, 2], "outside of 0 to 2"),
    ],
)
def test_damaged_indices_are_refused(pointers: list[int], indices: list[int], reason: str) -> None:
    damaged = torch.sparse_compressed_tensor(
        torch.tensor(pointers),
        torch.tensor(indices),
        torch.ones(3),
        (2, 3),
        layout=torch.sparse_csr,
        check_invariants=False,
    )
    with pytest.raises(ValueError, match=reason):
        from_torch_sparse(damaged)


def test_other_refusals() -> None:
    with pytest.raises(TypeError, match="needs a sparse tensor"):
        from_torch_sparse(torch.ones(2, 2))
    with pytest.raises(TypeError, match="scipy"):
        from_scipy(torch.ones(2, 2))
    with pytest.raises(ValueError, match="floating point"):
        from_torch_sparse(torch.ones(2, 2, dtype=torch.int64).to_sparse())
    with pytest.raises(ValueError, match="does not follow 2:4"):
        from_torch_sparse(torch.ones(4, 8).to_sparse(), "2:4")
    with pytest.raises(ValueError, match="no pattern of a sparse matrix"):
        from_torch_sparse(torch.ones(4, 8).to_sparse(), "channels")
    with pytest.raises(ValueError, match="got shape"):
        from_torch_sparse(torch.ones(2, 2, 2).to_sparse())
    with pytest.raises(ValueError, match="layout must be one of"):
        to_torch_sparse(sc.pack(torch.ones(4, 4), "4x4"), torch.strided)


def test_blocks_without_kernels_become_the_largest_that_divide_them() -> None:
    dense = _matrix(24, 48)
    packed = from_torch_sparse(_sparse(dense, torch.sparse_bsr, (12, 24)))
    assert packed.pattern == sc.Group(4, 8)
    assert torch.equal(packed.to_dense(), dense)


@pytest.mark.parametrize("format", ["csr", "bsr", "csc", "coo", "lil", "dia"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
def test_scipy(format: str, kind: str) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dense = _matrix()
    made = getattr(sparse, f"{format}_{kind}")(dense.numpy())
    if format == "bsr":
        made = made.tobsr((4, 2))
    packed = from_scipy(made).validate()
    assert torch.equal(packed.to_dense(), dense)
    assert packed.pattern == (sc.Group(4, 2) if format == "bsr" else sc.Unstructured())
    if format == "csr":
        assert from_scipy(made, "4x1").pattern == sc.Group(4, 1)
        twice = sparse.csr_matrix(([1.0, 2.0, 3.0], [2, 2, 0], [0, 3, 3]), shape=(2, 3))
        assert from_scipy(twice).to_dense().tolist() == [[3.0, 0.0, 3.0], [0.0, 0.0, 0.0]]
        made.indices[0] = 1000
        with pytest.raises(ValueError, match="outside of 0 to 39"):
            from_scipy(made)
