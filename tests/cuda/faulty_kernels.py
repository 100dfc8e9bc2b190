"""A visit's stages with faults: V:N:M products are wrong, a kernel of bitmaps crashes, and so does the Triton peer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from benchmarks.gpu.families import vnm
from benchmarks.gpu.programs import Place
from benchmarks.gpu.stages import STAGES as WHOLE
from benchmarks.gpu.stages import Item, Stage

KEPT = (
    "2:4 bfloat16, 72 x 136",
    "64:2:8 bfloat16, 136 x 200",
    "bitmap, 4:16, bfloat16, 40 x 200",
    "bitmap, 50% unstructured, bfloat16, 40 x 200",
    "blocks of 64, 10%, bfloat16, 256 x 128",
    "blocks of 32, 10%, bfloat16, 256 x 128",
)


def crash(*arguments: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSEGV)


def doubled(product: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **options: 2 * product(*arguments, **options)


def faulty(stage: Stage) -> Stage:
    def items(place: Place) -> Iterator[Item]:
        from benchmarks.gpu import peers

        vnm.vnm_linear = doubled(vnm.vnm_linear)
        stand_in = peers.peer
        timings = stage.name == "timings"
        if timings:
            from benchmarks.gpu import timings as rows

            rows.peer = lambda name, work, device: (
                crash() if name == "Triton BSR" else stand_in(name, work, device)
            )
        for item in stage.items(place):
            if not item.name.startswith(KEPT):
                continue
            yield replace(item, run=crash) if item.name.startswith("bitmap") and not timings else item

    return Stage(stage.name, stage.seconds, items)


STAGES = {
    name: faulty(stage) if name in ("correctness", "timings") else stage for name, stage in WHOLE.items()
}
