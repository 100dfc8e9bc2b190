"""Per-row N:M for one to eight tokens: values and the fewest bits that say where they stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecore import reference
from sparsecore.formats.base import PackedWeight, require_tensor
from sparsecore.ops import nm_decode_linear
from sparsecore.ops._fault import first_fault
from sparsecore.patterns import NM


@dataclass(frozen=True, eq=False)
class NMDecode(PackedWeight):
    """A per-row N:M weight in the decode layout; a slot that a short group leaves empty holds zero.

    Attributes:
        codes: ``(tiles, words, 16)``, int32 bits: places inside the groups.
    """

    codes: Tensor

    layout: ClassVar[str] = "nm_decode"
    index_names: ClassVar[tuple[str, ...]] = ("codes",)

    @property
    def _nm(self) -> tuple[int, int]:
        if not isinstance(self.pattern, NM) or self.pattern.vector != 1:
            raise ValueError(f"nm_decode: the pattern must be a per-row NM(n, m), got {self.pattern!r}.")
        return self.pattern.n, self.pattern.m

    @property
    def proves_pattern(self) -> bool:
        """Its arrays can hold nothing else along the inputs."""
        return isinstance(self.pattern, NM) and not self.pattern.two_way

    def to_dense(self) -> Tensor:
        """``(out_features, in_features)`` in the dtype of the values (int8: float32, scaled)."""
        return self._scaled(self._unpack(self.values))

    def mask(self) -> Tensor:
        """``(out_features, in_features)`` bool, True at non-zero weights (an empty slot is a stored zero)."""
        return self._unpack(self.values) != 0

    def _unpack(self, values: Tensor) -> Tensor:
        if values.dtype == torch.float64 or values.is_cuda:  # the operator is the CPU's
            return reference.nm_decode_unpack(values, self.codes, *self.shape, *self._nm)
        return torch.ops.sparsecore.nm_decode_unpack(  # type: ignore[no-any-return]
            values.detach(), self.codes, *self.shape, *self._nm
        )

    def validate(self) -> Self:
        """Checks every array and every code; returns self.

        Raises:
            ValueError: What is wrong and where.
        """
        rows, k = self.shape
        n, m = self._nm
        self._check_common()
        bits = max(1, (m - 1).bit_length())
        slots, tiles = -(-k // m) * n, -(-rows // 16)
        words = -(-slots // (32 // bits))
        require_tensor("nm_decode", "values", self.values, self.values.dtype, (tiles, slots, 16))
        require_tensor("nm_decode", "codes", self.codes, torch.int32, (tiles, words, 16))
        values = self.values.float() if self.values.dtype == torch.float64 else self.values.detach()
        status, where = first_fault("nm_decode", values, self.codes, rows, k, n, m)
        self._raise_status(status, where, "slot")
        return self

    def linear(
        self, input: Tensor, bias: Tensor | None = None, *, activation: str = "none", compute: str = "float32"
    ) -> Tensor:
        """``activation(input @ weight.T + bias)``."""
        n, m = self._nm
        return nm_decode_linear(
            input,
            self.values,
            self.codes,
            self.scale,
            bias,
            out_features=self.shape[0],
            n=n,
            m=m,
            activation=activation,
            compute=compute,
        )
