"""What the demo needs to know about a model, and about what the model is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

Batch = dict[str, Tensor]  # arguments of the model by name


@dataclass(frozen=True)
class Task:
    """How a kind of model is judged, recovered and run elsewhere.

    Attributes:
        measures: Title of each figure ``quality`` returns, all 1 at best; the first is plotted.
        outputs: ``outputs(model, batches)``, whatever ``quality`` compares.
        quality: ``quality(outputs, outputs_of_the_dense_model)``.
        compared: ``compared(result, batch)``: the tensor that recovery brings back, rows of length about one.
        fuse: Lets packed layers do the activation that follows them; returns the model.
        positional: The model as exporters like it: tensors in the order of a batch, one tensor as its result.
        shown: What one input is when time is measured.
        about: What the measures say, for the report.
        onnx: Writes the dense model as others published it to a file; None: exported from ``positional``.
    """

    measures: Mapping[str, str]
    outputs: Callable[[nn.Module, Sequence[Batch]], Any]
    quality: Callable[[Any, Any], dict[str, float]]
    compared: Callable[[Any, Batch], Tensor]
    fuse: Callable[[nn.Module], nn.Module]
    positional: Callable[[nn.Module], nn.Module]
    shown: str
    about: str
    onnx: Callable[[Path], object] | None = None


@dataclass
class Source:
    """A model with its data.

    Attributes:
        name: For titles and file names.
        make: A fresh dense model in eval mode, called with a batch as keyword arguments.
        calibration: Batches for pruning.
        held_out: Batches for judging, none of them in ``calibration``.
        timing: ``timing(batch_size)``: full inputs without padding.
        task: What the model is for.
        targets: Rules for the layers to prune, as in :func:`sparsecore.sparsify.prune_once`.
        learning: Batches for recovery, none of them in ``held_out``; empty: those for pruning.
    """

    name: str
    make: Callable[[], nn.Module]
    calibration: Sequence[Batch]
    held_out: Sequence[Batch]
    timing: Callable[[int], Batch]
    task: Task
    targets: Sequence[str] = ("Linear",)
    learning: Sequence[Batch] = ()
