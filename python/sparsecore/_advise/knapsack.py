"""One option per layer: least cost within a time, or least time within a cost. A multiple-choice knapsack.

Time is put on a grid of B steps above the fastest assignment, each option's time above its layer's fastest rounded up:

    best[i][b] = min over options o of layer i:  cost[i][o] + best[i - 1][b - steps[i][o]]

So what is found keeps to the real budget, the fastest assignment is always within reach, and only assignments that
use the last (layers / B) of the range between the fastest and the cheapest can be missed. One table holds the answers
for all budgets, and by that the whole curve of time against cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Rows = Sequence[Sequence[float]]  # a row per layer, an entry per option


class Knapsack:
    """The table of the least cost for every time.

    Args:
        times: Seconds of every option of every layer.
        costs: What the same options cost, not negative.

    Attributes:
        fastest: Seconds of the fastest assignment.
        slowest: Seconds of the one that costs least; nothing is won beyond.
    """

    def __init__(self, times: Rows, costs: Rows) -> None:
        self._options = [_useful(time, cost) for time, cost in zip(times, costs, strict=True)]
        self._times, self._costs = times, costs
        self.fastest = sum(times[i][options[0]] for i, options in enumerate(self._options))
        self.slowest = sum(times[i][options[-1]] for i, options in enumerate(self._options))
        bins = min(max(4000, 1000 * len(times)), 50_000)
        self._step = max(self.slowest - self.fastest, 0.0) / bins
        # Each layer rounds up by less than a step, so that the slowest assignment fits in.
        width = bins + len(times) + 1 if self._step > 0.0 else 1
        best = torch.zeros(width, dtype=torch.float64)
        self._picks: list[Tensor] = []
        for layer, options in enumerate(self._options):
            # The fastest option needs no step, so it is where every entry starts.
            least = best + costs[layer][options[0]]
            pick = torch.zeros(width, dtype=torch.int16)
            for row, option in enumerate(options[1:], 1):
                shift = self._steps(layer, option)
                if shift < width:
                    other = best[: width - shift] + costs[layer][option]
                    pick[shift:].masked_fill_(other < least[shift:], row)
                    torch.minimum(least[shift:], other, out=least[shift:])
            best = least
            self._picks.append(pick)
        self._best = best

    def _steps(self, layer: int, option: int) -> int:
        extra = self._times[layer][option] - self._times[layer][self._options[layer][0]]
        if extra <= 0.0:
            return 0
        # The tiny allowance keeps a budget that is exactly the sum of some options within reach.
        return math.ceil(extra / self._step - 1e-6) if self._step > 0.0 else 1

    def within_time(self, budget: float) -> list[int] | None:
        """The options of least cost within ``budget`` seconds, the fastest of those; None if there are none."""
        if budget < self.fastest * (1 - 1e-9):
            return None
        end = len(self._best) - 1
        if budget < self.slowest * (1 - 1e-9) and self._step > 0.0:
            end = min(end, int((budget - self.fastest) / self._step + 1e-6))
        least = self._best[end] * (1 + 1e-12) + 1e-18
        return self._trace(int(torch.nonzero(self._best <= least)[0]))

    def within_cost(self, budget: float) -> list[int] | None:
        """The options of least time whose costs add up to at most ``budget``; None if there are none."""
        fits = torch.nonzero(self._best <= budget * (1 + 1e-9) + 1e-15)
        return self._trace(int(fits[0])) if len(fits) else None

    def _trace(self, end: int) -> list[int]:
        chosen: list[int] = []
        for layer in range(len(self._options) - 1, -1, -1):
            option = self._options[layer][int(self._picks[layer][end])]
            chosen.append(option)
            end -= self._steps(layer, option)
        return chosen[::-1]


def _useful(times: Sequence[float], costs: Sequence[float]) -> list[int]:
    """Options that no other beats in both, fastest first: what costs less takes longer."""
    found: list[int] = []
    for option in sorted(range(len(times)), key=lambda i: (times[i], costs[i], i)):
        if not found or costs[option] < costs[found[-1]]:
            found.append(option)
    return found
