"""Sparse matrices of torch and scipy as packed weights, and back.

Whoever made the matrix, its indices are checked before anything is read through them. Entries that name the same place
twice are summed where the library sums them (COO of torch, all of scipy) and refused where it does not allow them
(the compressed layouts of torch).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecore.formats.base import PackedWeight
from sparsecore.formats.check import check_pattern
from sparsecore.formats.pack import pack
from sparsecore.formats.select import spread, tiles, unit_shape
from sparsecore.patterns import Channel, Group, Pattern, Unstructured
from sparsecore.patterns import pattern as parse_pattern

_COMPRESSED = {
    torch.sparse_csr: "csr",
    torch.sparse_csc: "csc",
    torch.sparse_bsr: "bsr",
    torch.sparse_bsc: "bsc",
}
_LARGEST = 2**31 - 1


def _require_matrix(owner: str, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2 or not all(0 <= size <= _LARGEST for size in shape):
        raise ValueError(f"{owner}: needs a matrix (out_features, in_features), got shape {tuple(shape)}.")
    return shape[0], shape[1]


def _places(
    owner: str, pointers: Tensor, indices: Tensor, lists: int, length: int, repeats: bool
) -> tuple[Tensor, Tensor]:
    """List and index of every entry of a compressed layout, checked.

    Args:
        owner: For messages.
        pointers: ``(lists + 1,)``, where each list starts.
        indices: ``(entries,)``, each below ``length``.
        lists: How many there are.
        length: Of each.
        repeats: Whether a list may name an index twice and out of order.
    """
    pointers, indices = pointers.to(torch.int64).flatten(), indices.to(torch.int64).flatten()
    if len(pointers) != lists + 1 or int(pointers[0]) != 0 or int(pointers[-1]) != len(indices):
        raise ValueError(
            f"{owner}: the row pointers must be {lists + 1} numbers from 0 to the {len(indices)} entries. The matrix "
            f"is damaged."
        )
    counts = pointers.diff()
    if bool((counts < 0).any()):
        raise ValueError(
            f"{owner}: the row pointers descend at {int((counts < 0).nonzero()[0])}. The matrix is damaged."
        )
    if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= length):
        raise ValueError(f"{owner}: an index is outside of 0 to {length - 1}. The matrix is damaged.")
    owners = torch.repeat_interleave(torch.arange(lists), counts)
    if not repeats and len(indices) > 1:
        same = owners[1:] == owners[:-1]
        if bool((same & (indices[1:] <= indices[:-1])).any()):
            raise ValueError(
                f"{owner}: the indices of a list are not strictly ascending, which torch does not allow. Convert the "
                f"matrix from COO, which sums what is there twice."
            )
    return owners, indices


def _blocks_to_dense(
    rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int], block: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The dense matrix and the mask of what is stored; blocks that meet are added up."""
    height, width = block
    grid = (shape[0] // height, shape[1] // width)
    dense = values.new_zeros((*grid, height, width))
    dense.index_put_((rows, columns), values.reshape(-1, height, width), accumulate=True)
    stored = torch.zeros(grid, dtype=torch.bool)
    stored[rows, columns] = True
    return dense.permute(0, 2, 1, 3).reshape(shape), spread(stored, height, width, shape)


def _finish(
    owner: str,
    dense: Tensor,
    stored: Tensor,
    block: tuple[int, int],
    pattern: Pattern | str | None,
    dtype: torch.dtype | None,
    layout: str,
) -> PackedWeight:
    if dense.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        raise ValueError(
            f"{owner}: values must be floating point, got {dense.dtype}. Convert the matrix first."
        )
    if pattern is None:
        pattern = _pattern_of(block)
    pattern = parse_pattern(pattern)
    if isinstance(pattern, Channel):
        raise ValueError(f"{owner}: {pattern} is no pattern of a sparse matrix. Pack the dense one.")
    rows, cols = unit_shape(pattern)
    whole = spread(
        tiles(stored.int(), rows, cols).sum((1, 3)) > 0, rows, cols, (dense.shape[0], dense.shape[1])
    )
    found = check_pattern(stored.float(), pattern)
    if not found.ok:
        raise ValueError(f"{owner}: the matrix does not follow {found}. Use pattern='unstructured'.")
    return pack(dense, pattern, whole, dtype=dtype, layout=layout)


def _pattern_of(block: tuple[int, int]) -> Pattern:
    """Groups of the size of the blocks, or of the largest size there is that divides them."""
    rows, cols = (max(size for size in (1, 2, 4, 8, 16, 32) if length % size == 0) for length in block)
    if block == (64, 1):
        rows = 64
    return Unstructured() if rows == cols == 1 else Group(rows, cols)


def from_torch_sparse(
    matrix: Tensor,
    pattern: Pattern | str | None = None,
    *,
    dtype: torch.dtype | None = None,
    layout: str = "auto",
) -> PackedWeight:
    """Packs a sparse matrix of torch: COO, CSR, CSC, BSR or BSC.

    Args:
        matrix: ``(out_features, in_features)`` on the CPU. Stored zeros stay stored.
        pattern: What is kept together. None: groups of the size of the blocks (of the largest size with kernels that
            divides them); single weights where there are no blocks.
        dtype: Of the stored values. None: as the matrix.
        layout: See :func:`sparsecore.pack`.

    Returns:
        The packed weight.

    Raises:
        ValueError: Damaged indices, entries that name a place twice in a compressed layout, or a matrix that does not
            follow the pattern.
    """
    owner = "from_torch_sparse"
    if not isinstance(matrix, Tensor) or matrix.layout == torch.strided:
        raise TypeError(
            f"{owner}: needs a sparse tensor, got {getattr(matrix, 'layout', type(matrix).__name__)}."
        )
    if matrix.device.type != "cpu":
        raise ValueError(f"{owner}: the matrix is on {matrix.device}. Use .cpu().")
    shape = _require_matrix(owner, tuple(matrix.shape))
    matrix = matrix.detach()
    if matrix.layout == torch.sparse_coo:
        if matrix.dense_dim():
            raise ValueError(f"{owner}: entries of a hybrid tensor are no single weights.")
        places, values = matrix._indices(), matrix._values()
        limits = torch.tensor(shape).unsqueeze(1)
        if places.numel() and (int(places.min()) < 0 or bool((places >= limits).any())):
            raise ValueError(
                f"{owner}: an index is outside of the {shape[0]} x {shape[1]} matrix. It is damaged."
            )
        dense, stored = _blocks_to_dense(places[0], places[1], values, shape, (1, 1))
        return _finish(owner, dense, stored, (1, 1), pattern, dtype, layout)
    if matrix.layout not in _COMPRESSED:
        raise ValueError(f"{owner}: there is no way to read the layout {matrix.layout}.")
    kind = _COMPRESSED[matrix.layout]
    by_row, values = kind in ("csr", "bsr"), matrix.values()
    pointers = matrix.crow_indices() if by_row else matrix.ccol_indices()
    indices = matrix.col_indices() if by_row else matrix.row_indices()
    block = (int(values.shape[1]), int(values.shape[2])) if kind in ("bsr", "bsc") else (1, 1)
    grid = _grid(owner, shape, block)
    lists, length = grid if by_row else grid[::-1]
    owners, inner = _places(owner, pointers, indices, lists, length, repeats=False)
    rows, columns = (owners, inner) if by_row else (inner, owners)
    dense, stored = _blocks_to_dense(rows, columns, values, shape, block)
    return _finish(owner, dense, stored, block, pattern, dtype, layout)


def _grid(owner: str, shape: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    if 0 in block or shape[0] % block[0] or shape[1] % block[1]:
        raise ValueError(
            f"{owner}: blocks of {block[0]} x {block[1]} do not tile a {shape[0]} x {shape[1]} matrix. It is damaged."
        )
    return shape[0] // block[0], shape[1] // block[1]


def from_scipy(
    matrix: Any,
    pattern: Pattern | str | None = None,
    *,
    dtype: torch.dtype | None = None,
    layout: str = "auto",
) -> PackedWeight:
    """Packs a sparse matrix or array of scipy: CSR and BSR as they are, any other format by way of CSR.

    Args:
        matrix: ``(out_features, in_features)``. Stored zeros stay stored; entries of one place are summed.
        pattern: As in :func:`from_torch_sparse`.
        dtype: Of the stored values. None: as the matrix.
        layout: See :func:`sparsecore.pack`.

    Returns:
        The packed weight.

    Raises:
        TypeError: Not a sparse matrix of scipy.
        ValueError: Damaged indices, or a matrix that does not follow the pattern.
    """
    owner = "from_scipy"
    if not hasattr(matrix, "tocsr") or not hasattr(matrix, "format"):
        raise TypeError(f"{owner}: needs a sparse matrix of scipy, got {type(matrix).__name__}.")
    shape = _require_matrix(owner, tuple(matrix.shape))
    compressed = matrix if matrix.format in ("csr", "bsr") else matrix.tocsr()
    values = torch.as_tensor(compressed.data)
    block = (int(values.shape[1]), int(values.shape[2])) if compressed.format == "bsr" else (1, 1)
    lists, length = _grid(owner, shape, block)
    rows, columns = _places(
        owner,
        torch.as_tensor(compressed.indptr),
        torch.as_tensor(compressed.indices),
        lists,
        length,
        repeats=True,
    )
    if len(values) < len(rows):
        raise ValueError(f"{owner}: {len(rows)} indices, but {len(values)} values. The matrix is damaged.")
    dense, stored = _blocks_to_dense(rows, columns, values[: len(rows)], shape, block)
    return _finish(owner, dense, stored, block, pattern, dtype, layout)


def to_torch_sparse(weight: PackedWeight, layout: torch.layout | None = None) -> Tensor:
    """A packed weight as a sparse matrix of torch; int8 values are scaled to float32.

    Args:
        weight: Any packed weight.
        layout: ``torch.sparse_csr``, ``torch.sparse_csc``, ``torch.sparse_bsr``, ``torch.sparse_bsc`` or
            ``torch.sparse_coo``. None: BSR where the pattern has groups that tile the matrix, else CSR. What is stored
            but zero is kept.

    Returns:
        ``(out_features, in_features)``.

    Raises:
        ValueError: A layout torch has not, or blocks that do not tile the matrix.
    """
    block = unit_shape(weight.pattern)
    n, k = weight.shape
    tiled = block != (1, 1) and n % block[0] == 0 and k % block[1] == 0
    if layout is None:
        layout = torch.sparse_bsr if tiled else torch.sparse_csr
    dense, mask = weight.to_dense().detach(), weight.mask()
    if layout == torch.sparse_coo:
        places = mask.nonzero().T.contiguous()
        return torch.sparse_coo_tensor(places, dense[mask], (n, k), is_coalesced=True, check_invariants=False)
    if layout not in _COMPRESSED:
        raise ValueError(
            f"to_torch_sparse: layout must be one of {[str(x) for x in _COMPRESSED]}, got {layout}."
        )
    blocked = layout in (torch.sparse_bsr, torch.sparse_bsc)
    if blocked and (n % block[0] or k % block[1]):
        raise ValueError(
            f"to_torch_sparse: blocks of {block[0]} x {block[1]} do not tile a {n} x {k} matrix. Use torch.sparse_csr."
        )
    height, width = block if blocked else (1, 1)
    stored = tiles(mask.int(), height, width).sum((1, 3)) > 0
    values = tiles(dense, height, width).permute(0, 2, 1, 3)
    by_row = layout in (torch.sparse_csr, torch.sparse_bsr)
    if not by_row:
        stored, values = stored.T, values.transpose(0, 1)
    counts = torch.cat([torch.zeros(1, dtype=torch.int64), stored.sum(1).cumsum(0)])
    kept = values[stored] if blocked else values[stored].flatten()
    indices = stored.nonzero()[:, 1]
    return torch.sparse_compressed_tensor(
        counts, indices, kept.contiguous(), (n, k), layout=layout, check_invariants=False
    )
