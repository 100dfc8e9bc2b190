"""The operators as Python functions; the raw ones are ``torch.ops.sparsecore``."""

from sparsecore import _library  # noqa: F401  (registers the operators first)
from sparsecore.ops import _on_cuda  # noqa: F401  (registers what CUDA tensors do without a kernel)
from sparsecore.ops.block_sparse import (
    block_sparse_linear,
    block_sparse_transpose,
    block_sparse_validate,
)
from sparsecore.ops.bound_conv import BoundConv2d
from sparsecore.ops.decode import bitmap_decode_linear, nm_decode_linear
from sparsecore.ops.group_lists import group_lists_linear, group_lists_transpose
from sparsecore.ops.group_lists_conv import group_lists_conv2d
from sparsecore.ops.planes import depthwise_conv2d, squeeze_excite, stem_conv2d
from sparsecore.ops.row_lists import row_lists_linear, row_lists_transpose
from sparsecore.ops.semi_structured import (
    semi_structured_compress,
    semi_structured_decompress,
    semi_structured_gather,
    semi_structured_linear,
    semi_structured_sampled,
    semi_structured_validate,
)
from sparsecore.ops.semi_structured_training import (
    semi_structured_masked_linear,
    semi_structured_straight_through,
)
from sparsecore.ops.shared_lists import shared_lists_linear, shared_lists_transpose
from sparsecore.ops.variable_nm import variable_nm_linear
from sparsecore.ops.vnm import vnm_compress, vnm_decompress, vnm_linear, vnm_validate

__all__ = [
    "BoundConv2d",
    "bitmap_decode_linear",
    "block_sparse_linear",
    "block_sparse_transpose",
    "block_sparse_validate",
    "depthwise_conv2d",
    "group_lists_conv2d",
    "group_lists_linear",
    "group_lists_transpose",
    "nm_decode_linear",
    "row_lists_linear",
    "row_lists_transpose",
    "semi_structured_compress",
    "semi_structured_decompress",
    "semi_structured_gather",
    "semi_structured_linear",
    "semi_structured_masked_linear",
    "semi_structured_sampled",
    "semi_structured_straight_through",
    "semi_structured_validate",
    "shared_lists_linear",
    "shared_lists_transpose",
    "squeeze_excite",
    "stem_conv2d",
    "variable_nm_linear",
    "vnm_compress",
    "vnm_decompress",
    "vnm_linear",
    "vnm_validate",
]
