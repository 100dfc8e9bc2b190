"""Times beside the peers, one row per layer and number of tokens: eager and as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .device import Call, Device, Gauges
from .families import FAMILIES
from .families.base import Family, Prepared, Shape, Target, Variant, relative_error
from .peers import Work, peer
from .sampling import interleaved, microseconds

ROUNDS = 31
SMALL_TOKENS = (40,)


@dataclass(frozen=True)
class Row:
    """One row of a table; ``value`` 0 is measured first."""

    name: str
    family: str
    variant: str
    value: int
    prepare: Callable[[], Prepared]
    targets: tuple[Target, ...] = ()
    shape: Shape | None = None


def prepare_layer(variant: Variant, shape: Shape, device: Device) -> Prepared:
    """Ours and every peer that can do it; why the others cannot goes to the notes."""
    generator = torch.Generator(device.name).manual_seed(2)
    layer = variant.make(variant.random(shape.outputs, shape.inputs, device=device.name, generator=generator))
    x = variant.random(shape.tokens, shape.inputs, device=device.name, generator=generator)
    bias = torch.randn(shape.outputs, device=device.name, generator=generator).to(layer.out_dtype)
    calls: dict[str, Call] = {"ours": lambda: layer.linear(x, bias)}
    notes: dict[str, str] = {}
    work = Work(x, layer.weight, bias, layer.out_dtype, variant.block)
    for name in variant.peers:
        try:
            note, call = peer(name, work, device)
            call()
            device.finish()
            calls[name] = call
        except Exception as error:
            note = f"cannot: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}"
        if note:
            notes[name] = note
    answers = None
    if x.dtype in (torch.bfloat16, torch.float16):
        answers = x.float() @ layer.weight.float().T + bias.float()
    count = shape.outputs * shape.inputs
    return Prepared(
        calls,
        operations=2.0 * count * shape.tokens,
        moved_bytes=float(count * x.element_size()),
        answers=answers,
        notes=notes,
    )


def wrong_answers(prepared: Prepared) -> dict[str, str]:
    """Of the calls that can be checked, those that are more than 2 % off. Padded rows are left out."""
    wrong = {}
    if prepared.answers is not None:
        for name, call in prepared.calls.items():
            y = call()
            assert isinstance(y, Tensor)
            error = relative_error(y[: prepared.answers.shape[0]].float(), prepared.answers)
            if not error <= 0.02:
                wrong[name] = f"wrong result, relative error {error:.1e}"
    return wrong


def measure(prepared: Prepared, device: Device, rounds: int) -> dict[str, Any]:
    """Medians and quartiles in microseconds, eager and graph; ratios are the peer's time over ours, of the graphs."""
    notes = dict(prepared.notes) | wrong_answers(prepared)
    calls = {
        name: call for name, call in prepared.calls.items() if not notes.get(name, "").startswith("wrong")
    }
    result: dict[str, Any] = {
        "us": {name: microseconds(v) for name, v in interleaved(device, calls, rounds).items()}
    }
    graphs: dict[str, Call] = {}
    for name, call in calls.items():
        try:
            graphs[name] = device.graph(call)
        except Exception as error:
            notes[f"{name}, graph"] = f"cannot: {str(error).splitlines()[0][:200]}"
    result["us_graph"] = {name: microseconds(v) for name, v in interleaved(device, graphs, rounds).items()}
    times = result["us_graph"] if "ours" in graphs else result["us"]
    if "ours" in times:
        ours = times["ours"][0]
        result["ratios"] = {name: round(times[name][0] / ours, 3) for name in times if name != "ours"}
        result["tflops"] = round(1e-6 * prepared.operations / ours, 2)
        result["gbytes"] = round(1e-3 * prepared.moved_bytes / ours, 1)
    result["notes"] = notes
    result["rounds"] = rounds
    return result


def rows(device: Device, families: tuple[Family, ...] = FAMILIES) -> list[Row]:
    """All rows, the most telling first."""

    def found() -> Iterator[Row]:
        for family in families:
            if not device.dry and not family.built(device.name):
                continue
            for task in family.tasks:
                yield Row(
                    task.name,
                    family.name,
                    task.name,
                    task.value,
                    lambda task=task: task.prepare(device.name, device.dry),
                    task.targets,
                )
            for variant in family.variants:
                layers = (variant.small,) if device.dry else variant.layers
                tokens = SMALL_TOKENS if device.dry else variant.tokens
                for i, layer in enumerate(layers):
                    for j, count in enumerate(tokens):
                        shape = Shape(*layer, count)
                        yield Row(
                            f"{variant.name}, {shape}",
                            family.name,
                            variant.name,
                            i + j,
                            lambda variant=variant, shape=shape: prepare_layer(variant, shape, device),
                            variant.targets(shape),
                            shape,
                        )

    return sorted(found(), key=lambda row: row.value)


def time_row(row: Row, device: Device, gauges: Gauges) -> dict[str, Any]:
    """What the record keeps of a row."""
    result: dict[str, Any] = {"family": row.family, "variant": row.variant}
    result["targets"] = [vars(target) for target in row.targets]
    if row.shape is not None:
        result["shape"] = [row.shape.outputs, row.shape.inputs, row.shape.tokens]
    with gauges.during(result):
        result |= measure(row.prepare(), device, 3 if device.dry else ROUNDS)
    return result
