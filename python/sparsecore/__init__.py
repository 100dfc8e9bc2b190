"""Neural networks that are mostly zeros, faster: N:M and group sparsity from PyTorch."""

from sparsecore import cpu, cuda, formats, nn, ops, plot, reference, sparsify
from sparsecore.advise import Advice, advise
from sparsecore.convert import densify_, sparsify_
from sparsecore.env import backends, collect_env
from sparsecore.export import SplitNetwork, compile, export_network
from sparsecore.fold import fold_batch_norm_
from sparsecore.formats import (
    BitmapDecode,
    GroupLists,
    NMDecode,
    PackedWeight,
    PatternReport,
    RowLists,
    SharedLists,
    check_pattern,
    pack,
)
from sparsecore.io import load, save
from sparsecore.network import Network
from sparsecore.nn.plan import plan_
from sparsecore.patterns import NM, VNM, Channel, Group, Pattern, Unstructured, VariableNM, pattern
from sparsecore.report import SparsityReport, report
from sparsecore.sparsify import oneshot

__version__ = "0.1.0"

__all__ = [
    "NM",
    "VNM",
    "Advice",
    "BitmapDecode",
    "Channel",
    "Group",
    "GroupLists",
    "NMDecode",
    "Network",
    "PackedWeight",
    "Pattern",
    "PatternReport",
    "RowLists",
    "SharedLists",
    "SparsityReport",
    "SplitNetwork",
    "Unstructured",
    "VariableNM",
    "advise",
    "backends",
    "check_pattern",
    "collect_env",
    "compile",
    "cpu",
    "cuda",
    "densify_",
    "export_network",
    "fold_batch_norm_",
    "formats",
    "load",
    "nn",
    "oneshot",
    "ops",
    "pack",
    "pattern",
    "plan_",
    "plot",
    "reference",
    "report",
    "save",
    "sparsify",
    "sparsify_",
]
