"""Orderings of channels that let a pattern keep more.

Which channels are neighbours decides what a pattern can keep:

    columns   N:M groups keep more if large weights of a row do not meet in one (channel permutations, Pool and Yu 2021)
    rows      outputs that share a list (NM(n, m, vector=V), Group(V, c)) keep more if they like the same inputs

Both searches take only exchanges that raise the kept score and stop where no single exchange does so any more. Of V:N:M
the rows of a run like the same four inputs of a group, and columns are parted by either of its two choices, the run's
pick and the row's, since no gain of an exchange is known under both at once. The result is never worse than the order
that was there. :mod:`~sparsecore.sparsify.permute` applies it to a model.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecore.formats.select import (
    nm_mask,
    score_units,
    select_mask,
    shared_rows,
    spread,
    tiles,
    top_mask,
    unit_shape,
)
from sparsecore.patterns import NM, VNM, Pattern

_CHUNK = 1024  # rows of a square matrix of gains that are looked at together: bounds memory beside the matrix


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
    whole = score.sum(dtype=torch.float64).clamp_min(1e-300)
    return float((score * mask).sum(dtype=torch.float64) / whole)


def order_columns(score: Tensor, pattern: NM | VNM, *, seconds: float = 30.0) -> Ordering:
    """An order of the inputs under which N:M and V:N:M groups keep more.

    The gain of every exchange of two columns is known at once: a group that loses column a for column b keeps, in each
    row, ``rest + max(0, b - t)`` with t the n-th largest of the rest, and the sum of ``max(0, b - t)`` over the rows is
    half an L1 distance plus sums of columns. Each pass makes the best exchanges of pairs of groups that do not overlap.

    Args:
        score: ``(out, in)``, what each weight is worth.
        pattern: N:M, per row or shared, or V:N:M, of which two searches are made, one for what runs pick and one for
            what rows keep, and the better taken. Of a two-way pattern the search is that of rows.
        seconds: When to stop. Takes about ``in^2 x out`` operations (2 s for 1536 x 384), and memory for ``in^2``
            numbers. The result is always the same unless time runs out.

    Returns:
        The ordering of the inputs. Those of a short last group stay where they are.

    Raises:
        ValueError: A pattern without groups, or scores that are negative or not finite.
    """
    _check("order_columns", score, seconds)
    if not isinstance(pattern, (NM, VNM)):
        raise ValueError(f"order_columns: only N:M and V:N:M groups lie along the inputs, got {pattern}.")
    before = kept_score(score, pattern)
    best = Ordering(torch.arange(score.shape[1], device=score.device), before, before)
    groups = score.shape[1] // pattern.m
    if groups < 2:
        return best
    width = groups * pattern.m
    units = score_units(score[:, :width].float(), pattern)
    searches = [(units, pattern.n)]
    if isinstance(pattern, VNM):
        searches.append((tiles(units, pattern.vector, 1).sum((1, 3)), 4))
    for values, n in searches:
        search = _Columns(values / values.amax().clamp_min(1e-30), n, pattern.m, seconds / len(searches))
        order = torch.cat([search.run(), best.order.sort().values[width:]])
        after = kept_score(score[:, order], pattern)
        if after > best.after:
            best = Ordering(order, before, after)
    return best


class _Columns:
    """Exchanges of columns between groups.

    ``win[a, b]`` is what the group of place a wins, apart from ``rest[a]``, if the column at place b comes to a.
    """

    def __init__(self, units: Tensor, n: int, m: int, seconds: float) -> None:
        self.end = time.perf_counter() + seconds
        self.columns = units.T.contiguous()  # (width, rows), in the order that was there
        self.n, self.m = n, m
        width = self.columns.shape[0]
        self.order = torch.arange(width, device=units.device)
        self.sums = self.columns.sum(1)
        self.rest = torch.empty(width, device=units.device)
        self.win = torch.empty(width, width, device=units.device)
        self.known = 0  # groups whose exchanges are known; fewer than all only if time was short
        middle = time.perf_counter() + seconds / 2
        step = max(1, _CHUNK // 4 // m)
        for start in range(0, width // m, step):
            stop = min(start + step, width // m)
            self._refresh(torch.arange(start, stop, device=units.device))
            self.known = stop
            if time.perf_counter() > middle:
                break

    def _refresh(self, groups: Tensor) -> None:
        """Recomputes what the places of these groups would win."""
        places = (groups[:, None] * self.m + torch.arange(self.m, device=groups.device)).flatten()
        values = self.columns[self.order[places]].view(len(groups), self.m, -1)
        top = values.topk(self.n + 1, 1).values
        last, next_ = top[:, self.n - 1 : self.n], top[:, self.n :]
        kept = values >= last
        threshold = torch.where(kept, next_, last).flatten(0, 1)  # n-th largest without the column itself
        self.rest[places] = torch.where(kept, next_ - values, 0.0).sum(-1).flatten()
        distance = torch.cdist(threshold, self.columns, p=1.0)
        distance += self.sums
        distance -= threshold.sum(1, keepdim=True)
        self.win[places] = (distance * 0.5)[:, self.order]

    def _kept(self, places: Tensor) -> Tensor:
        """What groups of the columns at ``places`` ``(g, m)`` keep, in float64."""
        return self.columns[self.order[places]].topk(self.n, 1).values.sum((1, 2), dtype=torch.float64)

    def _candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """For each group its most promising partners: gain, partner, and which columns, each ``(groups, few)``."""
        m, known = self.m, self.known
        width = known * m
        few = min(8, known)
        found = []
        for start in range(0, known, max(1, _CHUNK // m)):
            stop = min(start + max(1, _CHUNK // m), known)
            here = slice(start * m, stop * m)
            gain = self.win[here, :width] + self.win[:width, here].T
            gain += self.rest[here, None] + self.rest[:width]
            pairs, which = gain.view(stop - start, m, known, m).transpose(1, 2).flatten(2).max(-1)
            pairs[torch.arange(stop - start), torch.arange(start, stop)] = -torch.inf
            best, partner = pairs.topk(few, 1)
            found.append((best, partner, which.gather(1, partner)))
        gains, partners, which = (torch.cat(part) for part in zip(*found, strict=True))
        return gains, partners, which

    def _choose(self) -> Tensor:
        """The best exchanges of disjoint pairs of groups: rows of (first group, second, place, place)."""
        gains, partners, which = (part.cpu() for part in self._candidates())
        few = gains.shape[1]
        flat = gains.flatten()
        free = [True] * self.known
        chosen = []
        threshold = 1e-6 * float(self.sums.mean())
        partner, pair = partners.flatten().tolist(), which.flatten().tolist()
        for index in flat.argsort(dim=0, descending=True, stable=True)[
            : int((flat > threshold).sum())
        ].tolist():
            first, second = index // few, partner[index]
            if free[first] and free[second]:
                free[first] = free[second] = False
                i, j = divmod(pair[index], self.m)
                chosen.append((first, second, first * self.m + i, second * self.m + j))
        return torch.tensor(chosen, dtype=torch.int64).view(-1, 4).to(self.order.device)

    def run(self) -> Tensor:
        inside = torch.arange(self.m, device=self.order.device)
        while self.known > 1:
            first, second, i, j = self._choose().unbind(1)
            if not len(first):
                break
            mine, theirs = first[:, None] * self.m + inside, second[:, None] * self.m + inside
            old = self._kept(mine) + self._kept(theirs)
            self._exchange(i, j)
            worse = self._kept(mine) + self._kept(theirs) <= old  # by rounding of the gains
            self._exchange(i[worse], j[worse])
            better = ~worse
            if not better.any():
                break
            i, j = i[better], j[better]
            self.win[:, torch.cat([i, j])] = self.win[:, torch.cat([j, i])]
            self._refresh(torch.cat([first[better], second[better]]))
            if time.perf_counter() > self.end:
                break
        return self.order

    def _exchange(self, i: Tensor, j: Tensor) -> None:
        self.order[torch.cat([i, j])] = self.order[torch.cat([j, i])]


def order_rows(
    score: Tensor, pattern: Pattern, sparsity: float | None = None, *, seconds: float = 30.0, seed: int = 0
) -> Ordering:
    """An order of the output channels under which runs that share a list keep more.

    Starts from the order that is there and from balanced k-means, and from each alternates two steps that can only
    raise the kept score: every run takes its best list; rows change places, two and two, as long as both together keep
    more under the lists of the other's run.

    Args:
        score: ``(out, in)``, what each weight is worth.
        pattern: ``NM(n, m, vector=V)``, ``VNM(V, 2, m)`` or ``Group(V, c)``.
        sparsity: For ``Group``.
        seconds: When to stop. The result is the same for the same seed unless time runs out.
        seed: Of the first centres.

    Returns:
        The ordering of the outputs; the identity where nothing better was found. A short last run stays.

    Raises:
        ValueError: Scores that are negative or not finite, or a sparsity that does not fit the pattern.
    """
    _check("order_rows", score, seconds)
    rows = shared_rows(pattern)
    count = score.shape[0]
    before = kept_score(score, pattern, sparsity)
    best = Ordering(torch.arange(count, device=score.device), before, before)
    runs = count // rows
    if rows == 1 or runs < 2:
        return best
    end = time.perf_counter() + seconds
    values = score[: runs * rows].float()
    values = values / values.amax().clamp_min(1e-30)
    rest = best.order[runs * rows :]
    identity = best.order[: runs * rows] // rows
    for start in (_balanced(values, runs, rows, end, seed), identity):
        run = _reassign(values, start, runs, pattern, sparsity, end)
        order = torch.cat([run.argsort(dim=0, stable=True), rest])
        after = kept_score(score[order], pattern, sparsity)
        if after > best.after:
            best = Ordering(order, before, after)
        if time.perf_counter() > end:
            break
    return best


def _balanced(score: Tensor, runs: int, rows: int, end: float, seed: int) -> Tensor:
    """The run of each row by balanced k-means on directions: sure rows choose first, each run takes ``rows``."""
    points = torch.nn.functional.normalize(score, dim=1)
    generator = torch.Generator().manual_seed(seed)
    centres = points[torch.randperm(len(points), generator=generator)[:runs].to(points.device)]
    run = torch.arange(len(points), device=points.device) // rows
    for _ in range(20):
        likeness = points @ centres.T
        top = likeness.topk(2, 1).values
        room, chosen = [rows] * runs, [0] * len(points)
        preferred = likeness.argsort(dim=1, descending=True, stable=True).tolist()
        for row in (top[:, 0] - top[:, 1]).argsort(dim=0, descending=True, stable=True).tolist():
            chosen[row] = next(place for place in preferred[row] if room[place])
            room[chosen[row]] -= 1
        previous, run = run, torch.tensor(chosen, device=points.device)
        if torch.equal(previous, run) or time.perf_counter() > end:
            break
        centres = torch.nn.functional.normalize(_sums(points, run, runs), dim=1)
    return run


def _sums(values: Tensor, run: Tensor, runs: int) -> Tensor:
    members = run.argsort(dim=0, stable=True).view(runs, -1)
    return values[members].sum(1)


def _lists(sums: Tensor, pattern: Pattern, sparsity: float | None) -> Tensor:
    """The best lists of runs, or what they pick, as masks ``(runs, in)``."""
    if isinstance(pattern, VNM):
        return nm_mask(sums, 4, pattern.m)
    if isinstance(pattern, NM):
        return nm_mask(sums, pattern.n, pattern.m)
    cols = unit_shape(pattern)[1]
    units = tiles(sums, 1, cols).sum((1, 3))
    keep = round((1.0 - (sparsity or 0.0)) * units.numel())
    return spread(top_mask(units.flatten(), keep).view(units.shape), 1, cols, (sums.shape[0], sums.shape[1]))


def _under(values: Tensor, lists: Tensor, pattern: Pattern) -> Tensor:
    """What each row keeps under each list, ``(rows, runs)``."""
    if not isinstance(pattern, VNM):
        return values @ lists.to(values.dtype).T
    kept = [
        tiles(torch.where(picks, values, 0.0), 1, pattern.m).squeeze(1).topk(pattern.n, -1).values.sum((1, 2))
        for picks in lists
    ]
    return torch.stack(kept, 1)


def _reassign(
    values: Tensor, run: Tensor, runs: int, pattern: Pattern, sparsity: float | None, end: float
) -> Tensor:
    """Lists and members in turn until neither changes; a run keeps its size."""
    run, best, kept = run.clone(), run, -1.0
    while time.perf_counter() <= end:
        under = _under(values, _lists(_sums(values, run, runs), pattern, sparsity), pattern)
        now = float(under.gather(1, run[:, None]).sum(dtype=torch.float64))
        if now <= kept * (1.0 + 1e-7):
            break
        best, kept = run.clone(), now
        if not _exchange_members(under, run):
            break
    return best


def _exchange_members(under: Tensor, run: Tensor) -> int:
    """Exchanges of rows between runs, in place, given what each row keeps under each list, ``(rows, runs)``.

    With the lists fixed, gains of disjoint pairs add up, so that many are made at once.

    Returns:
        How many were made.
    """
    made = 0
    threshold = 1e-6 * float(under.mean())
    for _ in range(8):
        gain = under - under.gather(1, run[:, None])
        parts = []
        for start in range(0, len(run), _CHUNK):
            here = slice(start, start + _CHUNK)
            parts.append((gain[here][:, run] + gain[:, run[here]].T).max(1))
        best = torch.cat([part.values for part in parts])
        partner = torch.cat([part.indices for part in parts]).tolist()
        free = [True] * len(run)
        pairs = []
        ranked = best.argsort(dim=0, descending=True, stable=True)[: int((best > threshold).sum())]
        for row in ranked.tolist():
            if free[row] and free[partner[row]]:
                free[row] = free[partner[row]] = False
                pairs.append((row, partner[row]))
        if not pairs:
            break
        first, second = torch.tensor(pairs, device=run.device).unbind(1)
        run[torch.cat([first, second])] = run[torch.cat([second, first])]
        made += len(pairs)
    return made
