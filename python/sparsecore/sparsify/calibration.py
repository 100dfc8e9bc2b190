"""Second moments of layer inputs, gathered from real data while the layers in front are already pruned.

For a linear layer ``y = W x`` with pruned weight ``V`` the mean squared error of its output over tokens needs
only

    H = E[x x^T]              second moment of the input it sees now, ``(in, in)``
    C = E[d x^T]              cross moment with the input ``d`` of the same layer in the untouched model

because ``E|W d - V x|^2 = tr(V H V^T) - 2 tr(V C^T W^T) + const``. With ``C = H`` this is the classical
layer-wise objective; with the real C a layer also makes up for what pruning did to the layers before it.

Layers are visited in the order the model calls them. Layers that receive the very same tensor (query, key and
value) form one *stage* and share their moments. Inside a chain of equal blocks (an ``nn.ModuleList`` whose
members call each other in turn) the output of the last finished block is cached, and inside the current block
those of the layers already pruned, within a limit: each layer is then computed about once per batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparsecore.sparsify import distributed
from sparsecore.sparsify.activations import Budget, Outputs, tensors_of

# Bytes kept at most for outputs of layers inside the current block, for each of the two models. Beyond it they are
# computed again: slower, never different.
_LAYER_CACHE = 1 << 30

Batch = Any  # a tensor, a tuple of positional arguments, or a mapping of keyword arguments


class Moments:
    """Running means over tokens, in float64.

    Attributes:
        second: ``(in, in)``, ``E[x x^T]``.
        cross: ``(in, in)``, ``E[d x^T]``; the same tensor as ``second`` if no reference input was given.
        tokens: How many tokens were seen.
    """

    def __init__(self, second: Tensor | None = None, cross: Tensor | None = None, tokens: int = 0) -> None:
        self._second = second
        self._cross = cross
        self.tokens = tokens

    @property
    def second(self) -> Tensor:
        if self._second is None:
            raise ValueError("Moments: no tokens were seen.")
        return self._second

    @property
    def cross(self) -> Tensor:
        return self.second if self._cross is None else self._cross

    def add(self, x: Tensor, reference: Tensor | None = None) -> None:
        """Adds tokens: ``x`` is ``(tokens, in)``, ``reference`` the same tokens in the untouched model."""
        if x.shape[0] == 0:
            return
        total = self.tokens + x.shape[0]
        x = x.float()
        self._second = _running_mean(self._second, x.T @ x, self.tokens, total)
        if reference is not None:
            self._cross = _running_mean(self._cross, reference.float().T @ x, self.tokens, total)
        self.tokens = total

    def own(self) -> Moments:
        """These moments without the reference: a layer is then to imitate itself."""
        return Moments(self._second, None, self.tokens)

    def synchronise(self) -> None:
        """Means over the tokens of all processes, if ``torch.distributed`` runs; the same bits on each of them."""
        if not distributed.is_parallel() or self._second is None:
            return
        total = distributed.total(torch.tensor(float(self.tokens), dtype=torch.float64))
        for moment in (self._second, self._cross):
            if moment is not None:
                moment.copy_(distributed.total(moment * self.tokens) / total)
        self.tokens = int(total)


def _running_mean(mean: Tensor | None, total: Tensor, seen: int, now: int) -> Tensor:
    if mean is None:
        return total.double() / now
    return mean.mul_(seen / now).add_(total.double(), alpha=1.0 / now)


@dataclass
class Stage:
    """Layers that share one input.

    Attributes:
        names: Their dotted names.
        finished: Blocks of the chain that are complete before these layers are called.
        repeated: Whether a layer is called more than once in a forward, so that none of its calls is the last
            word.
    """

    names: list[str]
    finished: int
    repeated: bool = False


class _Stop(Exception):
    """Ends a forward once the wanted activations are in hand."""


def run_model(model: Callable[..., Any], batch: Batch) -> Any:
    """Calls the model with a tensor, a tuple or a mapping."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (tuple, list)):
        return model(*batch)
    return model(batch)


def as_sequence(data: Iterable[Batch]) -> Sequence[Batch]:
    """``data`` itself if it has places and a length, like a list or a map-style dataset; else all of it in a list."""
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (Mapping, Tensor)):
        return cast("Sequence[Batch]", data)
    return list(data)


def flat_tokens(x: Tensor, batch: Batch) -> Tensor:
    """``x`` as ``(tokens, features)``; positions that ``attention_mask`` calls padding are left out."""
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if isinstance(mask, Tensor) and mask.dim() == 2 and x.dim() == 3 and x.shape[:2] == mask.shape:
        return x[mask.to(x.device).bool()]
    return x.reshape(-1, x.shape[-1])


@dataclass
class _Trace:
    """What one forward pass showed about the order of calls."""

    calls: list[tuple[str, Tensor, int]] = field(default_factory=list)  # layer, its input, finished blocks
    chain: bool = True


def find_chain(model: nn.Module, targets: Mapping[str, nn.Module]) -> list[nn.Module]:
    """The longest ``nn.ModuleList`` or ``nn.Sequential`` every member of which holds a target, or nothing."""
    best: list[nn.Module] = []
    wanted = set(map(id, targets.values()))
    held = 0
    for module in model.modules():
        if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(module) < 2:
            continue
        counts = [sum(id(inner) in wanted for inner in child.modules()) for child in module]
        if min(counts) > 0 and sum(counts) > held:
            best, held = list(module), sum(counts)
    return best


class Calibration:
    """Walks a model over calibration batches, stage by stage.

    Args:
        model: The model that is being pruned in place.
        targets: Its layers to be pruned, by name.
        data: Batches: tensors, tuples of arguments or mappings of keyword arguments.
        follow_dense: Also record the inputs of an untouched copy of the model (this doubles the memory and
            the time).
        memory: Bytes of activations kept between layers; the rest goes to temporary files. None: no limit.
    """

    def __init__(
        self,
        model: nn.Module,
        targets: Mapping[str, nn.Linear],
        data: Iterable[Batch],
        follow_dense: bool,
        memory: int | None = None,
    ) -> None:
        self._targets = dict(targets)
        self._batches = as_sequence(data)
        if not len(self._batches):
            raise ValueError("prune_once: data holds no batch. Pass a list of inputs of the model.")
        chain = find_chain(model, targets)
        trace = _trace(model, self._targets, chain, self._batches[0])
        if not trace.chain:
            chain = []
        self.stages = _stages(trace, self._targets, use_chain=trace.chain)
        self._before: Stage | None = None
        budget = Budget(memory)
        self._walkers = [_Walker(model, chain, self._batches, budget)]
        if follow_dense:
            dense = copy.deepcopy(model)
            names = {id(module): name for name, module in model.named_modules()}
            twins = dict(dense.named_modules())
            blocks = [twins[names[id(block)]] for block in chain]
            self._walkers.append(_Walker(dense, blocks, self._batches, budget))

    def collect(self, stage: Stage) -> Moments:
        """Moments of the input of a stage, with everything in front of it as it is now.

        Stages are collected in order, each once, and a stage has its final weights before the next is
        collected.
        """
        moments = Moments()
        before = self._before
        for walker in self._walkers:
            if before is not None and before.finished == stage.finished and not before.repeated:
                walker.settle(before.names)
            walker.advance(stage.finished)
        self._before = stage
        for index in range(len(self._batches)):
            batch = self._batches[index]
            inputs = [walker.inputs(stage, index) for walker in self._walkers]
            for call in zip(*inputs, strict=True):
                moments.add(*(flat_tokens(x, batch) for x in call))
        moments.synchronise()
        if moments.tokens == 0:
            raise ValueError(f"prune_once: data never reached {stage.names[0]!r}. Add it to ignore.")
        return moments


def input_norms(
    model: nn.Module, layers: Mapping[str, nn.Module], data: Iterable[Batch]
) -> dict[str, Tensor]:
    """Root mean square of each input column of each layer, ``(in,)``, with the model as it is.

    Raises:
        ValueError: The data never reaches a layer.
    """
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(layers, 0)
    current: list[Batch] = []

    def on_layer(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = flat_tokens(args[0], current[-1]).double()
            sums[name] = sums.get(name, 0.0) + x.square().sum(0)
            counts[name] += x.shape[0]

        return hook

    handles = [layer.register_forward_pre_hook(on_layer(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for batch in data:
                current.append(batch)
                run_model(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name in layers if not counts[name]]
    if missing:
        raise ValueError(f"prune_once: data never reached {missing[0]!r}. Add it to ignore.")
    norms = {}
    for name in layers:
        tokens = distributed.total(torch.tensor(float(counts[name]), dtype=torch.float64))
        norms[name] = (distributed.total(sums[name]) / tokens).sqrt().float()
    return norms


class _Walker:
    """Forward passes of one model in which nothing that is settled is computed twice.

    Finished blocks return the cached output of the last of them, and layers of earlier stages inside the
    current block their own, as long as those fit into a fixed amount of memory.
    """

    def __init__(
        self, model: nn.Module, chain: Sequence[nn.Module], batches: Sequence[Batch], budget: Budget
    ) -> None:
        self._model = model
        self._chain = chain
        self._batches = batches
        self._finished = 0
        self._outputs = Outputs(len(batches), budget)  # of the last finished block
        self._budget = budget
        self._layers: dict[str, dict[int, Tensor]] = {}  # outputs of settled layers, by batch
        self._room = _LAYER_CACHE

    def advance(self, finished: int) -> None:
        """Computes and caches blocks up to ``finished``, with the weights they have now."""
        while self._finished < finished:
            block = self._chain[self._finished]
            for index in range(len(self._batches)):
                output = self._block_output(block, index)
                self._forget_layers(index)  # makes room
                self._outputs[index] = output
            self._layers = {}
            self._finished += 1

    def _forget_layers(self, index: int) -> None:
        for outputs in self._layers.values():
            if index in outputs:
                count = outputs.pop(index).nbytes
                self._room += count
                self._budget.give(count)

    def settle(self, names: Sequence[str]) -> None:
        """These layers of the current block have their final weights."""
        self._layers.update({name: {} for name in names})

    def inputs(self, stage: Stage, index: int) -> list[Tensor]:
        """What a stage receives in one batch, once for each of its calls."""
        layer = self._model.get_submodule(stage.names[0])
        seen: list[Tensor] = []

        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen.append(args[0])
            if not stage.repeated:
                raise _Stop

        self._run(index, layer.register_forward_pre_hook(hook))
        return seen

    def _block_output(self, block: nn.Module, index: int) -> Any:
        seen: list[Any] = []

        def hook(_: nn.Module, __: Any, output: Any) -> None:
            seen.append(output)
            raise _Stop

        self._run(index, block.register_forward_hook(hook))
        return seen[0]

    def _run(self, index: int, hook: RemovableHandle) -> None:
        finished = self._chain[: self._finished]
        answer = self._outputs[index] if finished else None
        answers = {id(block): (block, answer) for block in finished}
        handles = [hook]
        for name, outputs in self._layers.items():
            layer = self._model.get_submodule(name)
            if index in outputs:
                answers[id(layer)] = (layer, outputs[index])
            else:
                handles.append(layer.register_forward_hook(self._keep(outputs, index)))
        try:
            with torch.no_grad(), _answering(list(answers.values())), suppress(_Stop):
                run_model(self._model, self._batches[index])
        finally:
            for handle in handles:
                handle.remove()

    def _keep(self, outputs: dict[int, Tensor], index: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            if output.nbytes <= self._room and self._budget.take(output.nbytes):
                self._room -= output.nbytes
                outputs[index] = output

        return hook


@contextmanager
def _answering(answers: Sequence[tuple[nn.Module, Any]]) -> Iterator[None]:
    """These modules return what is given for them instead of computing."""
    kept = [module.__dict__.get("forward") for module, _ in answers]
    try:
        for module, output in answers:
            module.forward = lambda *args, output=output, **kwargs: output
        yield
    finally:
        for (module, _), forward in zip(answers, kept, strict=True):
            if forward is None:
                del module.__dict__["forward"]
            else:
                module.forward = forward


def _trace(
    model: nn.Module, targets: Mapping[str, nn.Module], chain: Sequence[nn.Module], batch: Batch
) -> _Trace:
    """One forward pass that notes the calls, and whether the blocks really are a chain.

    They are one if each is called once, in order, and block i receives the output of block i - 1 and of no
    block before that: only then may finished blocks be skipped.
    """
    trace = _Trace()
    outputs: list[set[int]] = []  # ids of the tensors each finished block returned
    alive: list[Any] = []  # keeps those ids from being used again
    handles = []

    def on_layer(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            trace.calls.append((name, args[0], len(outputs)))

        return hook

    def before_block(position: int) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            given = {id(tensor) for tensor in tensors_of([args, kwargs])}
            if position != len(outputs) or (
                position and (not given & outputs[-1] or any(given & (old - outputs[-1]) for old in outputs))
            ):
                trace.chain = False

        return hook

    def after_block(_: nn.Module, __: Any, output: Any) -> None:
        alive.append(output)
        outputs.append({id(tensor) for tensor in tensors_of(output)})

    for name, layer in targets.items():
        handles.append(layer.register_forward_pre_hook(on_layer(name)))
    for position, block in enumerate(chain):
        handles.append(block.register_forward_pre_hook(before_block(position), with_kwargs=True))
        handles.append(block.register_forward_hook(after_block))
    try:
        with torch.no_grad():
            run_model(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    trace.chain = trace.chain and len(outputs) == len(chain)
    return trace


def _stages(trace: _Trace, targets: Mapping[str, nn.Module], use_chain: bool) -> list[Stage]:
    counts: dict[str, int] = {}
    for name, _, _ in trace.calls:
        counts[name] = counts.get(name, 0) + 1
    missing = [name for name in targets if name not in counts]
    if missing:
        raise ValueError(
            f"prune_once: the calibration data never calls {missing[0]!r} ({len(missing)} such layers). "
            f"Add it to ignore, or pass data that uses it."
        )
    stages: list[Stage] = []
    last: Tensor | None = None
    for name, x, finished in trace.calls:
        if counts[name] > 1:
            if not any(stage.names == [name] for stage in stages):
                stages.append(Stage([name], finished if use_chain else 0, repeated=True))
            last = None
        elif x is last:
            stages[-1].names.append(name)
        else:
            stages.append(Stage([name], finished if use_chain else 0))
            last = x
    return stages
