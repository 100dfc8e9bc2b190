"""Packed weights: containers, selection, checks, and other libraries' layouts."""

from sparsecore.formats.base import PackedWeight
from sparsecore.formats.bitmap_decode import BitmapDecode
from sparsecore.formats.bitmask24 import read_bitmask24, write_bitmask24
from sparsecore.formats.block_sparse import BlockSparse
from sparsecore.formats.channels import Channels
from sparsecore.formats.check import PatternReport, check_pattern
from sparsecore.formats.group_lists import GroupLists
from sparsecore.formats.interop import from_scipy, from_torch_sparse, to_torch_sparse
from sparsecore.formats.layouts import layouts_for
from sparsecore.formats.nm_decode import NMDecode
from sparsecore.formats.pack import from_tensors, pack, placed
from sparsecore.formats.row_lists import RowLists
from sparsecore.formats.select import select_mask
from sparsecore.formats.semi_structured import SemiStructured
from sparsecore.formats.shared_lists import SharedLists
from sparsecore.formats.torch_semi_structured import (
    from_semi_structured,
    from_torch_semi_structured,
    to_semi_structured,
    to_torch_semi_structured,
)
from sparsecore.formats.variable_nm import VariableNM
from sparsecore.formats.variable_select import choose_codes, variable_mask, variable_nbytes
from sparsecore.formats.vnm import VNM

__all__ = [
    "VNM",
    "BitmapDecode",
    "BlockSparse",
    "Channels",
    "GroupLists",
    "NMDecode",
    "PackedWeight",
    "PatternReport",
    "RowLists",
    "SemiStructured",
    "SharedLists",
    "VariableNM",
    "check_pattern",
    "choose_codes",
    "from_scipy",
    "from_semi_structured",
    "from_tensors",
    "from_torch_semi_structured",
    "from_torch_sparse",
    "layouts_for",
    "pack",
    "placed",
    "read_bitmask24",
    "select_mask",
    "to_semi_structured",
    "to_torch_semi_structured",
    "to_torch_sparse",
    "variable_mask",
    "variable_nbytes",
    "write_bitmask24",
]
