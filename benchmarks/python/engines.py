"""Other engines, for whole networks and single layers: each a call without arguments, or the reason why it is missing.

A network goes to them as ONNX, written once from torch with batch norm folded the way the exporter of torch does. All
compute in float32, with the settings their documentation gives for the least time of one image.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Call = Callable[[], Any]
# Engines that no variable is known to hold to AVX2. Torch obeys ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA and
# MKL_ENABLE_INSTRUCTIONS, openvino ONEDNN_MAX_CPU_ISA and OV_CPU_MAX_ISA; it names its kernels, and is checked.
UNCAPPED = ("onnxruntime", "litert", "MNN")


def write_onnx(model: nn.Module, example: Tensor, path: Path) -> Path:
    """The model as ONNX with the example's sizes, weights inside the file."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (example,), path, input_names=["x"], output_names=["y"], external_data=False, verbose=False
        )
    return path


def torch_eager(model: nn.Module, example: Tensor, channels_last: bool) -> Call:
    """The module itself, in the layout that is asked for."""
    if channels_last:
        example = example.contiguous(memory_format=torch.channels_last)
        model = copy.deepcopy(model).to(memory_format=torch.channels_last)
    return lambda: model(example)


def torch_compiled(model: nn.Module, example: Tensor) -> Call:
    """``torch.compile`` with frozen weights: batch norm folded, weights laid out for oneDNN."""
    torch.compiler.reset()
    compiled = torch.compile(model, options={"freezing": True}, dynamic=False)

    def call() -> Any:
        with torch.no_grad():
            return compiled(example)

    call()
    call()
    return call


def onnxruntime(path: Path | bytes, example: Tensor, threads: int, alone: bool = False) -> Call:
    """Inputs and outputs bound once, so that a call copies nothing.

    Its threads spin after a call, as is its habit, only where it is ``alone`` in the process.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if not alone:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    source = path if isinstance(path, bytes) else str(path)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_ortvalue_input(
        session.get_inputs()[0].name, ort.OrtValue.ortvalue_from_numpy(example.numpy())
    )
    binding.bind_output(session.get_outputs()[0].name, "cpu")

    def call() -> Any:
        session.run_with_iobinding(binding)
        return binding

    return call


def openvino(path: Path, example: Tensor, threads: int) -> Call:
    """With the latency hint, in float32: left alone it computes in bfloat16 where the processor can."""
    import openvino as ov

    core = ov.Core()
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(core.read_model(path), "CPU", options)
    kernels = {
        str(step.get_rt_info()["primitiveType"].astype(str))
        for step in compiled.get_runtime_model().get_ops()
    }
    if cap.startswith("AVX2") and (wider := [name for name in kernels if "avx512" in name]):
        raise RuntimeError(f"runs {', '.join(wider)} under a cap of {cap}")
    request = compiled.create_infer_request()
    feed = [example.numpy()]
    return lambda: request.infer(feed, share_inputs=True, share_outputs=True)


def mnn(path: Path, example: Tensor, threads: int) -> Call:
    """Converted by MNN's compiled converter, in its default layout.

    The script ``mnnconvert`` is not used: it installs a package and reports each conversion to a server.
    """
    import MNN

    converted = path.with_suffix(".mnn")
    if not converted.exists():
        convert = "import sys, MNN, _tools; _tools.mnnconvert(sys.argv)"
        options = ["-f", "ONNX", "--modelFile", str(path), "--MNNModel", str(converted), "--bizCode", "x"]
        subprocess.run([sys.executable, "-c", convert, *options], check=True, capture_output=True)
    runtime = MNN.nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": threads},))
    module = MNN.nn.load_module_from_file(str(converted), ["x"], ["y"], runtime_manager=runtime)
    feed = MNN.expr.placeholder(list(example.shape), MNN.expr.NCHW)
    feed.write(example.numpy())
    feed = MNN.expr.convert(feed, MNN.expr.NC4HW4)
    return lambda: module.forward([feed])[0].read()


def result_of(output: Any) -> Tensor:
    """What a call returned as a tensor."""
    if isinstance(output, Tensor):
        return output.detach()
    if hasattr(output, "copy_outputs_to_cpu"):
        return torch.from_numpy(output.copy_outputs_to_cpu()[0])
    if hasattr(output, "to_tuple"):
        return torch.from_numpy(np.array(output.to_tuple()[0]))
    if isinstance(output, (tuple, list)):
        return result_of(output[0])
    return torch.from_numpy(np.array(output))


ENGINES = ("torch", "torch channels_last", "torch.compile", "onnxruntime", "openvino", "litert", "MNN")


def dense_engine(name: str, model: nn.Module, example: Tensor, onnx: Path, threads: int) -> dict[str, Call]:
    """The call of one engine in a process of its own, by its name, once it has given torch's result.

    Args:
        name: One of ``ENGINES``.
        model: Dense, in eval mode.
        example: Its input.
        onnx: The same model, for those that read it.
        threads: For the engine and torch.

    Raises:
        RuntimeError: The result is wrong. Whatever else an engine raises that is absent or cannot take the model.
    """
    import litert  # next to this file

    torch.set_num_threads(threads)
    makers: dict[str, Callable[[], Call]] = {
        "torch": lambda: torch_eager(model, example, False),
        "torch channels_last": lambda: torch_eager(model, example, True),
        "torch.compile": lambda: torch_compiled(model, example),
        "onnxruntime": lambda: onnxruntime(onnx, example, threads, alone=True),
        "openvino": lambda: openvino(onnx, example, threads),
        "litert": lambda: litert.call(model, example, threads),
        "MNN": lambda: mnn(onnx, example, threads),
    }
    call = makers[name]()
    error = relative_error(result_of(call()), model(example))
    if error > 1e-3:
        raise RuntimeError(f"wrong result, relative error {error:.1e}")
    return {name: call}


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest magnitude."""
    return float((got.reshape(wanted.shape) - wanted).abs().max() / wanted.abs().max())
