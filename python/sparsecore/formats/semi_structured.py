"""2:4 for the sparse tensor cores of a GPU: half of the weights and where they stand, in the order that lanes load.

(2N-2):2N is 2:4 of more inputs: windows of four that overlap by two, see :mod:`sparsecore.ops.window_lift`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecore import reference
from sparsecore.formats.base import PackedWeight, require_tensor
from sparsecore.ops import semi_structured_decompress, semi_structured_linear, semi_structured_validate
from sparsecore.ops.semi_structured import serves
from sparsecore.ops.window_lift import LARGEST_GROUP, fold, lifted_inputs
from sparsecore.patterns import NM, Pattern
from sparsecore.reference.semi_structured import semi_structured_bytes

_STORED = (torch.bfloat16, torch.float16, torch.float32, torch.int8)


def all_but_two(pattern: Pattern) -> bool:
    """Whether sparse tensor cores multiply a pattern: 2:4, 4:6, 6:8 and so on, each output on its own."""
    if not isinstance(pattern, NM) or pattern.vector > 1:
        return False
    return pattern.n == pattern.m - 2 and pattern.m % 2 == 0 and 4 <= pattern.m <= LARGEST_GROUP


@dataclass(frozen=True, eq=False)
class SemiStructured(PackedWeight):
    """A 2:4 or (2N-2):2N weight as ``mma.sp`` and ``wgmma.sp`` take it; its sizes follow from shape and pattern alone.

    Products are of bfloat16, float16 and int8. float32 values stand in the layout of 16 bits and are narrowed for a
    product: to the dtype of autocast, or to float16 where ``compute`` is ``"float16"``. Exactly two of four inputs are
    stored everywhere, of ``2N`` all but two: a mask that keeps fewer is filled up with zeros, which training may move.
    So each window of a lifted weight is full, and an input has one slot or none.

    Attributes:
        metadata: ``(n blocks, k blocks, 128)`` int32 bits; ``(..., 256)`` beside int8 values.
    """

    metadata: Tensor

    layout: ClassVar[str] = "semi_structured"
    index_names: ClassVar[tuple[str, ...]] = ("metadata",)
    trainable: ClassVar[bool] = True
    int8_products: ClassVar[bool] = True

    @property
    def stored(self) -> int:
        """Weights stored inside the matrix."""
        n, _k = self.shape
        return n * self._stored_of_row

    @property
    def group(self) -> int:
        """Neighbouring inputs of which all but two are stored: 4 for 2:4."""
        assert isinstance(self.pattern, NM)
        return self.pattern.m

    @property
    def _stored_of_row(self) -> int:
        k, group = self.shape[1], self.group
        return k // group * (group - 2) + min(k % group, group - 2)

    @property
    def _inputs(self) -> int:
        """Columns of the 2:4 matrix that is stored."""
        return lifted_inputs(self.shape[1], self.group) if self.group > 4 else self.shape[1]

    @property
    def proves_pattern(self) -> bool:
        """Its arrays can hold nothing else along the inputs."""
        return isinstance(self.pattern, NM) and not self.pattern.two_way

    def to_dense(self) -> Tensor:
        """``(out_features, in_features)`` in the dtype of the values (int8: float32, scaled)."""
        return self._scaled(self._unpack(self.values))

    def mask(self) -> Tensor:
        """``(out_features, in_features)`` bool, True where a weight is stored, be its value zero or not."""
        ones = torch.ones(
            self.values.shape,
            dtype=torch.int8 if self.values.dtype == torch.int8 else torch.bfloat16,
            device=self.values.device,
        )
        return self._unpack(ones) != 0

    def _unpack(self, values: Tensor) -> Tensor:
        n, k = self.shape
        if serves(values) and values.dtype != torch.float32:
            return semi_structured_decompress(
                values.detach(), self.metadata, out_features=n, in_features=k, group=self.group
            )
        stored = reference.semi_structured_unpack(values, self.metadata, n, self._inputs)
        return fold(stored, k, self.group) if self.group > 4 else stored

    def validate(self) -> Self:
        """Checks both arrays and every place; returns self. Waits for the device.

        Raises:
            ValueError: What is wrong and where.
        """
        n, k = self.shape
        self._check_common()
        if not all_but_two(self.pattern):
            raise ValueError(
                "semi_structured: the pattern must be NM(2, 4), or NM(m - 2, m) of an even m up to "
                f"{LARGEST_GROUP} with vector=1, got {self.pattern!r}."
            )
        if self.values.dtype not in _STORED:
            raise ValueError(
                f"semi_structured: values must be bfloat16, float16, float32 or int8, got {self.values.dtype}."
            )
        size = semi_structured_bytes(self.values.dtype)
        blocks = (-(-n // 64), -(-self._inputs // (128 // size)))
        require_tensor(self.layout, "values", self.values, self.values.dtype, (*blocks, 4096 // size))
        require_tensor(self.layout, "metadata", self.metadata, torch.int32, (*blocks, 256 // size))
        if not self.values.is_meta:
            semi_structured_validate(
                self.values.detach(), self.metadata, out_features=n, in_features=k, group=self.group
            )
            self._require_one_slot_each()
        return self

    def _require_one_slot_each(self) -> None:
        """Refuses an input that two windows store, were it with zeros: training would move both slots.

        A row has no more slots for its inputs than weights to store, so one stored twice leaves another out.
        """
        if self.group == 4:
            return
        inputs = self.mask().sum(1)
        wrong = inputs != self._stored_of_row
        if wrong.any():
            channel = int(wrong.nonzero()[0])
            raise ValueError(
                f"semi_structured: channel {channel} must store {self._stored_of_row} different inputs, got "
                f"{int(inputs[channel])}. The packing is damaged or was made of a mask that keeps fewer; pack the "
                "weight again with sparsecore.pack."
            )

    def trained_linear(
        self, input: Tensor, bias: Tensor | None, transposed: tuple[Tensor, ...] | None
    ) -> Tensor:
        """``input @ weight.T + bias`` with gradients for all three."""
        return self.linear(input, bias)

    def linear(
        self, input: Tensor, bias: Tensor | None = None, *, activation: str = "none", compute: str = "float32"
    ) -> Tensor:
        """``activation(input @ weight.T + bias)``.

        Raises:
            ValueError: float32 or int8 values without a dtype for the product.
        """
        if self.values.dtype == torch.int8:
            return self._int8_linear(input, bias, activation, compute)
        input, values, wanted = self._halves(input, compute)
        return semi_structured_linear(
            input,
            values,
            self.metadata,
            None,
            bias,
            out_features=self.shape[0],
            group=self.group,
            activation=activation,
            out_dtype=wanted,
        )

    def _int8_linear(self, input: Tensor, bias: Tensor | None, activation: str, compute: str) -> Tensor:
        """Each token by its own largest magnitude, rounded to nearest even."""
        if compute != "int8":
            raise ValueError(
                "semi_structured: int8 values are multiplied with int8 inputs on a GPU. Use "
                "compute_dtype=torch.int8, or store the weight in bfloat16."
            )
        device = input.device.type
        out_dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else input.dtype
        wide = input.float()
        token_scale = wide.abs().amax(-1, keepdim=True) / 127.0
        narrow = (wide / token_scale.clamp_min(torch.finfo(torch.float32).tiny)).round().to(torch.int8)
        return semi_structured_linear(
            narrow,
            self.values,
            self.metadata,
            self.scale,
            bias,
            out_features=self.shape[0],
            group=self.group,
            activation=activation,
            token_scale=token_scale.flatten(),
            out_dtype=out_dtype,
        )
