"""The dense model in the engines people use, each set up the way its documentation recommends for latency.

All get the same threads, run without autograd and compute in float32 unless their name says otherwise.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from sparsecore.demo.encoder import Batch
from sparsecore.demo.store import write_atomically

Call = Callable[[], object]
log = logging.getLogger("sparsecore")


class HiddenStates(nn.Module):
    """Positional tensors in, one tensor out: the shape exporters like."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


def torch_call(model: nn.Module, batch: Batch) -> Call:
    """The model as it is, called in inference mode."""

    def call() -> object:
        with torch.inference_mode():
            return model(**batch).last_hidden_state

    return call


def compiled_call(model: nn.Module, batch: Batch, freezing: bool) -> Call:
    """The model under ``torch.compile``, compiled by a first call.

    Args:
        model: The model.
        batch: Its input.
        freezing: Let the compiler treat weights as constants and lay them out anew: faster for dense layers.
    """
    torch.compiler.reset()
    compiled = torch.compile(HiddenStates(model), options={"freezing": freezing}, dynamic=False)

    def call() -> object:
        with torch.no_grad():
            return compiled(batch["input_ids"], batch["attention_mask"])

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
    """Writes the model as ONNX with a free batch dimension, weights inside the file."""
    arguments = {name: tensor.expand(2, -1) if len(tensor) == 1 else tensor for name, tensor in batch.items()}

    def write(target: Path) -> None:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                HiddenStates(model).eval(),
                kwargs=arguments,
                f=target,
                input_names=list(batch),
                output_names=["last_hidden_state"],
                dynamic_shapes={name: {0: torch.export.Dim("batch")} for name in batch},
                external_data=False,
                verbose=False,
            )

    write_atomically(path, write)


def onnxruntime_call(path: Path, batch: Batch, threads: int) -> Call:
    """ONNX Runtime on its default CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {name: tensor.numpy() for name, tensor in batch.items()}
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
    model.reshape({name: list(tensor.shape) for name, tensor in batch.items()})
    compiled = core.compile_model(model, "CPU", options)
    request = compiled.create_infer_request()
    feed = {name: tensor.numpy() for name, tensor in batch.items()}
    return lambda: request.infer(feed, share_inputs=True)


def dense_calls(
    model: nn.Module, batch: Batch, threads: int, onnx: Path
) -> tuple[dict[str, Call], dict[str, str]]:
    """Every dense engine that is installed, ready to be timed, and the reason for each that is missing."""
    if not onnx.exists():
        try:
            export_onnx(model, batch, onnx)
        except Exception as error:  # the engines that need the file will be reported as missing
            log.warning("demo: no ONNX export (%s)", f"{type(error).__name__}: {error}".splitlines()[0][:200])
    makers: dict[str, Callable[[], Call]] = {
        "torch eager": lambda: torch_call(model, batch),
        "torch.compile": lambda: compiled_call(model, batch, freezing=True),
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
