"""Activations between two layers of a calibration, within a limit of memory: what does not fit lies in files.

One budget serves all that is kept: the outputs of finished blocks first, then those of layers inside the current
block, which are computed again where there is no room.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Budget:
    """Bytes that may be taken and are given back.

    Args:
        limit: Of bytes; None: no limit.
    """

    def __init__(self, limit: int | None) -> None:
        if limit is not None and limit < 0:
            raise ValueError(f"prune_once: memory is a number of bytes or None, got {limit}.")
        self._limit = limit
        self.taken = 0

    def take(self, count: int) -> bool:
        """Whether there was room; if so, it is taken."""
        if self._limit is not None and self.taken + count > self._limit:
            return False
        self.taken += count
        return True

    def give(self, count: int) -> None:
        """Gives back what was taken."""
        self.taken -= count


class Outputs:
    """What a finished block returned, by batch: in memory as far as the budget goes, the rest in files.

    Args:
        count: Of batches.
        budget: May be shared with others.
    """

    def __init__(self, count: int, budget: Budget) -> None:
        self._budget = budget
        self._kept: list[Any] = [None] * count
        self._bytes = [0] * count
        self._files: dict[int, Path] = {}
        self._folder: Path | None = None

    def __getitem__(self, index: int) -> Any:
        """Tensors, in whatever they came in."""
        if index in self._files:
            # Written below by this object, into a folder that only this user may open.
            return torch.load(self._files[index], weights_only=False)
        return self._kept[index]

    def __setitem__(self, index: int, output: Any) -> None:
        """Replaces what was there."""
        self._budget.give(self._bytes[index])
        count = sum(tensor.nbytes for tensor in tensors_of(output))
        if self._budget.take(count):
            self._kept[index], self._bytes[index] = output, count
            if index in self._files:
                self._files.pop(index).unlink()
            return
        self._kept[index], self._bytes[index] = None, 0
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="sparsecore-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path = self._folder / f"{index}.pt"
        torch.save(output, path)
        self._files[index] = path


def tensors_of(tree: Any) -> Iterator[Tensor]:
    """The tensors in nested mappings, tuples and lists."""
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from tensors_of(value)
    elif isinstance(tree, (tuple, list)):
        for value in tree:
            yield from tensors_of(value)
