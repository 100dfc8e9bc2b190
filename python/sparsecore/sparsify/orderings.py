"""Orderings of channels that let a pattern keep more, undone for free.

Hidden units between two layers have no order of their own: permuting the rows of the first layer and the columns of the
second changes nothing. Which units are neighbours decides what a pattern can keep:

    rows      units that share a list (NM(n, m, vector=V), Group(V, 1)) keep more if they like the same inputs
    columns   inputs of an N:M group keep more if large ones do not meet (Pool and Yu 2021, channel permutations)

Both searches start from the order that is there, take only exchanges that raise the kept score exactly, and stop when
none is left or their time is up: the result is never worse.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsecore.formats.select import nm_mask, score_units, select_mask, shared_rows
from sparsecore.patterns import NM, Pattern
from sparsecore.sparsify._progress import bar
from sparsecore.sparsify.presets import magnitude


@dataclass(frozen=True)
class Ordering:
    """A permutation and what it is worth.

    Attributes:
        order: ``(channels,)`` int64: channel ``order[i]`` comes to place i.
        before: Kept share of the score in the order that was there.
        after: In the new one.
    """

    order: Tensor
    before: float
    after: float


def _check(owner: str, score: Tensor, seconds: float) -> None:
    if score.dim() != 2 or not torch.isfinite(score).all() or bool((score < 0).any()):
        raise ValueError(f"{owner}: score must be a matrix of finite numbers that are not negative.")
    if not seconds > 0.0:
        raise ValueError(f"{owner}: seconds must be positive, got {seconds}.")


def kept_score(score: Tensor, pattern: Pattern, sparsity: float | None = None) -> float:
    """Share of the whole score that the best mask of a pattern keeps."""
    mask = select_mask(score, pattern, sparsity)
    return float((score * mask).sum() / score.sum().clamp_min(1e-30))


def order_columns(score: Tensor, pattern: NM, *, seconds: float = 10.0) -> Ordering:
    """An order of the inputs under which N:M groups keep more.

    In each pass every column is tried in place of every other; of all exchanges the best one per pair of groups that do
    not overlap are made.

    Args:
        score: ``(out, in)``, what each weight is worth.
        pattern: N:M, per row or shared.
        seconds: When to stop.

    Returns:
        The ordering of the inputs.
    """
    _check("order_columns", score, seconds)
    if not isinstance(pattern, NM):
        raise ValueError(f"order_columns: only N:M groups lie along the inputs, got {pattern}.")
    units = score_units(score.double(), pattern)
    width, m, n = score.shape[1], pattern.m, pattern.n
    groups = width // m
    order = torch.arange(width)
    whole = units.sum().clamp_min(1e-30)
    before = float((units * nm_mask(units, n, m)).sum() / whole)
    end = time.perf_counter() + seconds
    while groups > 1 and time.perf_counter() < end:
        if not _swap_columns(units[:, order[: groups * m]], order, groups, n, m, end):
            break
    arranged = units[:, order]
    return Ordering(order, before, float((arranged * nm_mask(arranged, n, m)).sum() / whole))


def _swap_columns(units: Tensor, order: Tensor, groups: int, n: int, m: int, end: float) -> bool:
    """One pass over all pairs of groups; makes the best exchange of each pair that gains. Changes ``order``."""
    changed = False
    blocks = units.view(units.shape[0], groups, m).clone()
    places = order[: groups * m].view(groups, m)
    for first in range(groups - 1):
        if time.perf_counter() > end:
            break
        others = torch.arange(first + 1, groups)
        mine, theirs = blocks[:, first], blocks[:, others]  # (rows, m), (rows, g, m)
        base = mine.topk(n, -1).values.sum() + theirs.topk(n, -1).values.sum(-1).sum(0)  # (g,)
        gain = torch.empty(len(others), m, m, dtype=blocks.dtype)
        for i in range(m):
            for j in range(m):
                left = mine.unsqueeze(1).expand(-1, len(others), -1).clone()
                right = theirs.clone()
                left[..., i], right[..., j] = theirs[..., j], mine[:, i].unsqueeze(1)
                kept = left.topk(n, -1).values.sum((0, 2)) + right.topk(n, -1).values.sum((0, 2))
                gain[:, i, j] = kept - base
        best = int(gain.argmax())
        if float(gain.flatten()[best]) > 1e-9 * float(base.max().clamp_min(1e-30)):
            other, i, j = int(others[best // (m * m)]), best // m % m, best % m
            blocks[:, first, i], blocks[:, other, j] = (
                blocks[:, other, j].clone(),
                blocks[:, first, i].clone(),
            )
            held = int(places[first, i])
            places[first, i], places[other, j] = places[other, j], held
            changed = True
    order[: groups * m] = places.flatten()
    return changed


def order_rows(
    score: Tensor, pattern: Pattern, sparsity: float | None = None, *, seconds: float = 10.0, seed: int = 0
) -> Ordering:
    """An order of the output channels under which runs that share a list keep more.

    Rows are dealt to runs by balanced k-means on what they would keep alone, then single rows are exchanged between
    runs as long as the kept score rises.

    Args:
        score: ``(out, in)``, what each weight is worth.
        pattern: ``NM(n, m, vector=V)`` or ``Group(V, 1)``.
        sparsity: For ``Group``.
        seconds: When to stop.
        seed: Of the first centres and of the exchanges tried.

    Returns:
        The ordering of the outputs; the identity where nothing better was found.
    """
    _check("order_rows", score, seconds)
    rows = shared_rows(pattern)
    count = score.shape[0]
    before = kept_score(score, pattern, sparsity)
    identity = Ordering(torch.arange(count), before, before)
    runs = count // rows
    if rows == 1 or runs < 2:
        return identity
    end = time.perf_counter() + seconds
    values = score.float()
    generator = torch.Generator().manual_seed(seed)
    share = pattern.n / pattern.m if isinstance(pattern, NM) else 1.0 - (sparsity or 0.0)
    best = identity
    start = _balanced(values, runs, rows, end, generator)
    for order in (torch.arange(count), start):
        improved = _exchange_rows(values, order.clone(), rows, runs, pattern, share, end, generator)
        after = kept_score(score[improved], pattern, sparsity)
        if after > best.after:
            best = Ordering(improved, before, after)
    return best


def _balanced(score: Tensor, runs: int, rows: int, end: float, generator: torch.Generator) -> Tensor:
    """Balanced k-means on rows of unit length: each centre takes exactly ``rows``, in order of how sure rows are."""
    points = torch.nn.functional.normalize(score, dim=1)
    centres = points[torch.randperm(len(points), generator=generator)[:runs]]
    order = torch.arange(len(points))
    for _ in range(20):
        if time.perf_counter() > end:
            break
        likeness = points @ centres.T
        top = likeness.topk(min(2, runs), 1).values
        room = [rows] * runs
        members: list[list[int]] = [[] for _ in range(runs)]
        rest: list[int] = []
        preferred = likeness.argsort(1, descending=True).tolist()
        for row in (top[:, 0] - top[:, -1]).argsort(descending=True).tolist():
            for run in preferred[row]:
                if room[run]:
                    room[run] -= 1
                    members[run].append(row)
                    break
            else:
                rest.append(row)
        new = torch.tensor([row for run in members for row in sorted(run)] + rest)
        if torch.equal(new, order):
            break
        order = new
        centres = torch.stack(
            [torch.nn.functional.normalize(points[torch.tensor(run)].sum(0), dim=0) for run in members]
        )
    return order


def _run_kept(sums: Tensor, pattern: Pattern, share: float) -> Tensor:
    """What runs keep, ``(...)`` from sums of scores ``(..., in)``: exact for N:M, by balanced rows for groups."""
    if isinstance(pattern, NM):
        whole = sums.shape[-1] // pattern.m * pattern.m
        inside = sums[..., :whole].unflatten(-1, (-1, pattern.m)).topk(pattern.n, -1).values.sum((-1, -2))
        tail = sums[..., whole:]
        kept: Tensor = inside + tail.topk(min(pattern.n, tail.shape[-1]), -1).values.sum(-1)
        return kept
    return sums.topk(max(1, round(share * sums.shape[-1])), -1).values.sum(-1)


def _exchange_rows(
    score: Tensor,
    order: Tensor,
    rows: int,
    runs: int,
    pattern: Pattern,
    share: float,
    end: float,
    generator: torch.Generator,
) -> Tensor:
    """Tries pairs of runs at random; makes the best exchange of one row against another where it gains."""
    members = order[: runs * rows].view(runs, rows).clone()
    sums = score[members.flatten()].view(runs, rows, -1).sum(1)
    kept = _run_kept(sums, pattern, share)
    idle, budget = 0, 4 * runs
    while idle < budget and time.perf_counter() < end:
        a, b = torch.randperm(runs, generator=generator)[:2].tolist()
        first, second = score[members[a]], score[members[b]]
        # The row of a that fits its own run least against every row of b.
        pick = int((first @ (sums[b] / rows) - first @ (sums[a] / rows)).argmax())
        left = sums[a] - first[pick] + second
        right = sums[b] + first[pick] - second
        gain = _run_kept(left, pattern, share) + _run_kept(right, pattern, share) - kept[a] - kept[b]
        other = int(gain.argmax())
        if float(gain[other]) > 1e-6 * float(kept[a] + kept[b]):
            sums[a], sums[b] = left[other], right[other]
            kept[a], kept[b] = _run_kept(sums[a], pattern, share), _run_kept(sums[b], pattern, share)
            held = int(members[a, pick])
            members[a, pick], members[b, other] = members[b, other], held
            idle = 0
        else:
            idle += 1
    return torch.cat([members.flatten(), order[runs * rows :]])


@torch.no_grad()
def permute_hidden_(before: Iterable[nn.Linear], after: Iterable[nn.Linear], order: Tensor) -> None:
    """Reorders hidden units, in place: rows of the layers that make them, columns of the layers that read them.

    What stands between has to treat every unit alike (an activation, a product of two such layers, dropout); the
    outputs of ``after`` are then those of before, up to the order of the sums.

    Args:
        before: Layers whose outputs are the hidden units; gated blocks have two.
        after: Layers whose inputs they are.
        order: ``(units,)`` int64, a permutation.

    Raises:
        ValueError: Not a permutation, or layers of another size.
    """
    makers, readers = list(before), list(after)
    if not torch.equal(order.sort().values, torch.arange(len(order))):
        raise ValueError("permute_hidden_: order must be a permutation of 0 to units - 1.")
    if any(layer.out_features != len(order) for layer in makers) or any(
        layer.in_features != len(order) for layer in readers
    ):
        raise ValueError(f"permute_hidden_: the layers must have {len(order)} hidden units between them.")
    for layer in makers:
        layer.weight.copy_(layer.weight[order])
        if layer.bias is not None:
            layer.bias.copy_(layer.bias[order])
    for layer in readers:
        layer.weight.copy_(layer.weight[:, order])


Pairs = Sequence[tuple[str | Sequence[str], str | Sequence[str]]]


def order_hidden_(
    model: nn.Module,
    pairs: Pairs,
    pattern: Pattern,
    sparsity: float | None = None,
    *,
    seconds: float = 10.0,
    progress: bool = True,
) -> dict[str, Ordering]:
    """Reorders the hidden units of named pairs of layers so that a pattern keeps more of their magnitude, in place.

    Patterns that rows share are served by the order of the first layers' rows, per-row N:M by the order of the second
    layers' columns.

    Args:
        model: Any module; its output stays the same.
        pairs: ``[("fc1", "fc2"), (("gate", "up"), "down"), ...]``: layers whose units nothing else reads.
        pattern: To be pruned to afterwards.
        sparsity: For ``Group``.
        seconds: For each pair.
        progress: Show a progress bar.

    Returns:
        The ordering of each pair, by the name of its first layer.
    """
    found: dict[str, Ordering] = {}
    with bar(len(pairs), "ordering hidden units", progress, "pair") as advance:
        for first, second in pairs:
            makers = [first] if isinstance(first, str) else list(first)
            readers = [second] if isinstance(second, str) else list(second)
            layers = {name: model.get_submodule(name) for name in (*makers, *readers)}
            odd = [name for name, layer in layers.items() if not isinstance(layer, nn.Linear)]
            if odd:
                raise TypeError(f"order_hidden_: {odd[0]!r} is no nn.Linear.")
            make: list[nn.Linear] = [layers[name] for name in makers]  # type: ignore[misc]
            read: list[nn.Linear] = [layers[name] for name in readers]  # type: ignore[misc]
            if shared_rows(pattern) > 1:
                score = torch.cat([layer.weight.detach().square() for layer in make], 1)
                ordering = order_rows(score, pattern, sparsity, seconds=seconds)
            elif isinstance(pattern, NM):
                score = torch.cat([layer.weight.detach().square() for layer in read])
                ordering = order_columns(score, pattern, seconds=seconds)
            else:
                raise ValueError(f"order_hidden_: the order of units does not matter to {pattern}.")
            permute_hidden_(make, read, ordering.order)
            found[makers[0]] = ordering
            advance()
    return found


def asp(
    model: nn.Module,
    *,
    pairs: Pairs = (),
    seconds: float = 10.0,
    targets: Sequence[str] = ("Linear",),
    ignore: Sequence[str] = (),
    progress: bool = True,
) -> dict[str, Tensor]:
    """2:4 by magnitude, after a channel permutation where the model allows one (ASP, Mishra et al. 2021).

    Args:
        model: Pruned in place.
        pairs: Of layers whose hidden units may be reordered, as for :func:`order_hidden_`.
        seconds: For each pair.
        targets: As for :func:`~sparsecore.sparsify.prune_once`.
        ignore: The same.
        progress: Show progress bars.

    Returns:
        Masks by layer name.
    """
    if pairs:
        order_hidden_(model, pairs, NM(2, 4), seconds=seconds, progress=progress)
    return magnitude(model, NM(2, 4), targets=targets, ignore=ignore, progress=progress)
