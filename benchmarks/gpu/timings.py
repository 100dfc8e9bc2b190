"""Times beside the peers, one row per layer and number of tokens: eager and as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .device import Call, Device, Gauges
from .families import FAMILIES
from .families.base import (
    FLOATS,
    Family,
    Layer,
    Prepared,
    Shape,
    Target,
    Variant,
    asking_for,
    device_has,
    relative_error,
)
from .peers import Work, peer
from .sampling import interleaved, microseconds
from .stages import Watch
from .supervision import BrokenContext, context_is_broken

ROUNDS = 31
SMALL_TOKENS = (40,)
FEW_TOKENS = 16  # the most at which reading the weight is what costs, on any device


@dataclass(frozen=True)
class Row:
    """One row of a table; the least ``value`` comes first. ``prepare`` makes its calls and tells the watch of each."""

    name: str
    family: str
    variant: str
    value: int
    prepare: Callable[[Watch], Prepared]
    targets: tuple[Target, ...] = ()
    shape: Shape | None = None
    density: float | None = None

    @property
    def group(self) -> str:
        return self.family


def reason(error: Exception) -> str:
    """In a line."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


class Candidates:
    """Calls that work, one after another; why others do not goes to the notes.

    A peer is named before it is touched: a crash is then its own.
    """

    def __init__(self, device: Device, watch: Watch) -> None:
        self._device, self._watch = device, watch
        self.calls: dict[str, Call] = {}
        self.notes: dict[str, str] = {}

    def add(self, name: str, make: Callable[[], tuple[str, Call]], *, is_peer: bool) -> None:
        """Makes a call and makes it once."""
        part = f"peer {name}" if is_peer else ""
        if is_peer and self._watch.left_out(part):
            self.notes[name] = "left out: it hung or crashed before"
            return
        self._watch.at(part)
        try:
            note, call = make()
            call()
            self._device.finish()
            self.calls[name] = call
        except Exception as error:
            if context_is_broken():
                raise BrokenContext(reason(error)) from error
            note = f"cannot: {reason(error)}"
        if note:
            self.notes[name] = note
        self._watch.at("")


def operands(layer: Layer, variant: Variant, shape: Shape, device: Device) -> tuple[Tensor, Tensor]:
    """Tokens and a bias."""
    generator = torch.Generator(device.name).manual_seed(2)
    x = variant.random(shape.tokens, shape.inputs, device=device.name, generator=generator)
    return x, torch.randn(shape.outputs, device=device.name, generator=generator).to(layer.out_dtype)


def answers_of(layer: Layer, x: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """The product, and what peers of 8-bit types return that leave out the bias, or the scale as well."""
    plain = x.float() @ layer.weight.float().T
    if x.dtype in FLOATS:
        return (plain + bias.float(),)
    scaled = plain if layer.scale is None else plain * layer.scale
    return scaled + bias.float(), scaled, plain


def prepare_layer(
    variant: Variant, shape: Shape, device: Device, watch: Watch, kernels: tuple[str, ...] = ()
) -> Prepared:
    """Ours, ours by each of some kernels, and the peers."""
    layer = variant.layer(shape.outputs, shape.inputs, device.name)
    x, bias = operands(layer, variant, shape, device)
    found = Candidates(device, watch)
    found.add("ours", lambda: ("", lambda: layer.linear(x, bias)), is_peer=False)
    for kernel in kernels:
        call = asking_for(kernel, layer.linear)
        found.add(kernel, lambda call=call: ("", lambda: call(x, bias)), is_peer=False)
    weight = layer.weight.to(x.dtype)  # weights of 8 bits beside 16-bit tokens come as floats
    work = Work(x, weight, bias, layer.out_dtype, variant.block)
    for name in ("cuBLAS",) if kernels else variant.peers:
        found.add(name, lambda name=name: peer(name, work, device), is_peer=True)
    count = shape.outputs * shape.inputs
    return Prepared(
        found.calls,
        operations=2.0 * count * shape.tokens,
        moved_bytes=float(count * x.element_size()),
        answers=answers_of(layer, x, bias),
        notes=found.notes,
        facts={"kernels": list(kernels)} if kernels else {},
    )


def prepare_step(variant: Variant, shape: Shape, device: Device, watch: Watch) -> Prepared:
    """Forward and backward, to the input and to the kept weights; the peer's to all weights."""
    layer = variant.layer(shape.outputs, shape.inputs, device.name)
    assert layer.values is not None and layer.trained is not None
    x = operands(layer, variant, shape, device)[0].requires_grad_()
    grad = torch.randn(shape.tokens, shape.outputs, device=device.name).to(layer.out_dtype)
    values, dense = (tensor.detach().requires_grad_() for tensor in (layer.values, layer.weight))

    def step(product: Callable[[], Tensor], weight: Tensor) -> Call:
        return lambda: torch.autograd.grad(product(), (x, weight), grad)

    trained, found = layer.trained, Candidates(device, watch)
    found.add("ours", lambda: ("", step(lambda: trained(x, values), values)), is_peer=False)
    found.add("cuBLAS", lambda: ("", step(lambda: torch.nn.functional.linear(x, dense), dense)), is_peer=True)
    count = shape.outputs * shape.inputs
    return Prepared(found.calls, operations=6.0 * count * shape.tokens, notes=found.notes)


def prepare_task(prepare: Callable[[str, bool], Prepared], device: Device, watch: Watch) -> Prepared:
    """Calls that a family has made, each tried once."""
    prepared = prepare(device.name, device.dry)
    found = Candidates(device, watch)
    for name, call in prepared.calls.items():
        is_peer = name != "ours" and name not in prepared.facts.get("kernels", ())
        found.add(name, lambda call=call: ("", call), is_peer=is_peer)
    return Prepared(
        found.calls,
        prepared.operations,
        prepared.moved_bytes,
        prepared.answers,
        prepared.notes | found.notes,
        prepared.facts,
    )


def wrong_answers(prepared: Prepared) -> dict[str, str]:
    """Of the calls that can be checked, those that are more than 2 % off. Padded rows are left out."""
    wrong = {}
    for name, call in prepared.calls.items() if prepared.answers else ():
        y = call()
        assert isinstance(y, Tensor)
        rows = y[: prepared.answers[0].shape[0]].float()
        error = min(relative_error(rows, answer) for answer in prepared.answers)
        if not error <= 0.02:
            wrong[name] = f"wrong result, relative error {error:.1e}"
    return wrong


def measure(prepared: Prepared, device: Device, rounds: int, watch: Watch) -> dict[str, Any]:
    """Medians and quartiles in microseconds, eager and graph; ratios are the peer's time over ours, of the graphs."""
    wrong = wrong_answers(prepared)
    notes = prepared.notes | wrong
    calls = {name: call for name, call in prepared.calls.items() if name not in wrong}
    own = {"ours", *prepared.facts.get("kernels", ())}

    def at(name: str) -> None:
        watch.at("" if name in own or not name else f"peer {name}")

    samples = interleaved(device, calls, rounds, at)
    result: dict[str, Any] = {"us": {name: microseconds(v) for name, v in samples.items()}}
    graphs: dict[str, Call] = {}
    for name, call in calls.items():
        at(name)
        try:
            graphs[name] = device.graph(call)
        except Exception as error:
            if context_is_broken():
                raise BrokenContext(reason(error)) from error
            notes[f"{name}, graph"] = f"cannot: {reason(error)}"
    at("")
    samples = interleaved(device, graphs, rounds, at)
    result["us_graph"] = {name: microseconds(v) for name, v in samples.items()}
    times = result["us_graph"] if "ours" in graphs else result["us"]
    if "ours" in times:
        ours = times["ours"][0]
        result["ratios"] = {name: round(times[name][0] / ours, 3) for name in times if name != "ours"}
        result["tflops"] = round(1e-6 * prepared.operations / ours, 2)
        result["gbytes"] = round(1e-3 * prepared.moved_bytes / ours, 1)
    else:
        result |= {"ok": False, "wrong": f"ours: {notes.get('ours', 'was not timed')}"}
    if failing := [name for name in own if notes.get(name, "").startswith("wrong")]:
        result |= {"ok": False, "wrong": ", ".join(f"{name}: {notes[name]}" for name in sorted(failing))}
    result["notes"] = notes
    result["rounds"] = rounds
    return result | prepared.facts


def per_visited_flop(variant: Variant, tokens: int, kernels: Iterable[str]) -> tuple[Target, ...]:
    """Few tokens by the code for sm_80, on whatever device: no product that is made takes longer than one of cuBLAS."""
    first = next((name for name in kernels if name.endswith("sm80")), None)
    if first is None or tokens > FEW_TOKENS:
        return ()
    share = round(1 / variant.density, 2)
    return (Target("cuBLAS", share, share, first),)


def layer_rows(variant: Variant, device: Device) -> Iterator[tuple[str, int, Shape, Any, tuple[Target, ...]]]:
    """Name, value, shape, how it is prepared and targets: beside the peers, forward and backward, by kernel."""
    layers = (variant.small,) if device.dry else variant.layers
    for i, layer in enumerate(layers):
        for j, tokens in enumerate(SMALL_TOKENS if device.dry else variant.tokens):
            shape = Shape(*layer, tokens)
            targets = variant.targets(shape)
            yield "", i + j - (2 if targets else 0), shape, prepare_layer, targets
    for layer in variant.trained:
        shape = Shape(*variant.small, SMALL_TOKENS[0]) if device.dry else Shape(*layer)
        yield "forward and backward", 2, shape, prepare_step, ()
    kernels = device_has(variant.kernels, device.name)
    for layer in layers[: 1 if variant.by_kernel else 0]:
        for tokens in (7,) if device.dry else variant.by_kernel:
            shape = Shape(*(variant.small_aligned if device.dry else layer), tokens)

            def prepare(*arguments: Any) -> Prepared:
                return prepare_layer(*arguments, kernels=kernels)

            yield "by kernel", 2, shape, prepare, per_visited_flop(variant, tokens, kernels)


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
                    lambda watch, task=task: prepare_task(task.prepare, device, watch),
                    task.targets,
                )
            for variant in family.variants_on(device.name):
                for what, value, shape, prepare, targets in layer_rows(variant, device):
                    name = ", ".join(filter(None, (variant.name, what)))
                    yield Row(
                        f"{name}, {shape}",
                        family.name,
                        name,
                        value,
                        lambda watch, prepare=prepare, variant=variant, shape=shape: prepare(
                            variant, shape, device, watch
                        ),
                        targets,
                        shape,
                        variant.density,
                    )

    return sorted(found(), key=lambda row: row.value)


def time_row(row: Row, device: Device, gauges: Gauges, watch: Watch) -> dict[str, Any]:
    """What the record keeps of a row."""
    result: dict[str, Any] = {"family": row.family, "variant": row.variant}
    result["targets"] = [vars(target) for target in row.targets]
    if row.shape is not None:
        result["shape"] = [row.shape.outputs, row.shape.inputs, row.shape.tokens]
    if row.density is not None:
        result["density"] = row.density
    with gauges.during(result):
        result |= measure(row.prepare(watch), device, 2 if device.dry else ROUNDS, watch)
    return result
