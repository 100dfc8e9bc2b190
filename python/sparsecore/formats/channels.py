"""Whole channels kept or dropped: what is left is a smaller dense matrix, and the dense product is its kernel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecore.formats.base import PackedWeight, require_tensor
from sparsecore.reference import activate


@dataclass(frozen=True, eq=False)
class Channels(PackedWeight):
    """The kept rows and columns of a weight, ``values`` being ``(kept rows, kept columns)``.

    Attributes:
        rows: ``(kept rows,)`` int64, ascending: output channels with weights. The others return the bias.
        columns: ``(kept columns,)`` int64, ascending: inputs that are read.
    """

    rows: Tensor
    columns: Tensor

    layout: ClassVar[str] = "channels"
    index_names: ClassVar[tuple[str, ...]] = ("rows", "columns")
    trainable: ClassVar[bool] = True

    @classmethod
    def runs_on(cls, device: str) -> bool:
        """Everywhere: the kernel is torch's dense product."""
        return True

    def _unpack(self, block: Tensor) -> Tensor:
        whole = block.new_zeros((len(self.rows), self.shape[1])).index_copy(1, self.columns, block)
        return block.new_zeros(self.shape).index_copy(0, self.rows, whole)

    def _kept(self) -> Tensor:
        """The kept block in a floating dtype."""
        if self.scale is None:
            return self.values
        return self.values.float() * self.scale.index_select(0, self.rows).unsqueeze(1)

    def to_dense(self) -> Tensor:
        """``(out_features, in_features)`` in the dtype of the values (int8: float32, scaled)."""
        return self._unpack(self._kept())

    def mask(self) -> Tensor:
        """``(out_features, in_features)`` bool, True where both the row and the column are kept."""
        return self._unpack(torch.ones_like(self.values, dtype=torch.float32)).bool()

    @property
    def stored(self) -> int:
        """Weights stored."""
        return self.values.numel()

    def validate(self) -> Self:
        """Checks every array and every index; returns self.

        Raises:
            ValueError: What is wrong and where.
        """
        self._check_common()
        for name, size in (("rows", self.shape[0]), ("columns", self.shape[1])):
            index = getattr(self, name)
            require_tensor("channels", name, index, torch.int64, (None,))
            if len(index) and (int(index.min()) < 0 or int(index.max()) >= size):
                raise ValueError(
                    f"channels: {name} points outside of 0 to {size - 1}. The packed weight is damaged; pack it again."
                )
            if len(index) > 1 and not bool((index[1:] > index[:-1]).all()):
                raise ValueError(
                    f"channels: {name} must be strictly ascending. The packed weight is damaged; pack it again."
                )
        require_tensor(
            "channels", "values", self.values, self.values.dtype, (len(self.rows), len(self.columns))
        )
        return self

    def linear(
        self, input: Tensor, bias: Tensor | None = None, *, activation: str = "none", compute: str = "float32"
    ) -> Tensor:
        """``activation(input @ weight.T + bias)``, differentiable; ``compute`` changes nothing here."""
        if input.shape[-1] != self.shape[1]:
            raise ValueError(f"channels: input must be (..., {self.shape[1]}), got {tuple(input.shape)}.")
        x = input if len(self.columns) == self.shape[1] else input.index_select(-1, self.columns)
        bias = None if bias is None else bias.to(input.dtype)
        whole = len(self.rows) == self.shape[0]
        used = bias if bias is None or whole else bias.index_select(0, self.rows)
        y = activate(torch.nn.functional.linear(x, self._kept().to(input.dtype), used), activation)
        if whole:
            return y
        rest = y.new_zeros(self.shape[0]) if bias is None else bias.to(y.dtype)
        idle = activate(rest, activation).expand(*y.shape[:-1], self.shape[0])
        return idle.index_copy(-1, self.rows, y)
