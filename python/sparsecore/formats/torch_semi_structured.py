"""torch's semi-structured weights, CUTLASS layout: half of the values, and metadata that says where they stand.

The layout is that of ``torch.sparse._semi_structured_conversions``, whose functions agree with these bit for bit; a
``SparseSemiStructuredTensorCUTLASS`` made by ``to_sparse_semi_structured`` holds the two tensors as ``packed`` and
``meta``.

cuSPARSELt keeps both in one buffer, ``torch._cslt_compress(dense)``. Of it torch documents that the first half of the
weights are the kept ones and the rest is metadata; how the metadata is laid out only the library knows. So weights come
from cuSPARSELt and go to it through the dense matrix, on the GPU that has it.

============== ============ ========= ================ ====================
values         pattern      meta      rows multiple of inputs multiple of
============== ============ ========= ================ ====================
float16        2 of 4       int16     32               32
bfloat16       2 of 4       int16     32               32
float32        1 of 2       int16     32               16
int8           2 of 4       int32     16               64
============== ============ ========= ================ ====================

A group is four inputs (float32: two), and its code is four bits: the place of the first kept weight in the low two, of
the second in the high two. A float32 counts as two halves, so its codes are 0b0100 (first) and 0b1110 (second).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.sparse.semi_structured import (
    SparseSemiStructuredTensor,
    SparseSemiStructuredTensorCUSPARSELT,
    SparseSemiStructuredTensorCUTLASS,
)

from sparsecore.formats.base import PackedWeight, require_tensor
from sparsecore.formats.layouts import default_layout
from sparsecore.formats.pack import pack, pack_stored
from sparsecore.formats.semi_structured import SemiStructured
from sparsecore.patterns import NM

_NONE = 0  # not a code: both places are 0

# by which of the places 0 to 3 are kept, place 0 the lowest bit; torch's choice where fewer than two are
_CODE_OF_KEPT = {
    NM(2, 4): (0xE, 0x8, 0x9, 0x4, 0xE, 0x8, 0x9, _NONE, 0xE, 0xC, 0xD, _NONE, 0xE, _NONE, _NONE, _NONE),
    NM(1, 2): (0xE, 0x4, 0xE, _NONE),
}


@dataclass(frozen=True)
class _Layout:
    """How weights of one dtype are laid out."""

    pattern: NM
    meta: torch.dtype

    @property
    def rows(self) -> int:
        return 32 if self.meta == torch.int16 else 16

    @property
    def codes(self) -> int:
        """Codes in one element of the metadata."""
        return 2 * self.meta.itemsize

    @property
    def inputs(self) -> int:
        """Of two metadata columns, the fewest that the interleaving can place."""
        return 2 * self.codes * self.pattern.m


_LAYOUTS = {
    torch.float16: _Layout(NM(2, 4), torch.int16),
    torch.bfloat16: _Layout(NM(2, 4), torch.int16),
    torch.float32: _Layout(NM(1, 2), torch.int16),
    torch.int8: _Layout(NM(2, 4), torch.int32),
}


def _layout(owner: str, dtype: torch.dtype) -> _Layout:
    if dtype not in _LAYOUTS:
        raise ValueError(
            f"{owner}: torch has a semi-structured layout for float16, bfloat16, float32 and int8, got {dtype}. "
            "Convert the weight first."
        )
    return _LAYOUTS[dtype]


def _check_shape(owner: str, rows: int, inputs: int, dtype: torch.dtype) -> None:
    layout = _LAYOUTS[dtype]
    if rows == 0 or inputs == 0 or rows % layout.rows or inputs % layout.inputs:
        raise ValueError(
            f"{owner}: the layout takes {dtype} weights with outputs in multiples of {layout.rows} and inputs in "
            f"multiples of {layout.inputs}, got {rows} x {inputs}. Pad the weight with zeros."
        )


def _interleave(meta: Tensor) -> Tensor:
    """Row-major metadata in the order that tensor cores load it.

    Each two columns stand together, column pairs outermost. Rows 8 apart become neighbours, and of each 2 x 2 block
    that then arises rows and columns change places.
    """
    rows, columns = meta.shape
    pairs = meta.element_size() == 2
    blocks = meta.reshape(-1, 2 if pairs else 1, 2, 8, columns // 2, 2)
    return blocks.permute(4, 0, 3, 1, 5, 2).reshape(rows, columns).contiguous()


def _deinterleave(meta: Tensor) -> Tensor:
    """What :func:`_interleave` was given."""
    rows, columns = meta.shape
    pairs = meta.element_size() == 2
    blocks = meta.reshape(columns // 2, -1, 8, 2 if pairs else 1, 2, 2)
    return blocks.permute(1, 3, 5, 2, 0, 4).reshape(rows, columns)


def _join(codes: Tensor, dtype: torch.dtype) -> Tensor:
    """Codes ``(rows, groups)``, uint8, as elements of the metadata: the first in the lowest bits."""
    return (codes[:, 0::2] | codes[:, 1::2] << 4).contiguous().view(dtype)


def _split(meta: Tensor) -> Tensor:
    """What :func:`_join` was given."""
    both = meta.contiguous().view(torch.uint8)
    return torch.stack((both & 0xF, both >> 4), -1).flatten(1)


def _places(codes: Tensor, pattern: NM) -> Tensor:
    """Places ``(rows, groups, n)``, int64, that the codes name inside their groups."""
    if pattern == NM(1, 2):
        return (codes & 2).long().unsqueeze(-1) >> 1
    return torch.stack((codes & 3, codes >> 2), -1).long()


def _first(wrong: Tensor, pattern: NM) -> str:
    row, group = (int(i) for i in wrong.nonzero()[0])
    return f"row {row}, columns {group * pattern.m} to {(group + 1) * pattern.m - 1}"


def _refuse_lifted(owner: str, weight: PackedWeight) -> None:
    if isinstance(weight, SemiStructured) and weight.group != 4:
        raise ValueError(
            f"{owner}: torch's layout is 2:4, got a weight of {weight.pattern}, which stands as 2:4 of other inputs. "
            "Pack it as NM(2, 4)."
        )


def _stored(weight: PackedWeight | Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The dense weight (int8: unscaled) and which of its places are kept."""
    if isinstance(weight, PackedWeight):
        if mask is not None:
            raise ValueError("to_semi_structured: a packed weight has its own mask; leave mask out.")
        _refuse_lifted("to_semi_structured", weight)
        kept = weight.mask()
        if weight.dtype == torch.int8:
            return weight.integers(), kept
        return weight.to_dense().detach(), kept
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise ValueError(
            "to_semi_structured: needs a packed weight or a tensor (out_features, in_features), "
            f"got {getattr(weight, 'shape', type(weight).__name__)}."
        )
    if mask is None:
        return weight.detach(), weight.detach() != 0
    if mask.dtype != torch.bool or mask.shape != weight.shape:
        raise ValueError(
            f"to_semi_structured: mask must be bool of shape {tuple(weight.shape)}, "
            f"got {mask.dtype} of shape {tuple(mask.shape)}."
        )
    return weight.detach(), mask.to(weight.device)


def to_semi_structured(
    packed_or_dense: PackedWeight | Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A 2:4 weight (float32: 1:2) as torch's CUTLASS values and metadata.

    A group that keeps fewer weights is filled up with zeros, at the places torch chooses. Unlike torch's function,
    this one refuses groups that keep more instead of dropping weights.

    Args:
        packed_or_dense: A packed weight of any layout, or ``(out_features, in_features)`` float16, bfloat16, float32
            or int8. Sizes have to be multiples, see the module. The scale of a packed int8 weight is not part of the
            result; take its ``scale`` along.
        mask: ``(out_features, in_features)`` bool, True where a dense weight is kept. None: where it is not zero.

    Returns:
        ``values (out_features, in_features / 2)`` in the dtype of the weight, and ``meta``:
        ``(out_features, in_features / 16)`` int16 (float32: ``/ 8``), or beside int8
        ``(out_features, in_features / 32)`` int32.

    Raises:
        ValueError: A dtype, size or mask that does not fit, or a group that keeps too many weights.
    """
    dense, kept = _stored(packed_or_dense, mask)
    layout = _layout("to_semi_structured", dense.dtype)
    pattern, (rows, inputs) = layout.pattern, dense.shape
    _check_shape("to_semi_structured", rows, inputs, dense.dtype)
    weights = torch.arange(pattern.m, dtype=torch.uint8, device=dense.device)
    kept = kept.reshape(rows, -1, pattern.m)
    table = torch.tensor(_CODE_OF_KEPT[pattern], dtype=torch.uint8, device=dense.device)
    codes = table[(kept.to(torch.uint8) << weights).sum(-1, dtype=torch.int64)]
    wrong = codes == _NONE
    if wrong.any():
        raise ValueError(
            f"to_semi_structured: {int(wrong.sum())} groups break {pattern}, the pattern of {dense.dtype} weights, "
            f"first at {_first(wrong, pattern)}. Pack the weight with this pattern or give a mask that follows it."
        )
    groups = torch.where(kept, dense.reshape(kept.shape), dense.new_zeros(()))
    values = groups.gather(-1, _places(codes, pattern)).reshape(rows, inputs // 2)
    return values, _interleave(_join(codes, layout.meta))


def from_semi_structured(
    values: Tensor, meta: Tensor, *, scale: Tensor | None = None, layout: str = "auto"
) -> PackedWeight:
    """A packed weight from torch's CUTLASS values and metadata.

    Every place that the metadata names is stored, be its value zero or not.

    Args:
        values: ``(out_features, in_features / 2)``, float16, bfloat16, float32 or int8. The packed weight is on its
            device.
        meta: ``(out_features, in_features / 16)`` int16 (beside float32 values ``/ 8``), or beside int8 values
            ``(out_features, in_features / 32)`` int32.
        scale: ``(out_features,)`` float32, beside int8 values only: a weight is ``scale * value``.
        layout: See :func:`sparsecore.pack`.

    Returns:
        The weight packed as ``NM(2, 4)``, from float32 values as ``NM(1, 2)``, which is stricter.

    Raises:
        ValueError: A dtype or size that does not fit, a code that names no valid places, a missing scale.
    """
    owner = "from_semi_structured"
    for name, tensor in (("values", values), ("meta", meta)):
        if not isinstance(tensor, Tensor) or tensor.dim() != 2:
            raise ValueError(
                f"{owner}: {name} must be a tensor of two dimensions, "
                f"got {getattr(tensor, 'shape', type(tensor).__name__)}."
            )
    kind = _layout(owner, values.dtype)
    pattern, rows, inputs = kind.pattern, values.shape[0], 2 * values.shape[1]
    _check_shape(owner, rows, inputs, values.dtype)
    require_tensor(owner, "meta", meta.contiguous(), kind.meta, (rows, inputs // (kind.codes * pattern.m)))
    if (scale is not None) != (values.dtype == torch.int8):
        raise ValueError(
            f"{owner}: int8 values need a scale (out_features,) and no others take one, got {values.dtype} "
            f"with{'out' if scale is None else ''} a scale. Without scales, give torch.ones(out_features)."
        )
    codes = _split(_deinterleave(meta))
    allowed = torch.zeros(16, dtype=torch.bool, device=codes.device)
    allowed[sorted(set(_CODE_OF_KEPT[pattern]) - {_NONE})] = True
    wrong = ~allowed[codes.long()]
    if wrong.any():
        raise ValueError(
            f"{owner}: {int(wrong.sum())} codes name no valid places for {values.dtype}, the first "
            f"{int(codes[wrong][0]):#06b} at {_first(wrong, pattern)}. The metadata is damaged or of another layout."
        )
    places = _places(codes, pattern)
    dense = values.new_zeros((rows, inputs // pattern.m, pattern.m))
    mask = torch.zeros(dense.shape, dtype=torch.bool, device=values.device).scatter_(-1, places, True)
    dense = dense.scatter_(-1, places, values.detach().reshape(places.shape)).view(rows, inputs)
    mask = mask.view(rows, inputs)
    if scale is None:
        return pack(dense, pattern, mask, layout=layout)
    if layout == "auto":
        layout = default_layout(owner, pattern, values.device.type)
    return pack_stored(dense, scale.detach(), mask, pattern, layout).validate()


def to_torch_semi_structured(weight: PackedWeight, *, backend: str = "cutlass") -> Tensor:
    """A packed weight as torch's ``SparseSemiStructuredTensor``, on the same device.

    Args:
        weight: Of at most two of four inputs (float32: one of two); see :func:`to_semi_structured` for sizes. An int8
            weight's scale is not part of the result.
        backend: ``"cutlass"``, made anywhere; ``"cusparselt"``, made by that library from the dense matrix, on CUDA.

    Raises:
        ValueError: An unknown backend, or a weight that does not fit.
    """
    if backend not in ("cutlass", "cusparselt"):
        raise ValueError(
            f"to_torch_semi_structured: backend must be 'cutlass' or 'cusparselt', got {backend!r}."
        )
    _refuse_lifted("to_torch_semi_structured", weight)
    if backend == "cusparselt":
        dense = weight.integers() if weight.dtype == torch.int8 else weight.to_dense().detach()
        return SparseSemiStructuredTensorCUSPARSELT.from_dense(dense)
    values, meta = to_semi_structured(weight)
    return SparseSemiStructuredTensorCUTLASS(torch.Size(weight.shape), values, meta, None, None, None)


def from_torch_semi_structured(
    tensor: Tensor, *, scale: Tensor | None = None, layout: str = "auto"
) -> PackedWeight:
    """A packed weight from torch's ``SparseSemiStructuredTensor``.

    From the CUTLASS backend every stored place stays stored. From cuSPARSELt, whose metadata only it can read, and from
    tensors that torch pruned itself (``prune_dense_static_sort``) the dense matrix is made by torch, as a product with
    the identity, and its non-zero weights are packed.

    Args:
        tensor: What ``torch.sparse.to_sparse_semi_structured`` made.
        scale: ``(out_features,)`` float32, beside int8 only: a weight is ``scale * value``.
        layout: See :func:`sparsecore.pack`.

    Raises:
        TypeError: Not such a tensor.
        ValueError: Damaged metadata, or a missing scale.
    """
    owner = "from_torch_semi_structured"
    if not isinstance(tensor, SparseSemiStructuredTensor):
        raise TypeError(
            f"{owner}: needs a torch.sparse.SparseSemiStructuredTensor, got {type(tensor).__name__}. "
            "from_semi_structured takes values and metadata."
        )
    values, meta = tensor.packed, tensor.meta
    cutlass = isinstance(tensor, SparseSemiStructuredTensorCUTLASS)
    if cutlass and values is not None and meta is not None and meta.dim() == 2:
        return from_semi_structured(values, meta, scale=scale, layout=layout)
    dense = tensor.to_dense().detach()
    pattern = _layout(owner, dense.dtype).pattern
    if dense.dtype != torch.int8:
        return pack(dense, pattern, dense != 0, layout=layout)
    if scale is None:
        raise ValueError(
            f"{owner}: int8 values need a scale (out_features,). Without scales, give torch.ones."
        )
    chosen = default_layout(owner, pattern, dense.device.type) if layout == "auto" else layout
    return pack_stored(dense, scale.detach(), dense != 0, pattern, chosen).validate()
