"""Orderings of hidden units put into models: rows of the layers that make them, columns of the layers that read them.

What stands between has to treat every unit alike: an activation, dropout, a norm over the units, a product or sum of
two such layers. The model then computes what it did, up to the order of its sums, and nothing has to be undone at run
time.
The units of one attention head may change places among themselves between the value and the output projection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sparsecore.formats.select import shared_rows
from sparsecore.patterns import NM, VNM, Pattern, Unstructured
from sparsecore.sparsify._progress import bar
from sparsecore.sparsify.calibration import Batch, input_norms
from sparsecore.sparsify.orderings import Ordering, kept_score, order_columns, order_rows

Names: TypeAlias = str | Sequence[str]
Pair: TypeAlias = tuple[Names, Names] | tuple[Names, Names, int]  # makers, readers, heads
Pairs: TypeAlias = Sequence[Pair]
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d)


@torch.no_grad()
def permute_hidden_(before: Iterable[nn.Module], after: Iterable[nn.Linear], order: Tensor) -> None:
    """Reorders hidden units, in place.

    Args:
        before: Linear layers whose outputs are the hidden units (gated blocks have two), and norms over the units.
        after: Layers whose inputs they are.
        order: ``(units,)`` int64, a permutation: unit ``order[i]`` comes to place i.

    Raises:
        ValueError: Not a permutation, layers of another size, or weights that are parametrized.
    """
    makers, readers = list(before), list(after)
    if order.dim() != 1 or not torch.equal(order.sort().values.cpu(), torch.arange(len(order))):
        raise ValueError("permute_hidden_: order must be a permutation of 0 to units - 1.")
    for layer in (*makers, *readers):
        if parametrize.is_parametrized(layer):
            raise ValueError(
                "permute_hidden_: a layer is parametrized, by a sparsifier perhaps. Order before pruning."
            )
    if any(units_of(layer) != len(order) for layer in makers) or any(
        layer.in_features != len(order) for layer in readers
    ):
        raise ValueError(f"permute_hidden_: the layers must have {len(order)} hidden units between them.")
    for layer in makers:
        for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
            if tensor.dim():  # all but a batch norm's counter
                tensor.copy_(tensor[order.to(tensor.device)])
    for layer in readers:
        layer.weight.copy_(layer.weight[:, order.to(layer.weight.device)])


def units_of(layer: nn.Module) -> int:
    """Units a linear layer or a norm makes; -1 for others."""
    if isinstance(layer, nn.Linear):
        return layer.out_features
    if isinstance(layer, nn.BatchNorm1d):
        return layer.num_features
    if isinstance(layer, (nn.LayerNorm, nn.RMSNorm)) and len(layer.normalized_shape) == 1:
        return int(layer.normalized_shape[0])
    return -1


def order_hidden_(
    model: nn.Module,
    pairs: Pairs,
    pattern: Pattern,
    sparsity: float | None = None,
    *,
    data: Iterable[Batch] | None = None,
    score: Literal["square", "absolute"] = "square",
    seconds: float = 10.0,
    progress: bool = True,
) -> dict[str, Ordering]:
    """Reorders hidden units so that a pattern keeps more, in place; the model's output stays.

    Per-row N:M is served by the order of the reading layers' columns, patterns that rows share by the order of the
    making layers' rows, and N:M that rows share and V:N:M by that of the reading layers' columns inside each run as
    well.

    Args:
        model: Any module, not pruned yet.
        pairs: ``[("fc1", "fc2"), (("gate", "up"), "down"), ("value", "output", 12), ...]``: the layers that make the
            units, those that read them, and where units keep to their attention head the number of heads.
            :func:`find_pairs` finds pairs without heads in models that torch.fx can trace.
        pattern: To be pruned to afterwards.
        sparsity: For ``Group``.
        data: Calibration batches: weights then count with the size of their inputs, as for Wanda.
        score: What a weight is worth: its ``square``, or its ``absolute`` value.
        seconds: For each pair.
        progress: Show a progress bar.

    Returns:
        The ordering of each pair, by the name of its first layer. Shares are those of the layers the order matters to.

    Raises:
        ValueError: A pattern to which order does not matter, or layers that do not fit together.
        TypeError: A name that is not that of a linear layer or a norm over units.
    """
    if isinstance(pattern, Unstructured) or (not isinstance(pattern, NM) and shared_rows(pattern) == 1):
        raise ValueError(f"order_hidden_: the order of units does not matter to {pattern}.")
    found: dict[str, Ordering] = {}
    resolved = [_resolve(model, pair) for pair in pairs]
    norms: Mapping[str, Tensor] = {}
    if data is not None:
        linears = {
            name: layer
            for makers, readers, _ in resolved
            for name, layer in (makers | readers).items()
            if isinstance(layer, nn.Linear)
        }
        norms = input_norms(model, linears, data)
    with bar(len(pairs), "ordering hidden units", progress, "pair") as advance:
        for makers, readers, heads in resolved:
            worth = {
                name: _worth(layer, norms.get(name), score)
                for name, layer in (makers | readers).items()
                if isinstance(layer, nn.Linear)
            }
            rows = torch.cat([worth[name] for name in makers if name in worth], 1)
            columns = torch.cat([worth[name] for name in readers]) if readers else rows[:0].T
            ordering = _search(rows, columns, pattern, sparsity, heads, seconds)
            permute_hidden_(makers.values(), readers.values(), ordering.order)
            found[next(iter(makers))] = ordering
            advance()
    return found


def _worth(layer: nn.Linear, norm: Tensor | None, score: str) -> Tensor:
    size = layer.weight.detach().float().abs()
    if norm is not None:
        size = size * norm.to(size)
    return size if score == "absolute" else size.square()


def _resolve(model: nn.Module, pair: Pair) -> tuple[dict[str, nn.Module], dict[str, nn.Linear], int]:
    names = [[part] if isinstance(part, str) else list(part) for part in pair[:2]]
    heads = pair[2] if len(pair) == 3 else 1
    makers = {name: model.get_submodule(name) for name in names[0]}
    readers: dict[str, nn.Linear] = {}
    for name in names[1]:
        layer = model.get_submodule(name)
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"order_hidden_: {name!r} is no nn.Linear.")
        readers[name] = layer
    for name, layer in makers.items():
        if not isinstance(layer, (nn.Linear, *NORMS)):
            raise TypeError(f"order_hidden_: {name!r} is no nn.Linear and no norm over units.")
    if not any(isinstance(layer, nn.Linear) for layer in makers.values()):
        raise ValueError(f"order_hidden_: no layer of {names[0]} makes units.")
    sizes = {name: units_of(layer) for name, layer in makers.items()}
    sizes |= {name: layer.in_features for name, layer in readers.items()}
    units = next(iter(sizes.values()))
    if len(set(sizes.values())) > 1 or heads < 1 or units % heads:
        raise ValueError(
            f"order_hidden_: layers must have the same hidden units, and heads must divide them; got {sizes} and "
            f"{heads} heads."
        )
    tied = tied_parameters(model) & {
        id(p) for layer in (makers | readers).values() for p in layer.parameters()
    }
    if tied:
        raise ValueError(
            f"order_hidden_: a weight of {list(sizes)} is shared with another layer. Leave the pair out."
        )
    return makers, readers, heads


def tied_parameters(model: nn.Module) -> set[int]:
    """Parameters that two modules own."""
    seen: set[int] = set()
    twice: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            (twice if id(parameter) in seen else seen).add(id(parameter))
    return twice


def _search(
    rows: Tensor, columns: Tensor, pattern: Pattern, sparsity: float | None, heads: int, seconds: float
) -> Ordering:
    """Orders units inside each head, by the rows that make them or by the columns that read them."""
    order = torch.arange(rows.shape[0], device=rows.device)
    shared = shared_rows(pattern)
    for units in order.clone().split(len(order) // heads):
        mine = units
        if shared > 1 and (heads == 1 or len(units) % shared == 0):
            mine = units[order_rows(rows[units], pattern, sparsity, seconds=seconds / heads).order]
        if isinstance(pattern, (NM, VNM)) and len(columns):
            run = shared if shared > 1 else len(units)
            # Groups must straddle neither heads nor the runs that were just chosen; only the last may be short.
            runs = mine.split(run) if run % pattern.m == 0 or run == len(order) else ()
            share = seconds / heads / max(len(runs), 1)
            parts = [
                part[order_columns(columns[:, part], pattern, seconds=share).order]
                if len(part) % pattern.m == 0 or heads == 1
                else part
                for part in runs
            ]
            mine = torch.cat(parts) if parts else mine
        order[units] = mine

    def kept(placed: Tensor) -> float:
        shares = []
        if shared > 1:
            shares.append(kept_score(rows[placed], pattern, sparsity))
        if isinstance(pattern, (NM, VNM)) and len(columns):
            shares.append(kept_score(columns[:, placed], pattern))
        return sum(shares) / max(len(shares), 1)

    identity = order.sort().values
    before, after = kept(identity), kept(order)
    return Ordering(order, before, after) if after > before else Ordering(identity, before, before)
