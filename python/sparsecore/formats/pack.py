"""``pack``: a dense weight, a pattern and perhaps a mask become a packed weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore.formats.base import VALUE_DTYPES, PackedWeight
from sparsecore.formats.bitmap_decode import BitmapDecode
from sparsecore.formats.block_sparse import BlockSparse
from sparsecore.formats.channels import Channels
from sparsecore.formats.check import require_pattern, violations
from sparsecore.formats.group_lists import GroupLists
from sparsecore.formats.layouts import LAYOUTS, default_layout, layouts_for
from sparsecore.formats.nm_decode import NMDecode
from sparsecore.formats.quantize import quantize_rows
from sparsecore.formats.row_lists import RowLists
from sparsecore.formats.select import select_mask, shared_rows, unit_shape
from sparsecore.formats.semi_structured import SemiStructured
from sparsecore.formats.shared_lists import SharedLists
from sparsecore.formats.variable_nm import VariableNM
from sparsecore.formats.variable_select import codes_of_mask
from sparsecore.formats.vnm import VNM
from sparsecore.ops import semi_structured_compress
from sparsecore.ops.semi_structured import serves
from sparsecore.ops.window_lift import largest_of_group, lift
from sparsecore.patterns import NM, Pattern, Unstructured
from sparsecore.patterns import VNM as VNMPattern
from sparsecore.patterns import pattern as parse_pattern
from sparsecore.reference.vnm import vnm_gather, vnm_select


def pack(
    weight: Tensor,
    pattern: Pattern | str,
    mask: Tensor | None = None,
    *,
    sparsity: float | None = None,
    dtype: torch.dtype | None = None,
    layout: str = "auto",
) -> PackedWeight:
    """Packs a dense weight.

    Args:
        weight: ``(out_features, in_features)``, float32, bfloat16, float16 or float64. The packed weight is on its
            device.
        pattern: For example ``NM(2, 4)`` or ``"2:4"``.
        mask: ``(out_features, in_features)`` bool, True where a weight is kept; it must follow the pattern. None: the
            largest magnitudes are kept.
        sparsity: Fraction of zeros, for patterns that leave it open. None: exactly the non-zero units are kept.
        dtype: Of the stored values; ``torch.int8`` stores one scale per output channel. None: as the weight.
        layout: ``"row_lists"``, ``"shared_lists"``, ``"group_lists"``, ``"nm_decode"``, ``"bitmap_decode"``,
            ``"channels"``, ``"semi_structured"``, ``"block_sparse"``, ``"vnm"``, or ``"auto"``: the first of
            :func:`layouts_for` on the device.

    Returns:
        The packed weight; :attr:`~PackedWeight.nbytes` says what it takes.

    Raises:
        ValueError: A shape, mask, dtype or layout that does not fit.
    """
    pattern = parse_pattern(pattern)
    if not isinstance(weight, Tensor) or weight.dim() != 2:
        raise ValueError(
            f"pack: weight must be (out_features, in_features), got {getattr(weight, 'shape', weight)}."
        )
    if weight.dtype not in VALUE_DTYPES or weight.dtype == torch.int8:
        raise ValueError(f"pack: weight must be float32, bfloat16, float16 or float64, got {weight.dtype}.")
    if dtype is not None and dtype not in VALUE_DTYPES:
        raise ValueError(f"pack: dtype must be one of {VALUE_DTYPES}, got {dtype}.")
    if layout == "auto":
        layout = default_layout("pack", pattern, weight.device.type)
    elif layout not in layouts_for(pattern, None):
        choices = " or ".join(layouts_for(pattern, None))
        raise ValueError(f"pack: {pattern} can be packed as {choices}, not as {layout!r}.")
    weight = weight.detach().contiguous()
    if layout == "semi_structured" and mask is None and dtype != torch.int8:
        return _pack_semi_structured(weight.to(dtype or weight.dtype), None, pattern, None)
    if layout == "vnm" and mask is None and dtype != torch.int8:
        return _pack_vnm(weight.to(dtype or weight.dtype), None, pattern)
    if mask is None:
        mask = select_mask(weight.abs(), pattern, sparsity).contiguous()
    else:
        if sparsity is not None:
            raise ValueError("pack: give a mask or a sparsity, not both.")
        mask = _checked_mask(mask, weight, pattern)
    if dtype == torch.int8:
        return pack_stored(*quantize_rows(weight * mask), mask, pattern, layout)
    return pack_stored(weight.to(dtype or weight.dtype), None, mask, pattern, layout)


def _checked_mask(mask: Tensor, weight: Tensor, pattern: Pattern) -> Tensor:
    if mask.dtype != torch.bool or mask.shape != weight.shape:
        raise ValueError(
            f"pack: mask must be bool of shape {tuple(weight.shape)}, got {mask.dtype} of shape {tuple(mask.shape)}."
        )
    mask = mask.to(weight.device).contiguous()
    if not isinstance(pattern, Unstructured):
        _, count, first = violations(mask, pattern)
        if first is not None:
            raise ValueError(
                f"pack: the mask breaks {pattern} in {count} groups, first at row {first[0]}, column {first[1]}. "
                "Select a mask for this pattern or leave it out."
            )
    return mask


def pack_stored(
    weight: Tensor, scale: Tensor | None, mask: Tensor, pattern: Pattern, layout: str
) -> PackedWeight:
    """Packs values of the dtype they are stored in."""
    n, k = weight.shape
    # The packing operators are the CPU's, and know no float64.
    plain = weight.dtype == torch.float64 or weight.device.type != "cpu"
    ops: Any = reference if plain else torch.ops.sparsecore
    shape = (n, k)
    if layout == "channels":
        kept = [mask.any(side).nonzero().flatten() for side in (1, 0)]
        values = weight.index_select(0, kept[0]).index_select(1, kept[1]).contiguous()
        return Channels(shape, pattern, values, scale, *kept)
    if layout == "row_lists":
        block = torch.ops.sparsecore.row_lists_block(float(mask.sum()) / max(mask.numel(), 1))
        values, offsets, block_ptr = ops.row_lists_pack(weight, mask, block)
        return RowLists(shape, pattern, values, scale, offsets, block_ptr, block)
    if layout == "shared_lists":
        rows = shared_rows(pattern)
        if k > 65536:
            raise ValueError(f"pack: shared lists take at most 65536 inputs, got {k}. Use a per-row pattern.")
        units = mask[::rows].contiguous()
        values, columns, group_ptr = ops.shared_lists_pack(weight, units, rows)
        return SharedLists(shape, pattern, values, scale, columns, group_ptr)
    if layout == "group_lists":
        rows, cols = (min(size, 32) for size in unit_shape(pattern))
        units = mask[::rows, ::cols].contiguous()
        density = float(units.sum()) / max(units.numel(), 1)
        depth = torch.ops.sparsecore.group_lists_depth(rows, cols, k, density)
        window = torch.ops.sparsecore.group_lists_window(rows, n)
        values, index, order, starts = ops.group_lists_pack(weight, units, rows, cols, depth, window)
        return GroupLists(shape, pattern, values, scale, index, order, starts, depth, window)
    if layout == "variable_nm":
        codes = codes_of_mask(mask)
        values, indices = ops.variable_nm_pack(weight, mask, codes)
        return VariableNM(shape, pattern, values, scale, indices, codes)
    if layout == "semi_structured":
        return _pack_semi_structured(weight, mask, pattern, scale)
    if layout in ("block_sparse", "vnm") and weight.dtype in (torch.int8, torch.float64):
        raise ValueError(
            f"pack: the layout {layout} stores float32, bfloat16 and float16, got {weight.dtype}. Store the weight in "
            "one of these, or keep it on the CPU."
        )
    if layout == "block_sparse":
        size = unit_shape(pattern)[0]
        return BlockSparse.from_dense(weight, mask[::size, ::size], block_size=size)
    if layout == "vnm":
        return _pack_vnm(weight, mask, pattern)
    if layout == "nm_decode":
        assert isinstance(pattern, NM)
        values, codes = ops.nm_decode_pack(weight, mask, pattern.n, pattern.m)
        return NMDecode(shape, pattern, values, scale, codes)
    values, bitmap, row_ptr = ops.bitmap_decode_pack(weight, mask)
    return BitmapDecode(shape, pattern, values, scale, bitmap, row_ptr)


def _pack_semi_structured(
    weight: Tensor, mask: Tensor | None, pattern: Pattern, scale: Tensor | None
) -> SemiStructured:
    """Without a mask: all but the two smallest magnitudes of a group; 2:4 in one pass where there is the operator.

    A mask that keeps fewer of a larger group is filled up before it is lifted, so that no input has a slot in two
    windows.
    """
    assert isinstance(pattern, NM)
    shape = (weight.shape[0], weight.shape[1])
    if weight.dtype == torch.float64:
        raise ValueError(
            "pack: the layout semi_structured stores float32, bfloat16, float16 and int8, got float64. Convert the "
            "weight first."
        )
    if pattern.m > 4:
        stored = largest_of_group(weight if mask is None else mask, None, pattern.m)
        kept = weight if mask is None else torch.where(mask, weight, 0)
        weight, mask = lift(kept, stored, pattern.m)
    narrow = weight.dtype != torch.float32
    if narrow and (weight.is_meta or serves(weight)):
        selection = "two_way" if pattern.two_way else "by_row"
        values, metadata = semi_structured_compress(weight, mask, selection=selection)
    elif weight.is_meta:
        like, metadata = semi_structured_compress(weight.bfloat16(), mask)
        values = like.float()
    else:
        chosen = select_mask(weight.abs(), pattern) if mask is None else mask
        values, metadata = reference.semi_structured_pack(weight, chosen)
    return SemiStructured(shape, pattern, values, scale, metadata)


def _pack_vnm(weight: Tensor, mask: Tensor | None, pattern: Pattern) -> VNM:
    """Without a mask: the four inputs with the largest sums of magnitudes, and the two largest weights of these."""
    assert isinstance(pattern, VNMPattern)
    shape, vector = (weight.shape[0], weight.shape[1]), pattern.vector
    if shape[1] >= 0xFFFF:
        raise ValueError(f"pack: the layout vnm takes fewer than 65535 inputs, got {shape[1]}.")
    if weight.dtype == torch.float64:
        raise ValueError(
            "pack: the layout vnm stores float32, bfloat16 and float16, got float64. Convert the weight first."
        )
    columns = vnm_select(weight if mask is None else mask, vector, pattern.m)
    picked = vnm_gather(weight, columns, vector)
    kept = None if mask is None else vnm_gather(mask, columns, vector)
    packed = _pack_semi_structured(picked, kept, NM(2, 4), None)
    return VNM(shape, pattern, packed.values, None, packed.metadata, columns)


def placed(weight: PackedWeight, device: torch.device | str) -> PackedWeight:
    """A packed weight on a device, in a layout that has kernels there.

    As it is where its own layout has, else packed anew in the default layout of its pattern on that device: same
    weights, same places (a layout that always stores the same number may add zeros).

    Raises:
        ValueError: The pattern has no kernels on the device.
    """
    there = torch.device(device)
    if (
        weight.values.is_meta
        or there.type == "meta"
        or weight.layout in layouts_for(weight.pattern, there.type)
    ):
        return weight.to(device=there)
    layout = default_layout("placed", weight.pattern, there.type)
    _require_own_pattern("placed", weight)
    mask = weight.mask().to(there)
    if weight.scale is None:
        return pack_stored(weight.to_dense().to(there), None, mask, weight.pattern, layout)
    dense = weight.integers().to(there)
    return pack_stored(dense, weight.scale.to(there), mask, weight.pattern, layout)


def _require_own_pattern(owner: str, weight: PackedWeight) -> None:
    """Raises ValueError unless a packed weight follows the pattern it names."""
    if weight.proves_pattern or weight.values.is_meta:
        return
    two_way = isinstance(weight.pattern, NM) and weight.pattern.two_way
    # Where a row keeps fewer than two of four, a zero takes the free slot, in any column.
    mask = weight.to_dense() != 0 if two_way else weight.mask()
    require_pattern(owner, mask, weight.pattern)


def from_tensors(
    layout: str,
    shape: tuple[int, int],
    pattern: Pattern,
    tensors: Mapping[str, Tensor],
    attributes: Mapping[str, Any],
) -> PackedWeight:
    """A packed weight from its parts, validated.

    Raises:
        ValueError: A part is missing or wrong, or they do not follow the pattern.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"from_tensors: no layout is called {layout!r}; there are {', '.join(LAYOUTS)}.")
    if layout not in layouts_for(pattern, None):
        choices = " or ".join(layouts_for(pattern, None))
        raise ValueError(f"from_tensors: {pattern} is stored as {choices}, not as {layout}.")
    kind = LAYOUTS[layout]
    needed = ("values", *kind.index_names)
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise ValueError(f"from_tensors: a {layout} weight needs {', '.join(missing)}, which are missing.")
    wanted = set(kind.attribute_names())
    if set(attributes) != wanted:
        raise ValueError(
            f"from_tensors: a {layout} weight has the attributes {wanted}, got {set(attributes)}."
        )
    indices = {name: tensors[name] for name in kind.index_names}
    packed = kind(
        shape=shape,
        pattern=pattern,
        values=tensors["values"],
        scale=tensors.get("scale"),
        **indices,
        **attributes,
    ).validate()
    _require_own_pattern(f"from_tensors: a {layout} weight", packed)
    return packed
