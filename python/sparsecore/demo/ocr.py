"""The second model of the demo: a text recognizer, its pictures, and how much of them it reads."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sparsecore.demo.lines import HEIGHT, WIDTH, draw, edit_distance, phrases
from sparsecore.demo.recognizer import characters, recognizer_model, write_without_softmax
from sparsecore.demo.source import Batch, Source, Task
from sparsecore.demo.text import docstrings, split

Readings = list[str]


def recognizer(held_out: int, calibration: int) -> Source:
    """PP-OCRv6 small with drawn docstrings as pictures.

    Args:
        held_out: Lines to judge by.
        calibration: Lines to prune by.
    """
    lines = list(dict.fromkeys(phrases(docstrings())))
    judge, fit = split(lines, held_out, calibration)
    learning = lines[held_out : held_out + 2400]
    task = Task(
        measures={"read": "characters read", "same": "lines as dense"},
        outputs=partial(read, characters()),
        quality=partial(reading_quality, judge),
        compared=amplitudes,
        fuse=fuse_gelu,
        positional=lambda model: model,
        shown=f"one line, {HEIGHT}x{WIDTH}",
        about="share of characters read right on drawn lines of text, and of lines read as the dense model reads them",
        onnx=write_without_softmax,
    )
    return Source(
        "PP-OCRv6 small recognizer",
        recognizer_model,
        _batches(fit, 1),
        _batches(judge, 2),
        lambda batch: _batches(judge[:batch], 3, batch)[0],
        targets=(r"re:(stem\.out|body\..*(expand|contract)|neck\..*|head)",),
        learning=_batches(learning, 4, 8),
        task=task,
    )


def calibration() -> list[Batch]:
    """Six batches of drawn lines to prune the recognizer by."""
    return list(recognizer(512, 96).calibration)


def _batches(texts: Sequence[str], seed: int, size: int = 16) -> list[Batch]:
    return [
        {"image": torch.stack([draw(text, seed) for text in texts[start : start + size]])}
        for start in range(0, len(texts), size)
    ]


def amplitudes(logits: Tensor, _: Batch) -> Tensor:
    """Square roots of the probabilities: unit vectors whose squared distance is twice the squared Hellinger one."""
    return (0.5 * logits.log_softmax(-1)).exp()


def decode(classes: Tensor, letters: Sequence[str]) -> str:
    """Best path of CTC: repeats collapse, then blanks (class 0) go."""
    kept = torch.unique_consecutive(classes)
    return "".join(letters[index - 1] for index in kept.tolist() if index)


def read(letters: Sequence[str], model: nn.Module, batches: Sequence[Batch]) -> Readings:
    """What the model reads in every picture."""
    with torch.inference_mode():
        return [decode(line, letters) for batch in batches for line in model(**batch).argmax(-1)]


def reading_quality(truth: Sequence[str], readings: Readings, dense: Readings) -> dict[str, float]:
    """``read``: one less the edit distance to the truth per character; ``same``: lines equal to the dense model's."""
    wrong = sum(edit_distance(line, reading) for line, reading in zip(truth, readings, strict=True))
    same = sum(reading == other for reading, other in zip(readings, dense, strict=True))
    return {"read": max(0.0, 1.0 - wrong / sum(map(len, truth))), "same": same / len(truth)}


def fuse_gelu(model: nn.Module) -> nn.Module:
    """Lets packed layers apply the activation that follows them."""
    from sparsecore.nn import SparseLinear

    for module in model.modules():
        expand: Any = getattr(module, "expand", None)
        if isinstance(expand, SparseLinear) and isinstance(getattr(module, "activation", None), nn.GELU):
            expand.activation = "gelu"
            module.activation = nn.Identity()
    return model
