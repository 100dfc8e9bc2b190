"""Group lists: blocks of neighbouring outputs x neighbouring inputs. Linear layers and convolutions, any pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecore import reference
from sparsecore.formats.base import PackedWeight, require_tensor
from sparsecore.ops import group_lists_conv2d, group_lists_linear, group_lists_transpose
from sparsecore.ops._fault import first_fault
from sparsecore.ops.group_lists import TRANSPOSED_DEPTH, TRANSPOSED_WINDOW, transposed_values
from sparsecore.patterns import Group, Pattern, Unstructured

_SIZES = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, eq=False)
class GroupLists(PackedWeight):
    """A weight as group lists; made for many tokens and for the pixels of a convolution.

    The matrix of a convolution is ``(out_channels, kernel_h * kernel_w * in_channels)``, input channels innermost.
    ``nbytes`` is ``(records + 1) * (rows * cols * size of a value + size of an index) + panels * (5 * groups + 4)``,
    and 4 bytes per output more where there are scales.

    Attributes:
        index: ``(records + 1,)`` uint8, or int16 (the bits of uint16) where ``depth / cols`` is above 256: the block of
            the panel, ascending in each list.
        order: ``(panels, groups)`` uint8, which group of its window stands at each place, longest list first.
        starts: ``(panels, groups + 1)`` int32, where the list of each place starts.
        depth: Columns of a panel: a multiple of 16 and of ``cols``, at most 65536.
        window: Groups that are sorted among themselves, at most 256.
    """

    index: Tensor
    order: Tensor
    starts: Tensor
    depth: int
    window: int

    layout: ClassVar[str] = "group_lists"
    index_names: ClassVar[tuple[str, ...]] = ("index", "order", "starts")
    trainable: ClassVar[bool] = True
    int8_products: ClassVar[bool] = True

    @classmethod
    def wide_indices(cls, values: Tensor, attributes: Mapping[str, Any]) -> frozenset[str]:
        """The index, where a panel has more than 256 blocks."""
        depth = attributes.get("depth")
        cols = values.shape[1] if values.dim() == 3 else 0
        wide = isinstance(depth, int) and cols > 0 and depth // cols > 256
        return frozenset({"index"} if wide else ())

    @property
    def rows(self) -> int:
        """Output channels of a group."""
        return int(self.values.shape[2])

    @property
    def cols(self) -> int:
        """Inputs of a group."""
        return int(self.values.shape[1])

    @property
    def records(self) -> int:
        """Groups stored, without the padding."""
        return int(self.index.shape[0]) - 1

    def to_dense(self) -> Tensor:
        """``(out_features, in_features)`` in the dtype of the values (int8: float32, scaled)."""
        return self._scaled(self._unpack(self.values))

    def mask(self) -> Tensor:
        """``(out_features, in_features)`` bool, True where a weight is stored."""
        return self._unpack(torch.ones_like(self.values, dtype=torch.int8)) != 0

    def _unpack(self, values: Tensor) -> Tensor:
        unpack: Any = torch.ops.sparsecore.group_lists_unpack
        if values.dtype == torch.float64:
            unpack = reference.group_lists_unpack
        return unpack(  # type: ignore[no-any-return]
            values.detach(), self.index, self.order, self.starts, *self.shape, self.depth, self.window
        )

    def validate(self) -> Self:
        """Checks every array and every index; returns self.

        Raises:
            ValueError: What is wrong and where.
        """
        n, k = self.shape
        self._check_common()
        require_tensor("group_lists", "values", self.values, self.values.dtype, (None, None, None))
        rows, cols, depth, window = self.rows, self.cols, self.depth, self.window
        if rows not in _SIZES or cols not in _SIZES:
            raise ValueError(
                f"group_lists: groups must have 1, 2, 4, 8, 16 or 32 rows and columns, got {rows} x {cols}."
            )
        for name, value, low, high, step in (
            ("depth", depth, 16, 65536, max(16, cols)),
            ("window", window, 1, 256, 1),
        ):
            if type(value) is not int or not low <= value <= high or value % step:
                raise ValueError(
                    f"group_lists: {name} must be a multiple of {step} from {low} to {high}, got {value!r}."
                )
        wide = torch.int16 if depth // cols > 256 else torch.uint8
        panels, groups = -(-k // depth), -(-n // rows)
        require_tensor("group_lists", "index", self.index, wide, (self.values.shape[0],))
        require_tensor("group_lists", "order", self.order, torch.uint8, (panels, groups))
        require_tensor("group_lists", "starts", self.starts, torch.int32, (panels, groups + 1))
        if self.records < 0:
            raise ValueError("group_lists: the padding record is missing. Pack the weight again.")
        status, where = first_fault(
            "group_lists", self.index, self.order, self.starts, rows, cols, n, k, depth, window
        )
        self._raise_status(status, where, "record or place")
        if torch.count_nonzero(self.values.detach()[-1]):
            raise ValueError(
                "group_lists: the last record is padding and must be zero. Pack the weight again."
            )
        return self

    def transpose(self) -> tuple[GroupLists, Tensor]:
        """The transposed weight, and ``source``: its record i is record ``source[i]`` of this one, transposed."""
        n, k = self.shape
        if self.scale is not None:
            raise ValueError(
                "group_lists: int8 weights cannot be transposed; their scales belong to the rows."
            )
        index, order, starts, source = self.transposed_structure()
        pattern: Pattern = Unstructured() if self.rows == self.cols == 1 else Group(self.cols, self.rows)
        values = transposed_values(self.values, source)
        return (
            GroupLists(
                (k, n), pattern, values, None, index, order, starts, TRANSPOSED_DEPTH, TRANSPOSED_WINDOW
            ),
            source,
        )

    def transposed_structure(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Index, order and starts of the transposed weight, and ``source``."""
        return group_lists_transpose(
            self.index,
            self.order,
            self.starts,
            rows=self.rows,
            cols=self.cols,
            out_features=self.shape[0],
            in_features=self.shape[1],
            depth=self.depth,
            window=self.window,
        )

    def trained_linear(
        self, input: Tensor, bias: Tensor | None, transposed: tuple[Tensor, ...] | None
    ) -> Tensor:
        """``input @ weight.T + bias`` with gradients for all three."""
        return group_lists_linear(
            input,
            self.values,
            self.index,
            self.order,
            self.starts,
            bias=bias,
            out_features=self.shape[0],
            depth=self.depth,
            window=self.window,
            transposed=transposed,
        )

    def linear(
        self, input: Tensor, bias: Tensor | None = None, *, activation: str = "none", compute: str = "float32"
    ) -> Tensor:
        """``activation(input @ weight.T + bias)``."""
        return group_lists_linear(
            input,
            self.values,
            self.index,
            self.order,
            self.starts,
            self.scale,
            bias,
            out_features=self.shape[0],
            depth=self.depth,
            window=self.window,
            activation=activation,
            compute=compute,
        )

    def conv2d(
        self,
        input: Tensor,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        *,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0, 0, 0),
        dilation: Sequence[int] = (1, 1),
        activation: str = "none",
        compute: str = "float32",
        input_scale: float | None = None,
    ) -> Tensor:
        """``activation(conv2d(input, weight) + bias + residual)``; see :func:`sparsecore.ops.group_lists_conv2d`."""
        return group_lists_conv2d(
            input,
            self.values,
            self.index,
            self.order,
            self.starts,
            self.scale,
            bias,
            residual,
            out_channels=self.shape[0],
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            depth=self.depth,
            window=self.window,
            activation=activation,
            compute=compute,
            input_scale=input_scale,
        )
