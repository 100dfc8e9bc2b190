"""Resident memory of a model that is loaded and has answered once.

Run as ``python -m sparsecore.demo.memory MODEL FILE...`` it prints, per packed file (``dense`` for the dense
model), by how many bytes the anonymous resident memory of a process grew. Each model gets a forked child of a
process that has imported everything and computed nothing, so that neither libraries nor other models are
counted. The dense weights are copied off the file they are mapped from, as ``sparsecore.load`` does
with packed ones. Linux only.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn


def resident() -> int:
    """Anonymous resident bytes of this process."""
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("resident: this kernel does not report RssAnon.")


def growth(make: Callable[[], nn.Module], inputs: dict[str, torch.Tensor]) -> int:
    """Bytes a forked child's resident memory grows by ``make()`` and one forward pass."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            before = resident()
            model = make()
            with torch.inference_mode():
                model(**inputs)
            os.write(write, str(resident() - before).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError("growth: the process that loads the model failed.")
    return int(text)


def measure(name: str, files: Sequence[str]) -> dict[str, int]:
    """Growth of a model for each file, from a process of its own; ``dense`` stands for the dense model."""
    command = [sys.executable, "-m", "sparsecore.demo.memory", name, *files]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    values: dict[str, int] = json.loads(found.stdout.splitlines()[-1])
    return values


def main(name: str, files: Sequence[str]) -> None:
    """Prints the growth for each file as one line of JSON."""
    from sparsecore.demo.models import MODELS
    from sparsecore.io import load

    chosen = MODELS[name]

    def dense() -> nn.Module:
        model = chosen.make()
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        return model

    def maker(file: str) -> Callable[[], nn.Module]:
        if file == "dense":
            return dense
        return lambda: chosen.fuse(load(chosen.make(), file).eval().requires_grad_(False))

    inputs = chosen.inputs()
    chosen.make()  # imports what making a model imports
    print(json.dumps({file: growth(maker(file), inputs) for file in files}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
