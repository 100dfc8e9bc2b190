"""The channels of a whole network put into an order that groups of weights like, without changing what it computes.

:mod:`~sparsecore.sparsify.axis_rules` says which channels of which tensors share an order: through residual sums,
depthwise convolutions, norms, gates and concatenations. Every such class gets one permutation of the channels that
make it, and each weight, bias and statistic along it follows. Inputs and outputs of the network keep their order, and
so does everything next to an operator that is not understood. Source: SparseByteNN (Xu et al. 2023) and the filter
rearrangement of 1xN (Lin et al. 2022), whose rule, sorting by L1 norm, is the baseline here; exchanges between groups
keep more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sparsecore.formats.select import unit_shape
from sparsecore.patterns import Group
from sparsecore.sparsify._progress import bar
from sparsecore.sparsify.axes import Channels, leaves, places
from sparsecore.sparsify.axis_rules import Network, network_axes
from sparsecore.sparsify.calibration import Batch, run_model
from sparsecore.sparsify.kinds import AnyPattern, as_matrix, is_grouped, parse, stored_pattern
from sparsecore.sparsify.orderings import kept_score, order_rows
from sparsecore.sparsify.targets import find_trainable

# Largest difference of the outputs, relative to the largest output, that the order of sums explains.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}


@dataclass(frozen=True)
class ChannelOrder:
    """The new order of one class of channels.

    Attributes:
        tensors: Parameters and buffers along it, ``name[axis]``.
        order: ``(channels,)`` int64: channel ``order[i]`` comes to place i.
        before: Kept share of the score of the layers it matters to, in the order that was there.
        after: In the new one.
        rule: ``"kept"`` as it was, ``"sorted"`` by L1 norm, or ``"exchanged"`` between groups.
    """

    tensors: tuple[str, ...]
    order: Tensor
    before: float
    after: float
    rule: Literal["kept", "sorted", "exchanged"]


@dataclass(frozen=True)
class Rearrangement:
    """What :func:`rearrange_` did.

    Attributes:
        classes: Every class of channels that could be reordered and that matters to a pruned layer.
        layers: Kept share of each layer's score before and after, by name.
        places: By parameter or buffer and axis: where each place was before.
        difference: Largest difference of the example's outputs, relative to the largest output.
    """

    classes: list[ChannelOrder]
    layers: dict[str, tuple[float, float]]
    places: dict[str, dict[int, Tensor]]
    difference: float

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> nn.Module:
        """The same rearrangement of another copy of the network: a teacher, or a running mean of the weights."""
        tensors = _tensors(model)
        moved: set[int] = set()
        for name, axes in self.places.items():
            tensor = tensors[name]
            if id(tensor) in moved:
                continue
            moved.add(id(tensor))
            for axis, index in axes.items():
                tensor.copy_(tensor.index_select(axis, index.to(tensor.device)))
        return model

    def __str__(self) -> str:
        width = max([len(name) for name in self.layers] + [5])
        lines = [f"{'layer':{width}}  kept before  after"]
        lines += [
            f"{name:{width}}  {before:11.3f}  {after:5.3f}" for name, (before, after) in self.layers.items()
        ]
        return "\n".join(lines)


def rearrange_(
    model: nn.Module,
    example: Batch,
    groups: AnyPattern | str = "16x1",
    sparsity: float = 0.5,
    *,
    targets: Sequence[str] = ("Linear", "Conv1d", "Conv2d", "Conv3d"),
    ignore: Sequence[str] = (),
    score: Literal["absolute", "square"] = "absolute",
    seconds: float = 30.0,
    progress: bool = True,
) -> Rearrangement:
    """Reorders the channels of a network so that groups of weights keep more, in place; its outputs stay.

    Works on any model that torch.export can follow. Prune afterwards.

    Args:
        model: Not pruned and not packed yet.
        example: An input of the model: a tensor, a tuple of arguments or a mapping of keyword arguments.
        groups: What will be kept together: ``Group``, ``Kernels``, ``PerKind`` or a short name.
        sparsity: It will be pruned to, each layer alike.
        targets: Layers that will be pruned, as for ``Sparsifier``. Others move along and do not count.
        ignore: The same, for layers that will not be.
        score: What a weight is worth: its ``absolute`` value (L1 norms of groups), or its ``square``.
        seconds: For the search over all classes together. The result is the same unless time runs out.
        progress: Show a progress bar.

    Returns:
        The permutations, and what each layer keeps before and after.

    Raises:
        ValueError: A pattern to which the order of channels does not matter, nothing to prune, or a model that is
            parametrized or cannot be exported.
        RuntimeError: The outputs of the example changed by more than rounding. The model is then as it was.
    """
    pattern = parse(groups)
    if not is_grouped(pattern):
        raise ValueError(
            f"rearrange_: the order of channels does not matter to {pattern}. It is for groups; order_hidden_ serves "
            f"N:M."
        )
    if not 0.0 <= sparsity < 1.0:
        raise ValueError(f"rearrange_: sparsity is the fraction of zeros in [0, 1), got {sparsity}.")
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            raise ValueError(
                f"rearrange_: {name!r} is parametrized, by a sparsifier perhaps. Rearrange before."
            )
    layers = find_trainable(model, targets, ignore)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            args, kwargs = _call(example)
            network = network_axes(model, args, kwargs)
            search = _Search(network, _worth(model, network, layers, score), pattern, sparsity)
            expected = [part.clone() for part in _outputs(run_model(model, example))]
            classes = search.run(seconds, progress)
            found = Rearrangement(classes, search.shares(), search.places(), 0.0)
            difference = _move(model, found, example, expected)
    finally:
        for module, training in modes.items():
            module.training = training
    return Rearrangement(found.classes, found.layers, found.places, difference)


def _call(example: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example, Mapping):
        return (), dict(example)
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {**parameters, **dict(model.named_buffers(remove_duplicate=False))}


def _outputs(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _outputs(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _outputs(part)


def _move(model: nn.Module, found: Rearrangement, example: Batch, expected: list[Tensor]) -> float:
    """Applies a rearrangement and looks whether the outputs are those that are expected; if not, takes it back."""
    tensors = _tensors(model)
    saved = {name: tensors[name].clone() for name in found.places}
    found.apply_(model)
    worst = 0.0
    for now, then in zip(_outputs(run_model(model, example)), expected, strict=True):
        if then.is_floating_point() and then.numel():
            gap = (now.double() - then.double()).abs().max() / then.double().abs().max().clamp_min(1e-30)
            allowed = TOLERANCE.get(then.dtype, 0.1)
            worst = max(worst, float(gap))
            if not float(gap) <= allowed:
                for name, tensor in saved.items():
                    tensors[name].copy_(tensor)
                raise RuntimeError(
                    f"rearrange_: the outputs of the example changed by {float(gap):.2g} of the largest, more than "
                    f"rounding ({allowed:g}). The model is as it was. Name pairs of layers for order_hidden_ instead."
                )
    return worst


def _worth(
    model: nn.Module, network: Network, layers: Mapping[str, nn.Module], score: str
) -> dict[str, Tensor]:
    """What the weights of each layer that will be pruned are worth, their mean 1, by the name of the weight."""
    found = {}
    for name in network.weights:
        owner, _, leaf = name.rpartition(".")
        if owner in layers and leaf == "weight":
            size = model.get_parameter(name).detach().float().cpu().abs()
            size = size if score == "absolute" else size.square()
            if not torch.isfinite(size).all():
                raise ValueError(f"rearrange_: the weight of {owner!r} is not finite.")
            found[name] = size / size.mean().clamp_min(1e-30)
    return found


@dataclass
class _Search:
    """Permutations of classes, and what the layers keep under them."""

    network: Network
    worth: dict[str, Tensor]
    pattern: AnyPattern
    sparsity: float
    orders: dict[Channels, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Which weights, and which of their two channel axes, an order of a class matters to.
        self.matters: dict[Channels, list[tuple[str, int]]] = {}
        self.before = {name: self._kept(name) for name in self.worth}
        for name, worth in self.worth.items():
            shape = unit_shape(stored_pattern(self.pattern, tuple(worth.shape)))
            for axis in (0, 1):
                if shape[axis] == 1:
                    continue
                for channels, _ in leaves(self.network.tensors[name][axis]):
                    if not channels.frozen and channels.size > 1:
                        self.matters.setdefault(channels, []).append((name, axis))

    def _index(self, name: str, axis: int) -> Tensor:
        return places(self.network.tensors[name][axis], self.orders)

    def _kept(self, name: str) -> float:
        """Share of the score that a layer keeps under the orders found so far."""
        worth = self.worth[name]
        if self.orders:
            worth = worth[self._index(name, 0)][:, self._index(name, 1)]
        matrix, own = as_matrix(worth, self.pattern)
        return kept_score(matrix, own, self.sparsity)

    def _rows(self, channels: Channels) -> Tensor:
        """``(channels, all weights along them)``, of every layer that the class matters to."""
        found = []
        for name, axis in self.matters[channels]:
            worth = self.worth[name]
            start = 0
            for segment in leaves(self.network.tensors[name][axis]):
                if segment.channels is channels:
                    rows = worth.movedim(axis, 0).flatten(1)[start : start + segment.extent]
                    found.append(rows.reshape(channels.size, -1))
                start += segment.extent
        return torch.cat(found, 1)

    def _share(self, channels: Channels) -> float:
        """What the layers that a class matters to keep, weighed by their sizes."""
        names = list(dict.fromkeys(name for name, _ in self.matters[channels]))
        sizes = [self.worth[name].numel() for name in names]
        kept = sum(self._kept(name) * size for name, size in zip(names, sizes, strict=True))
        return kept / max(sum(sizes), 1)

    def _run(self, channels: Channels) -> int:
        """The longest group along a class."""
        shapes = [
            unit_shape(stored_pattern(self.pattern, tuple(self.worth[name].shape)))[axis]
            for name, axis in self.matters[channels]
        ]
        return max(shapes)

    def run(self, seconds: float, progress: bool) -> list[ChannelOrder]:
        """Chooses an order for each class, largest gain of three candidates."""
        matters = list(self.matters)
        cost = [channels.size * self._rows(channels).numel() for channels in matters]
        found = []
        with bar(len(matters), "rearranging channels", progress, "class") as advance:
            for channels, share in zip(matters, cost, strict=True):
                found.append(self._choose(channels, seconds * share / max(sum(cost), 1)))
                advance()
        return found

    def _choose(self, channels: Channels, seconds: float) -> ChannelOrder:
        rows, before = self._rows(channels), self._share(channels)
        identity = torch.arange(channels.size)
        by_norm = rows.sum(1).argsort(descending=True, stable=True)
        search = order_rows(
            rows[by_norm], Group(self._run(channels), 1), self.sparsity, seconds=max(seconds, 1e-3)
        )
        best: tuple[float, Tensor, Literal["kept", "sorted", "exchanged"]] = (before, identity, "kept")
        candidates: list[tuple[Tensor, Literal["sorted", "exchanged"]]] = [
            (by_norm, "sorted"),
            (by_norm[search.order], "exchanged"),
        ]
        for order, rule in candidates:
            self.orders[channels] = order
            kept = self._share(channels)
            if kept > best[0] + 1e-9:
                best = (kept, order, rule)
        after, order, rule_found = best
        self.orders[channels] = order
        return ChannelOrder(self._along(channels), order, before, after, rule_found)

    def _along(self, channels: Channels) -> tuple[str, ...]:
        return tuple(
            f"{name}[{axis}]"
            for name, axes in self.network.tensors.items()
            for axis, segments in enumerate(axes)
            if any(segment.channels is channels for segment in leaves(segments))
        )

    def shares(self) -> dict[str, tuple[float, float]]:
        """Kept share of each layer before and after, by the layer's name."""
        return {name.rpartition(".")[0]: (self.before[name], self._kept(name)) for name in self.worth}

    def places(self) -> dict[str, dict[int, Tensor]]:
        """Where each place of each reordered axis was before."""
        found: dict[str, dict[int, Tensor]] = {}
        for name, axes in self.network.tensors.items():
            for axis, segments in enumerate(axes):
                if any(segment.channels in self.orders for segment in leaves(segments)):
                    index = places(segments, self.orders)
                    if not torch.equal(index, torch.arange(len(index))):
                        found.setdefault(name, {})[axis] = index
        return found
