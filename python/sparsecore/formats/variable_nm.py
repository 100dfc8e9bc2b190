"""Blocks of 16 x 16 with an N each: values, two four-bit indices per byte, and a byte per block that holds its N."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecore import reference
from sparsecore.formats.base import PackedWeight, require_tensor
from sparsecore.formats.variable_select import BLOCK, CODES
from sparsecore.ops import variable_nm_linear
from sparsecore.ops._fault import first_fault


@dataclass(frozen=True, eq=False)
class VariableNM(PackedWeight):
    """A weight whose 16 x 16 blocks keep 0, 2, 4, 8 or 16 of every 16 inputs.

    Attributes:
        indices: ``(pairs, 16)`` uint8, of blocks that are neither empty nor dense.
        codes: ``(out_features / 16, in_features / 16)`` uint8: N of each block.
    """

    indices: Tensor
    codes: Tensor

    layout: ClassVar[str] = "variable_nm"
    index_names: ClassVar[tuple[str, ...]] = ("indices", "codes")
    trainable: ClassVar[bool] = True

    def to_dense(self) -> Tensor:
        """``(out_features, in_features)`` in the dtype of the values (int8: float32, scaled)."""
        return self._scaled(self._unpack(self.values))

    def mask(self) -> Tensor:
        """``(out_features, in_features)`` bool, True where a weight is stored, be its value zero or not."""
        return self._unpack(torch.ones_like(self.values)) != 0

    def _unpack(self, values: Tensor) -> Tensor:
        if values.dtype == torch.float64 or values.is_cuda:  # the operator is the CPU's
            return reference.variable_nm_unpack(values, self.indices, self.codes, *self.shape)
        return torch.ops.sparsecore.variable_nm_unpack(  # type: ignore[no-any-return]
            values.detach(), self.indices, self.codes, *self.shape
        )

    def validate(self) -> Self:
        """Checks every array, every code and every index; returns self.

        Raises:
            ValueError: What is wrong and where.
        """
        rows, k = self.shape
        self._check_common()
        if rows % BLOCK or k % BLOCK:
            raise ValueError(f"variable_nm: 16 must divide the shape, got {self.shape}.")
        require_tensor("variable_nm", "codes", self.codes, torch.uint8, (rows // BLOCK, k // BLOCK))
        if not bool(torch.isin(self.codes, self.codes.new_tensor(CODES)).all()):
            raise ValueError(
                f"variable_nm: codes must be one of {CODES}. The packed weight is damaged; pack it again."
            )
        slots = int(self.codes.sum(dtype=torch.int64))
        pairs = int(self.codes.masked_fill(self.codes == BLOCK, 0).sum(dtype=torch.int64)) // 2
        require_tensor("variable_nm", "values", self.values, self.values.dtype, (slots, BLOCK))
        require_tensor("variable_nm", "indices", self.indices, torch.uint8, (pairs, BLOCK))
        values = self.values.float() if self.values.dtype == torch.float64 else self.values.detach()
        status, where = first_fault("variable_nm", values, self.indices, self.codes, rows, k)
        self._raise_status(status, where, "slot")
        return self

    def linear(
        self, input: Tensor, bias: Tensor | None = None, *, activation: str = "none", compute: str = "float32"
    ) -> Tensor:
        """``activation(input @ weight.T + bias)``."""
        return variable_nm_linear(
            input,
            self.values,
            self.indices,
            self.codes,
            self.scale,
            bias,
            out_features=self.shape[0],
            activation=activation,
            compute=compute,
        )
