"""Layers: parameters and forward, no policy about what to prune."""

from sparsecore.nn.conv import SparseConv2d
from sparsecore.nn.linear import SparseLinear
from sparsecore.nn.plan import plan_

__all__ = ["SparseConv2d", "SparseLinear", "plan_"]
