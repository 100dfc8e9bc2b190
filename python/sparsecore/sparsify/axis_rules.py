"""What each operator asks of the axes of its tensors, and a walk over a whole exported network.

Each rule takes the axes of the inputs, joins those that need one order, and says what the axes of the result are.
Weights are inputs like any other, whose axes start free: a convolution joins its weight's input axis to the channels it
reads, a batch norm its scale to the channels it scales, and the result has the order of the weight's rows. An operator
without a rule freezes whatever it touches, so that a network may contain anything.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, fx, nn

from sparsecore.sparsify.axes import Axis, between, extent, freeze, fresh, join, repeated

Axes: TypeAlias = tuple[Axis, ...]  # of one tensor
Kind: TypeAlias = Literal["linear", "pointwise", "conv", "depthwise"]


@dataclass
class Walk:
    """What is known while the operators of a network are visited.

    Attributes:
        axes: Of each value; a list where an operator returns several tensors.
        weights: Weights of linear layers and convolutions: what kind of operator reads each first.
    """

    axes: dict[fx.Node, Axes | list[Axes]] = field(default_factory=dict)
    weights: dict[fx.Node, Kind] = field(default_factory=dict)

    def of(self, value: Any) -> Axes | None:
        """Axes of an argument, or None where it is no tensor."""
        found = self.axes.get(value) if isinstance(value, fx.Node) else None
        return found if isinstance(found, tuple) else None


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of the tensor a node makes in the example."""
    return tuple(int(size) for size in node.meta["val"].shape)


def _argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    """An argument by place or by name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _source(walk: Walk, node: fx.Node) -> Axes:
    """Axes of the first argument."""
    found = walk.of(node.args[0])
    assert found is not None
    return found


def _normal(dim: int, count: int) -> int:
    return dim + count if dim < 0 else dim


def _dims(dims: int | Sequence[int] | None, count: int) -> set[int]:
    if dims is None or (not isinstance(dims, int) and not dims):
        return set(range(count))
    return {_normal(dim, count) for dim in ([dims] if isinstance(dims, int) else dims)}


def _freeze_all(tensors: Sequence[Axes | None]) -> None:
    for axes in tensors:
        for axis in axes or ():
            freeze(axis)


def _broadcast(shape: tuple[int, ...], tensors: Sequence[Axes | None]) -> Axes:
    """Elementwise: axes aligned at the right, those of length 1 stretched."""
    result: list[Axis] = []
    for back in range(len(shape), 0, -1):
        same = [axes[-back] for axes in tensors if axes is not None and len(axes) >= back]
        full = [axis for axis in same if extent(axis) == shape[-back]]
        for axis in full[1:]:
            join(full[0], axis)
        result.append(full[0] if full else fresh(shape[-back], frozen=True))
    return tuple(result)


def _elementwise(walk: Walk, node: fx.Node) -> Axes:
    values = [*node.args, *node.kwargs.values()]
    tensors = [walk.of(value) for item in values for value in (item if isinstance(item, list) else [item])]
    return _broadcast(shape_of(node), tensors)


def _carried(walk: Walk, node: fx.Node, changed: set[int]) -> Axes:
    """The axes of the first argument, but for those that the operator computes anew."""
    source = _source(walk, node)
    for dim in changed:
        freeze(source[dim])
    shape = shape_of(node)
    return tuple(fresh(shape[d], frozen=True) if d in changed else axis for d, axis in enumerate(source))


def _convolution(walk: Walk, node: fx.Node) -> Axes:
    transposed = "transpose" in str(node.target)
    groups: int = _argument(node, 6, "groups", 1)
    source, weight, bias = _source(walk, node), walk.of(node.args[1]), walk.of(_argument(node, 2, "bias"))
    assert weight is not None and isinstance(node.args[1], fx.Node)
    channels = len(source) - (len(weight) - 2) - 1
    reads, makes = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    _freeze_all([weight[2:], source[channels + 1 :]])
    if not transposed:
        walk.weights.setdefault(node.args[1], _kind(shape_of(node.args[1]), groups))
    if groups == 1:
        join(source[channels], reads)
    elif groups == extent(source[channels]) and not transposed:
        join(repeated(source[channels], extent(makes) // groups), makes)
    else:
        _freeze_all([(source[channels], reads, makes)])
        makes = fresh(shape_of(node)[channels], frozen=True)
    if bias is not None:
        join(makes, bias[0])
    spatial = tuple(fresh(size, frozen=True) for size in shape_of(node)[channels + 1 :])
    return (*source[:channels], makes, *spatial)


def _kind(shape: tuple[int, ...], groups: int) -> Kind:
    if groups > 1 and shape[1] == 1:
        return "depthwise"
    return "pointwise" if math.prod(shape[2:]) == 1 else "conv"


def _linear(walk: Walk, node: fx.Node) -> Axes:
    source, weight, bias = _source(walk, node), walk.of(node.args[1]), walk.of(_argument(node, 2, "bias"))
    assert weight is not None and isinstance(node.args[1], fx.Node)
    join(source[-1], weight[1])
    if bias is not None:
        join(weight[0], bias[0])
    walk.weights.setdefault(node.args[1], "linear")
    return (*source[:-1], weight[0])


def _matmul(walk: Walk, node: fx.Node) -> Any:
    first, second = _source(walk, node), walk.of(node.args[1])
    assert second is not None
    if len(first) < 2 or len(second) < 2:
        return _frozen(walk, node)
    join(first[-1], second[-2])
    outer = _broadcast(shape_of(node)[:-2], [first[:-2], second[:-2]])
    return (*outer, first[-2], second[-1])


def _batch_norm(walk: Walk, node: fx.Node) -> Axes:
    """Channels are the second axis; what belongs to them are vectors, wherever they stand in the arguments."""
    source = _source(walk, node)
    for value in node.args[1:]:
        vector = walk.of(value)
        if vector is not None:
            join(source[1], vector[0])
    return source


def _layer_norm(walk: Walk, node: fx.Node) -> Axes:
    source, normalized = _source(walk, node), node.args[1]
    assert isinstance(normalized, (list, tuple))
    for value in (*node.args[2:], *node.kwargs.values()):
        scale = walk.of(value)
        for mine, theirs in zip(source[len(source) - len(normalized) :], scale or (), strict=False):
            join(mine, theirs)
    return source


def _prelu(walk: Walk, node: fx.Node) -> Axes:
    source, slope = _source(walk, node), walk.of(node.args[1])
    if slope and extent(slope[0]) > 1:
        join(source[1], slope[0])
    return source


def _spatial(walk: Walk, node: fx.Node) -> Axes:
    """Pooling and resampling: the last axes change, as many as the operator's name says."""
    name, source = str(node.target), _source(walk, node)
    count = next((n for n in (1, 2, 3) if f"{n}d" in name), 2)
    return _carried(walk, node, set(range(len(source) - count, len(source))))


def _pad(walk: Walk, node: fx.Node) -> Axes:
    source, amounts = _source(walk, node), _argument(node, 1, "pad")
    touched = {len(source) - 1 - i // 2 for i, amount in enumerate(amounts) if amount != 0}
    return _carried(walk, node, touched)


def _reduction(walk: Walk, node: fx.Node) -> Axes:
    """Sums, means and extremes ask no order of the axes they take away."""
    source = _source(walk, node)
    gone = _dims(_argument(node, 1, "dim"), len(source))
    if len(shape_of(node)) == len(source):
        return tuple(fresh(1, frozen=True) if d in gone else axis for d, axis in enumerate(source))
    return tuple(axis for d, axis in enumerate(source) if d not in gone)


def _same(walk: Walk, node: fx.Node) -> Axes:
    return _source(walk, node)


def _concatenate(walk: Walk, node: fx.Node) -> Axes:
    parts: Any = node.args[0]
    tensors = [axes for value in parts if (axes := walk.of(value)) is not None]
    dim = _normal(_argument(node, 1, "dim", 0), len(tensors[0]))
    result: list[Axis] = []
    for d, axis in enumerate(tensors[0]):
        if d == dim:
            result.append(tuple(segment for axes in tensors for segment in axes[d]))
            continue
        for axes in tensors[1:]:
            join(axis, axes[d])
        result.append(axis)
    return tuple(result)


def _pieces(walk: Walk, node: fx.Node) -> list[Axes]:
    """chunk, split and their like: as the results of the example are cut."""
    source = _source(walk, node)
    dim = _normal(_argument(node, 2, "dim", 0), len(source))
    found, start = [], 0
    for part in node.meta["val"]:
        stop = start + int(part.shape[dim])
        found.append((*source[:dim], between(source[dim], start, stop), *source[dim + 1 :]))
        start = stop
    return found


def _slice(walk: Walk, node: fx.Node) -> Axes:
    source = _source(walk, node)
    dim = _normal(_argument(node, 1, "dim", 0), len(source))
    start, stop = _argument(node, 2, "start"), _argument(node, 3, "end")
    if _argument(node, 4, "step", 1) != 1:
        return _carried(walk, node, {dim})
    low, high, _ = slice(start, stop).indices(extent(source[dim]))
    return (*source[:dim], between(source[dim], low, max(high, low)), *source[dim + 1 :])


def _select(walk: Walk, node: fx.Node) -> Axes:
    source = _source(walk, node)
    dim = _normal(_argument(node, 1, "dim"), len(source))
    freeze(source[dim])
    return (*source[:dim], *source[dim + 1 :])


def _permute(walk: Walk, node: fx.Node) -> Axes:
    source = _source(walk, node)
    order = list(range(len(source)))
    if node.target is torch.ops.aten.permute.default:
        order = [_normal(d, len(source)) for d in _argument(node, 1, "dims")]
    elif len(node.args) == 3:
        a, b = (_normal(_argument(node, place, f"dim{place - 1}"), len(source)) for place in (1, 2))
        order[a], order[b] = b, a
    else:
        order.reverse()
    return tuple(source[d] for d in order)


def _reshape(walk: Walk, node: fx.Node) -> Axes:
    """Axes that are cut or glued: the outermost channel keeps its freedom, in runs; what is inside keeps its order."""
    source = _source(walk, node)
    old, new = [extent(axis) for axis in source], list(shape_of(node))
    result: list[Axis] = []
    i = j = 0
    while i < len(old) or j < len(new):
        left, right = [i], [j]
        i, j = i + 1, j + 1
        while (have := math.prod(old[d] for d in left if d < len(old))) != (
            need := math.prod(new[d] for d in right if d < len(new))
        ) and (i < len(old) or j < len(new)):
            if (have < need and i < len(old)) or j >= len(new):
                left.append(i)
                i += 1
            else:
                right.append(j)
                j += 1
        mine = [source[d] for d in left if d < len(old) and old[d] != 1]
        result += _regroup(mine, [new[d] for d in right if d < len(new)])
    return tuple(result)


def _regroup(old: list[Axis], sizes: list[int]) -> list[Axis]:
    """Axes of one group of a reshape; ``old`` holds those longer than 1, of as many places as ``sizes`` make."""
    wide = [size for size in sizes if size != 1]
    if not old or not wide or 0 in wide:
        return [fresh(size, frozen=True) for size in sizes]
    for axis in old[1:]:
        freeze(axis)
    outer = old[0]
    inside = math.prod(extent(axis) for axis in old[1:])
    if extent(outer) == wide[0]:
        made = [outer]
    elif len(wide) == 1:
        made = [repeated(outer, inside)]
    elif extent(outer) % wide[0] == 0:  # cut into runs that move as one
        head = fresh(wide[0])
        join(repeated(head, extent(outer) // wide[0]), outer)
        made = [head]
    else:
        freeze(outer)
        made = [fresh(wide[0], frozen=True)]
    made += [fresh(size, frozen=True) for size in wide[1:]]
    rest = iter(made)
    return [next(rest) if size != 1 else fresh(1, frozen=True) for size in sizes]


def _expand(walk: Walk, node: fx.Node) -> Axes:
    source, shape = _source(walk, node), shape_of(node)
    new = [fresh(size) for size in shape[: len(shape) - len(source)]]
    grown = zip(source, shape[len(shape) - len(source) :], strict=True)
    return (*new, *(axis if extent(axis) == size else fresh(size) for axis, size in grown))


def _embedding(walk: Walk, node: fx.Node) -> Axes:
    table, index = _source(walk, node), walk.of(node.args[1])
    assert index is not None
    freeze(table[0])
    return (*index, table[1])


def _frozen(walk: Walk, node: fx.Node) -> Axes | list[Axes] | None:
    """No rule: everything the operator touches keeps its order."""
    for source in node.all_input_nodes:
        found = walk.axes.get(source, ())
        _freeze_all(found if isinstance(found, list) else [found])
    value = node.meta.get("val")
    frozen = [
        tuple(fresh(int(size), frozen=True) for size in part.shape)
        for part in (value if isinstance(value, (list, tuple)) else [value])
        if isinstance(part, Tensor)
    ]
    if isinstance(value, Tensor):
        return frozen[0]
    return frozen if isinstance(value, (list, tuple)) and len(frozen) == len(value) else None


Rule: TypeAlias = Callable[[Walk, fx.Node], Any]
_RULES: dict[str, Rule] = {
    name: rule
    for rule, names in {
        _convolution: "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
        _linear: "linear",
        _matmul: "matmul mm bmm",
        _batch_norm: "batch_norm instance_norm",
        _layer_norm: "layer_norm rms_norm",
        _prelu: "prelu",
        _elementwise: "dropout dropout_ feature_dropout feature_dropout_ alpha_dropout hardswish hardswish_ relu6 "
        "relu6_ selu selu_ type_as masked_fill",
        _spatial: "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
        "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d upsample_nearest1d upsample_nearest2d "
        "upsample_bilinear2d upsample_bicubic2d",
        _pad: "pad constant_pad_nd",
        _reduction: "mean sum amax amin var std",
        _same: "softmax log_softmax contiguous clone detach alias to _to_copy lift_fresh_copy zeros_like ones_like",
        _concatenate: "cat concat concatenate",
        _pieces: "chunk split split_with_sizes tensor_split unsafe_chunk unsafe_split",
        _slice: "slice",
        _select: "select",
        _permute: "permute transpose t numpy_T swapaxes",
        _reshape: "view reshape flatten unflatten unsqueeze squeeze _unsafe_view",
        _expand: "expand expand_as",
        _embedding: "embedding",
    }.items()
    for name in names.split()
}  # fmt: skip


def _rule(node: fx.Node) -> Rule:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return _frozen
    namespace, _, name = target._schema.name.partition("::")
    if namespace == "aten" and name in _RULES:
        return _RULES[name]
    return _elementwise if torch.Tag.pointwise in target.tags else _frozen


@dataclass(frozen=True)
class Network:
    """The axes of everything a network holds.

    Attributes:
        tensors: Axes of each parameter and buffer, by name.
        weights: Kind of operator of each weight of a linear layer or convolution, by name, in the order of use.
    """

    tensors: dict[str, Axes]
    weights: dict[str, Kind]


def network_axes(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Network:
    """Exports a model and follows its channels.

    Args:
        model: In evaluation mode; anything torch.export takes.
        args: Of one call.
        kwargs: Of the same call.

    Raises:
        ValueError: The model cannot be exported.
    """
    try:
        program = torch.export.export(model, args, kwargs, strict=False)
    except Exception as error:
        raise ValueError(
            f"rearrange_: torch.export cannot follow {type(model).__name__} ({type(error).__name__}: {error}). "
            f"Name the pairs of layers yourself: order_hidden_(model, [('fc1', 'fc2')], pattern)."
        ) from error
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    held = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    walk, owned = Walk(), {}
    shared: dict[int, Axes] = {}  # one tensor may go by two names
    for node in program.graph.nodes:
        if node.op == "placeholder":
            value = node.meta.get("val")
            if not isinstance(value, Tensor):
                continue
            name = names.get(node.name)
            axes: Axes = tuple(fresh(int(size), frozen=name is None) for size in value.shape)
            if name is not None:
                axes = shared.setdefault(id(held[name]), axes)
                owned[node] = name
            walk.axes[node] = axes
        elif node.op == "output":
            _frozen(walk, node)
        else:
            _visit(walk, node)
    tensors = {name: found for node, name in owned.items() if (found := walk.of(node)) is not None}
    return Network(tensors, {owned[node]: kind for node, kind in walk.weights.items() if node in owned})


def _visit(walk: Walk, node: fx.Node) -> None:
    if node.target is operator.getitem:
        source, index = node.args
        several = walk.axes.get(source)  # type: ignore[arg-type]
        found = (
            several[index] if isinstance(several, list) and isinstance(index, int) else _frozen(walk, node)
        )
    else:
        first = node.args[0] if node.args else None
        listed = isinstance(first, (list, tuple))
        known = listed or walk.of(first) is not None
        rule = _rule(node)
        found = rule(walk, node) if known or rule is _elementwise else _frozen(walk, node)
    if found is not None:
        walk.axes[node] = found
