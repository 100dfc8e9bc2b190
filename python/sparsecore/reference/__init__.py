"""Every operator in plain torch: slow, obvious, any floating dtype. The oracle of the tests, and the float64 path."""

from sparsecore.reference.bitmap_decode import (
    bitmap_decode_linear,
    bitmap_decode_pack,
    bitmap_decode_unpack,
)
from sparsecore.reference.block_sparse import (
    block_sparse_damage,
    block_sparse_linear,
    block_sparse_order,
    block_sparse_pack,
    block_sparse_transpose,
    block_sparse_unpack,
    block_sparse_weight_grad,
)
from sparsecore.reference.group_lists import (
    group_lists_conv2d,
    group_lists_conv2d_weight_grad,
    group_lists_linear,
    group_lists_pack,
    group_lists_transpose,
    group_lists_unpack,
    group_lists_weight_grad,
)
from sparsecore.reference.linear import ACTIVATIONS, activate, linear
from sparsecore.reference.network import ReferenceNetwork
from sparsecore.reference.nm_decode import nm_decode_linear, nm_decode_pack, nm_decode_unpack
from sparsecore.reference.planes import depthwise_conv2d, squeeze_excite, stem_conv2d
from sparsecore.reference.row_lists import (
    row_lists_linear,
    row_lists_pack,
    row_lists_transpose,
    row_lists_unpack,
    row_lists_weight_grad,
)
from sparsecore.reference.semi_structured import (
    semi_structured_damage,
    semi_structured_gather,
    semi_structured_linear,
    semi_structured_pack,
    semi_structured_places,
    semi_structured_straight_through,
    semi_structured_unpack,
    two_way_mask,
    window_lift_unpack,
)
from sparsecore.reference.shared_lists import (
    shared_lists_linear,
    shared_lists_pack,
    shared_lists_transpose,
    shared_lists_unpack,
    shared_lists_weight_grad,
)
from sparsecore.reference.variable_nm import variable_nm_linear, variable_nm_pack, variable_nm_unpack
from sparsecore.reference.vnm import (
    vnm_columns,
    vnm_gather,
    vnm_linear,
    vnm_scatter,
    vnm_select,
    vnm_unpack,
)

__all__ = [
    "ACTIVATIONS",
    "ReferenceNetwork",
    "activate",
    "bitmap_decode_linear",
    "bitmap_decode_pack",
    "bitmap_decode_unpack",
    "block_sparse_damage",
    "block_sparse_linear",
    "block_sparse_order",
    "block_sparse_pack",
    "block_sparse_transpose",
    "block_sparse_unpack",
    "block_sparse_weight_grad",
    "depthwise_conv2d",
    "group_lists_conv2d",
    "group_lists_conv2d_weight_grad",
    "group_lists_linear",
    "group_lists_pack",
    "group_lists_transpose",
    "group_lists_unpack",
    "group_lists_weight_grad",
    "linear",
    "nm_decode_linear",
    "nm_decode_pack",
    "nm_decode_unpack",
    "row_lists_linear",
    "row_lists_pack",
    "row_lists_transpose",
    "row_lists_unpack",
    "row_lists_weight_grad",
    "semi_structured_damage",
    "semi_structured_gather",
    "semi_structured_linear",
    "semi_structured_pack",
    "semi_structured_places",
    "semi_structured_straight_through",
    "semi_structured_unpack",
    "shared_lists_linear",
    "shared_lists_pack",
    "shared_lists_transpose",
    "shared_lists_unpack",
    "shared_lists_weight_grad",
    "squeeze_excite",
    "stem_conv2d",
    "two_way_mask",
    "variable_nm_linear",
    "variable_nm_pack",
    "variable_nm_unpack",
    "vnm_columns",
    "vnm_gather",
    "vnm_linear",
    "vnm_scatter",
    "vnm_select",
    "vnm_unpack",
    "window_lift_unpack",
]
