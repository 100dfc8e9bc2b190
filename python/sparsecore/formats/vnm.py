"""V:N:M for sparse tensor cores: the four inputs that each run of outputs picks of every M, and 2:4 of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecore import reference
from sparsecore.formats.base import PackedWeight, require_tensor
from sparsecore.ops.semi_structured import semi_structured_decompress, serves
from sparsecore.ops.vnm import vnm_linear, vnm_validate
from sparsecore.patterns import VNM as VNMPattern
from sparsecore.reference.vnm import vnm_scatter

_STORED = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True, eq=False)
class VNM(PackedWeight):
    """A V:N:M weight as ``mma.sp`` and ``wgmma.sp`` take it; its sizes follow from shape and pattern alone.

    Products are of bfloat16 and float16; float32 values are narrowed for one, as those of 2:4 are. Two weights are
    stored of every four picked inputs: a mask that keeps fewer is filled up with zeros, which training may move.

    Attributes:
        metadata: ``(n blocks, k blocks, 128)`` int32 bits of the 2:4 matrix of the picked inputs.
        columns: ``(runs, 4 * groups)`` int16, the bits of uint16: the inputs picked, 65535 where a group has no more.
    """

    metadata: Tensor
    columns: Tensor

    layout: ClassVar[str] = "vnm"
    index_names: ClassVar[tuple[str, ...]] = ("metadata", "columns")
    trainable: ClassVar[bool] = True

    @classmethod
    def wide_indices(cls, values: Tensor, attributes: Mapping[str, Any]) -> frozenset[str]:
        """The columns."""
        return frozenset({"columns"})

    @property
    def vector(self) -> int:
        """Output channels that pick together."""
        assert isinstance(self.pattern, VNMPattern)
        return self.pattern.vector

    @property
    def proves_pattern(self) -> bool:
        """Its arrays can hold nothing else."""
        return True

    def to_dense(self) -> Tensor:
        """``(out_features, in_features)`` in the dtype of the values."""
        return self._unpack(self.values)

    def mask(self) -> Tensor:
        """``(out_features, in_features)`` bool, True where a weight is stored, be its value zero or not."""
        return self._unpack(torch.ones_like(self.values, dtype=torch.bfloat16)) != 0

    def _unpack(self, values: Tensor) -> Tensor:
        (n, k), picked = self.shape, self.columns.shape[1]
        if serves(values) and values.dtype != torch.float32:
            dense = semi_structured_decompress(
                values.detach(), self.metadata, out_features=n, in_features=picked
            )
        else:
            dense = reference.semi_structured_unpack(values, self.metadata, n, picked)
        return vnm_scatter(dense, self.columns, self.vector, k)

    def validate(self) -> Self:
        """Checks every array, every place and every column; returns self. Waits for the device.

        Raises:
            ValueError: What is wrong and where.
        """
        n, k = self.shape
        self._check_common()
        if not isinstance(self.pattern, VNMPattern):
            raise ValueError(f"vnm: the pattern must be VNM(vector, 2, m), got {self.pattern!r}.")
        if self.values.dtype not in _STORED:
            raise ValueError(f"vnm: values must be bfloat16, float16 or float32, got {self.values.dtype}.")
        picked = 4 * -(-k // self.pattern.m)
        blocks = (-(-n // 64), -(-picked // 64))
        require_tensor(self.layout, "values", self.values, self.values.dtype, (*blocks, 2048))
        require_tensor(self.layout, "metadata", self.metadata, torch.int32, (*blocks, 128))
        require_tensor(self.layout, "columns", self.columns, torch.int16, (-(-n // self.vector), picked))
        if not self.values.is_meta:
            vnm_validate(
                self.values.detach(),
                self.metadata,
                self.columns,
                out_features=n,
                in_features=k,
                vector=self.vector,
                m=self.pattern.m,
            )
        return self

    def linear(
        self, input: Tensor, bias: Tensor | None = None, *, activation: str = "none", compute: str = "float32"
    ) -> Tensor:
        """``activation(input @ weight.T + bias)``.

        Raises:
            ValueError: float32 values without a dtype for the product.
        """
        input, values, wanted = self._halves(input, compute)
        return vnm_linear(
            input,
            values,
            self.metadata,
            self.columns,
            bias=bias,
            out_features=self.shape[0],
            vector=self.vector,
            activation=activation,
            out_dtype=wanted,
        )
