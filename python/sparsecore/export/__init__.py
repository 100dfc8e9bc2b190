"""From a torch model to a network file: see :func:`sparsecore.compile` and :func:`sparsecore.export_network`."""

from sparsecore.export.compiler import compile, export_network
from sparsecore.export.segments import SplitNetwork

__all__ = ["SplitNetwork", "compile", "export_network"]
