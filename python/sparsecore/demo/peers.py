"""The dense model in the engines people use, each set up the way its documentation recommends for latency.

All get the same threads, run without autograd and compute in float32 unless their name says otherwise.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsecore.demo.source import Batch, Source
from sparsecore.demo.store import write_atomically

Call = Callable[[], object]
log = logging.getLogger("sparsecore")


def torch_call(model: nn.Module, batch: Batch) -> Call:
    """The model as it is, called in inference mode."""

    def call() -> object:
        with torch.inference_mode():
            return model(**batch)

    return call


def compiled_call(model: nn.Module, batch: Batch, freezing: bool) -> Call:
    """The model under ``torch.compile``, compiled by a first call.

    Args:
        model: Called with the batch's tensors in their order.
        batch: Its input.
        freezing: Let the compiler treat weights as constants and lay them out anew: faster for dense layers.
    """
    torch.compiler.reset()
    compiled = torch.compile(model, options={"freezing": freezing}, dynamic=False)
    arguments = tuple(batch.values())

    def call() -> object:
        with torch.no_grad():
            return compiled(*arguments)

    call()
    call()
    return call


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters log and warn about parts of other models; a failure still raises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def export_onnx(model: nn.Module, batch: Batch, path: Path) -> None:
    """Writes a model of positional tensors as ONNX with a free batch dimension, weights inside the file."""
    arguments = {
        name: tensor.expand(2, *tensor.shape[1:]) if len(tensor) == 1 else tensor
        for name, tensor in batch.items()
    }

    def write(target: Path) -> None:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                model.eval(),
                kwargs=arguments,
                f=target,
                input_names=list(batch),
                output_names=["result"],
                dynamic_shapes={name: {0: torch.export.Dim("batch")} for name in batch},
                external_data=False,
                verbose=False,
            )

    write_atomically(path, write)


def _feed(names: Sequence[str], batch: Batch) -> dict[str, Any]:
    """Arrays by the names the file uses: the batch's own, or others in the same order."""
    own = list(batch) if set(names) == set(batch) else names
    return {name: tensor.numpy() for name, tensor in zip(own, batch.values(), strict=True)}


def onnxruntime_call(path: Path, batch: Batch, threads: int) -> Call:
    """ONNX Runtime on its default CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = _feed([each.name for each in session.get_inputs()], batch)
    return lambda: session.run(None, feed)


def openvino_call(path: Path, batch: Batch, threads: int, precision: str) -> Call:
    """OpenVINO with the latency hint. Left alone it computes in bf16 where the CPU can, so that is named."""
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    model = core.read_model(path)
    feed = _feed([each.any_name for each in model.inputs], batch)
    model.reshape({name: list(array.shape) for name, array in feed.items()})
    compiled = core.compile_model(model, "CPU", options)
    request = compiled.create_infer_request()
    return lambda: request.infer(feed, share_inputs=True)


def dense_calls(
    source: Source, model: nn.Module, batch: Batch, threads: int, onnx: Path
) -> tuple[dict[str, Call], dict[str, str]]:
    """Every dense engine that is installed, ready to be timed, and the reason for each that is missing.

    Args:
        source: Where the model is from.
        model: Dense.
        batch: Its input.
        threads: For all engines.
        onnx: File for the engines that read one; written if missing.
    """
    positional = source.task.positional(model)
    if not onnx.exists():
        try:
            if source.task.onnx is None:
                export_onnx(positional, batch, onnx)
            else:
                write_atomically(onnx, source.task.onnx)
        except Exception as error:  # the engines that need the file will be reported as missing
            log.warning("demo: no ONNX export (%s)", f"{type(error).__name__}: {error}".splitlines()[0][:200])
    makers: dict[str, Callable[[], Call]] = {
        "torch eager": lambda: torch_call(model, batch),
        "torch.compile": lambda: compiled_call(positional, batch, freezing=True),
        "onnxruntime": lambda: onnxruntime_call(onnx, batch, threads),
        "openvino": lambda: openvino_call(onnx, batch, threads, "f32"),
        "openvino bf16": lambda: openvino_call(onnx, batch, threads, "bf16"),
    }
    calls: dict[str, Call] = {}
    missing: dict[str, str] = {}
    for name, make in makers.items():
        try:
            calls[name] = make()
            calls[name]()
        except (
            Exception
        ) as error:  # an engine that is absent or refuses the model is reported, the others go on
            if name == "torch eager":
                raise
            missing[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            log.warning("demo: no %s (%s)", name, missing[name])
    return calls, missing
