"""Unstructured weights for few tokens: one bit per weight, and the kept values in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecore import reference
from sparsecore._library import has_kernel
from sparsecore.formats.base import PackedWeight, require_tensor
from sparsecore.ops import bitmap_decode_linear
from sparsecore.ops._fault import first_fault


@dataclass(frozen=True, eq=False)
class BitmapDecode(PackedWeight):
    """A weight behind a bitmap.

    Attributes:
        bitmap: ``(out_features, ceil(in_features / 64))``, int64 bits, bit j of word w is column 64 w + j.
        row_ptr: ``(out_features + 1,)`` int32, the first value of each row.
    """

    bitmap: Tensor
    row_ptr: Tensor

    layout: ClassVar[str] = "bitmap_decode"
    index_names: ClassVar[tuple[str, ...]] = ("bitmap", "row_ptr")
    trainable: ClassVar[bool] = True

    @property
    def stored(self) -> int:
        """Weights stored."""
        return self.values.numel()

    def to_dense(self) -> Tensor:
        """``(out_features, in_features)`` in the dtype of the values (int8: float32, scaled)."""
        return self._scaled(self._unpack(self.values))

    def mask(self) -> Tensor:
        """``(out_features, in_features)`` bool, True where a weight is stored."""
        return self._unpack(torch.ones_like(self.values, dtype=torch.int8)) != 0

    def _unpack(self, values: Tensor) -> Tensor:
        if values.dtype == torch.float64 or (
            values.is_cuda and not has_kernel("bitmap_decode_unpack", "cuda")
        ):
            return reference.bitmap_decode_unpack(values, self.bitmap, self.row_ptr, *self.shape)
        return torch.ops.sparsecore.bitmap_decode_unpack(  # type: ignore[no-any-return]
            values.detach(), self.bitmap, self.row_ptr, *self.shape
        )

    def validate(self) -> Self:
        """Checks every array; returns self.

        Raises:
            ValueError: What is wrong.
        """
        n, k = self.shape
        self._check_common()
        require_tensor("bitmap_decode", "values", self.values, self.values.dtype, (None,))
        require_tensor("bitmap_decode", "bitmap", self.bitmap, torch.int64, (n, -(-k // 64)))
        require_tensor("bitmap_decode", "row_ptr", self.row_ptr, torch.int32, (n + 1,))
        status, where = first_fault("bitmap_decode", self.values.detach(), self.bitmap, self.row_ptr, n, k)
        self._raise_status(status, where, "row")
        return self

    def linear(
        self, input: Tensor, bias: Tensor | None = None, *, activation: str = "none", compute: str = "float32"
    ) -> Tensor:
        """``activation(input @ weight.T + bias)``."""
        return bitmap_decode_linear(
            input,
            self.values,
            self.bitmap,
            self.row_ptr,
            self.scale,
            bias,
            out_features=self.shape[0],
            activation=activation,
            compute=compute,
        )
