"""``SparseConv2d``: a convolution whose weight is packed, trained and saved packed.

A kernel of any size is the matrix ``(out_channels, kernel_h * kernel_w * in_channels)``, input channels innermost, so
that the groups of a pattern lie along input channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import Self

from sparsecore.formats.base import PackedWeight
from sparsecore.formats.group_lists import GroupLists
from sparsecore.formats.matrices import from_matrix, to_matrix
from sparsecore.formats.pack import pack
from sparsecore.nn._packed import COMPUTE_NAMES, PackedLayer, bias_parameter, read_extra_state
from sparsecore.ops import group_lists_conv2d
from sparsecore.ops.group_lists_conv import checked_scale
from sparsecore.patterns import Pattern
from sparsecore.reference import activate

Size = int | tuple[int, int]


def why_dense(conv: nn.Module) -> str | None:
    """Why a layer cannot become a :class:`SparseConv2d`; None where it can."""
    if not isinstance(conv, nn.Conv2d):
        return f"is a {type(conv).__name__}, not an nn.Conv2d"
    if conv.groups == conv.in_channels and conv.groups > 1:
        return (
            "is depthwise: each output sees one channel, so that there is nothing to share and little to save"
        )
    if conv.groups != 1:
        return f"has {conv.groups} groups, and there are kernels for groups=1 only"
    if conv.padding_mode != "zeros":
        return f"pads with {conv.padding_mode!r}, and the kernels pad with zeros"
    return None


def _pair(owner: str, name: str, value: Size, low: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(i, int) and i >= low for i in pair):
        raise ValueError(f"{owner}: {name} must be one or two integers of at least {low}, got {value!r}.")
    return pair[0], pair[1]


class SparseConv2d(PackedLayer):
    """``activation(conv2d(input, weight) + bias + residual)`` with a packed sparse weight.

    Contiguous images are computed plane by plane and channels_last ones pixel by pixel; the output lies like the input.
    Parameters and buffers are those of :class:`~sparsecore.nn.SparseLinear`. Gradients reach the kept weights only.

    Args:
        in_channels: Of the input.
        out_channels: Of the output.
        kernel_size: One or two sizes, vertical first.
        stride: The same.
        padding: The same, or ``"same"`` (stride 1) or ``"valid"``; with zeros.
        dilation: As ``kernel_size``.
        groups: Must be 1: a depthwise or grouped convolution stays dense.
        bias: Whether there is one.
        padding_mode: Must be ``"zeros"``.
        pattern: ``Group(4, 1)``, ``Group(1, 16)``, ``Unstructured()``, ``NM(2, 4)``, or a short name; of the matrix
            ``(out_channels, kernel_h * kernel_w * in_channels)``.
        sparsity: Fraction of zeros, for patterns that leave it open.
        activation: ``"none"``, ``"relu"``, ``"relu6"``, ``"hard_swish"``, ``"silu"``, ``"hard_sigmoid"``,
            ``"sigmoid"``, ``"gelu"`` or ``"gelu_tanh"``, fused into the kernel.
        compute_dtype: None; ``torch.float16``, which permits products at the float16 rate; ``torch.int8`` for int8
            values, with each image quantised on its own, or all with the attribute ``input_scale``. Inference only.
        device: Where the parameters live.
        dtype: Of the parameters.

    Attributes:
        input_scale: Where ``compute_dtype`` is int8: images are rounded to multiples of it and cut off past 127 of
            them. None: each image by its own largest magnitude.
    """

    input_scale: float | None = None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros"] = "zeros",
        *,
        pattern: Pattern | str,
        sparsity: float | None = None,
        activation: str = "none",
        compute_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dense = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        if reason := why_dense(dense):
            raise ValueError(f"SparseConv2d: the layer {reason}. Keep an nn.Conv2d.")
        self._set_geometry(dense)
        packed = pack(to_matrix(dense.weight), pattern, sparsity=sparsity, layout="group_lists")
        self._set_up(packed, dense.bias, activation, compute_dtype)

    @classmethod
    def from_packed(
        cls,
        weight: PackedWeight,
        bias: Tensor | None = None,
        *,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        activation: str = "none",
        compute_dtype: torch.dtype | None = None,
        input_scale: float | None = None,
        trainable: bool = True,
    ) -> Self:
        """A layer around packed group lists (validated here) and a bias ``(out_channels,)``.

        Args:
            weight: Of the matrix ``(out_channels, kernel_h * kernel_w * in_channels)``.
            bias: ``(out_channels,)``.
            kernel_size: As in the class.
            stride: As in the class.
            padding: As in the class.
            dilation: As in the class.
            activation: As in the class.
            compute_dtype: As in the class.
            input_scale: As in the class.
            trainable: Whether its parameters get gradients.
        """
        high, wide = _pair("SparseConv2d.from_packed", "kernel_size", kernel_size, 1)
        if weight.shape[1] % (high * wide):
            raise ValueError(
                f"SparseConv2d.from_packed: {weight.shape[1]} columns are no multiple of the {high} x {wide} kernel."
            )
        geometry = nn.Conv2d(
            max(weight.shape[1] // (high * wide), 1),
            max(weight.shape[0], 1),
            kernel_size,
            stride,
            padding,
            dilation,
            device="meta",
        )
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._set_geometry(geometry)
        layer.in_channels = weight.shape[1] // (high * wide)
        weight.validate()
        bias = bias_parameter("SparseConv2d.from_packed", bias, weight, trainable)
        layer._set_up(weight, bias, activation, compute_dtype, trainable)
        layer.input_scale = checked_scale("SparseConv2d", input_scale, COMPUTE_NAMES[compute_dtype]) or None
        return layer

    @classmethod
    def from_dense(
        cls,
        conv: nn.Conv2d,
        pattern: Pattern | str,
        mask: Tensor | None = None,
        *,
        sparsity: float | None = None,
        activation: str = "none",
        compute_dtype: torch.dtype | None = None,
        input_scale: float | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Packs an ``nn.Conv2d``; the dense weight is not kept.

        Args:
            conv: The layer to take over; groups=1 and zero padding.
            pattern: What is kept together, of the matrix ``(out_channels, kernel_h * kernel_w * in_channels)``.
            mask: Bool in the shape of the weight or of that matrix, True where kept. None: the largest magnitudes.
            sparsity: Fraction of zeros, for patterns that leave it open; None keeps exactly the non-zero weights.
            activation: Fused after bias and residual.
            compute_dtype: See the class.
            input_scale: See the class.
            dtype: Of the stored values, ``torch.int8`` included. None: as the weight.

        Raises:
            TypeError: Not an ``nn.Conv2d``.
            ValueError: A layer that has to stay dense, and why; a mask or option that does not fit.
        """
        if not isinstance(conv, nn.Conv2d):
            raise TypeError(f"SparseConv2d.from_dense: needs an nn.Conv2d, got {type(conv).__name__}.")
        if reason := why_dense(conv):
            raise ValueError(f"SparseConv2d.from_dense: the layer {reason}. Leave it as it is.")
        if mask is not None and mask.shape == conv.weight.shape:
            mask = to_matrix(mask)
        packed = pack(
            to_matrix(conv.weight), pattern, mask, sparsity=sparsity, dtype=dtype, layout="group_lists"
        )
        layer = cls.from_packed(
            packed,
            conv.bias,
            kernel_size=cast(tuple[int, int], conv.kernel_size),
            stride=cast(tuple[int, int], conv.stride),
            padding=conv.padding if isinstance(conv.padding, str) else cast(tuple[int, int], conv.padding),
            dilation=cast(tuple[int, int], conv.dilation),
            activation=activation,
            compute_dtype=compute_dtype,
            input_scale=input_scale,
            trainable=conv.weight.requires_grad,
        )
        return layer.train(conv.training)

    def _set_geometry(self, conv: nn.Conv2d) -> None:
        self.in_channels, self.groups, self.padding_mode = conv.in_channels, 1, "zeros"
        self.kernel_size = _pair("SparseConv2d", "kernel_size", cast(Size, conv.kernel_size), 1)
        self.stride = _pair("SparseConv2d", "stride", cast(Size, conv.stride), 1)
        self.dilation = _pair("SparseConv2d", "dilation", cast(Size, conv.dilation), 1)
        padding = conv.padding
        self.padding: tuple[int, int] | str = (
            padding if isinstance(padding, str) else _pair("SparseConv2d", "padding", cast(Size, padding), 0)
        )

    def _set_up(
        self,
        weight: PackedWeight,
        bias: Tensor | None,
        activation: str,
        compute_dtype: torch.dtype | None,
        trainable: bool = True,
    ) -> None:
        if not isinstance(weight, GroupLists):
            raise ValueError(
                f"SparseConv2d: needs group lists, got {weight.layout}. Pack with layout='group_lists'."
            )
        if compute_dtype == torch.int8 and weight.dtype != torch.int8:
            raise ValueError(
                "SparseConv2d: compute_dtype=torch.int8 needs int8 values. Use dtype=torch.int8."
            )
        self.out_channels = weight.shape[0]
        super()._set_up(weight, bias, activation, compute_dtype, trainable)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """``(out_channels, kernel_h * kernel_w * in_channels)``."""
        return self.out_channels, self.kernel_size[0] * self.kernel_size[1] * self.in_channels

    @property
    def sides(self) -> tuple[int, int, int, int]:
        """The padding in numbers: top, left, bottom, right."""
        if self.padding == "valid":
            return 0, 0, 0, 0
        if self.padding == "same":
            total = [self.dilation[i] * (self.kernel_size[i] - 1) for i in (0, 1)]
            return total[0] // 2, total[1] // 2, total[0] - total[0] // 2, total[1] - total[1] // 2
        high, wide = cast(tuple[int, int], self.padding)
        return high, wide, high, wide

    def to_dense(self) -> nn.Conv2d:
        """An ``nn.Conv2d`` with exact zeros; a fused activation is not part of it."""
        with torch.no_grad():
            matrix = self.weight.to_dense()
        dense = nn.Conv2d(
            max(self.in_channels, 1),
            max(self.out_channels, 1),
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            bias=self.bias is not None,
            device="meta",
            dtype=matrix.dtype,
        )
        dense.in_channels, dense.out_channels = self.in_channels, self.out_channels
        self._copy_to_dense(dense, self.dense_kernel(matrix))
        return dense

    def dense_kernel(self, matrix: Tensor) -> Tensor:
        """A ``(out_channels, kernel_h * kernel_w * in_channels)`` matrix in the shape of a convolution's weight."""
        shape = (self.out_channels, self.in_channels, *self.kernel_size)
        return from_matrix(matrix, torch.empty(shape, device="meta"))

    def calibrate_input_scale_(self, images: Tensor) -> None:
        """Sets ``input_scale`` so that nothing in these images, nor in those of earlier calls, is cut off.

        Raises:
            ValueError: ``compute_dtype`` is not int8, or the images hold an infinity or a NaN.
        """
        largest = images.detach().abs().amax().item() / 127 if images.numel() else 0.0
        if largest:
            checked_scale("SparseConv2d", largest, COMPUTE_NAMES[self.compute_dtype])
            self.input_scale = max(largest, self.input_scale or 0.0)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """``(N, in_channels, H, W)``, or without N, to ``(N, out_channels, H_out, W_out)`` in the dtype of ``input``.

        Args:
            input: The images.
            residual: Like the output; added before the activation, by the kernel itself.
        """
        self._require_floats(input)
        if input.dim() == 3:
            added = None if residual is None else residual.unsqueeze(0)
            return self._images(input.unsqueeze(0), added).squeeze(0)
        return self._images(input, residual)

    def _images(self, input: Tensor, residual: Tensor | None) -> Tensor:
        if input.dim() != 4 or input.shape[1] != self.in_channels:
            raise ValueError(
                f"SparseConv2d: input must be (images, {self.in_channels}, height, width), got shape "
                f"{tuple(input.shape)}."
            )
        if self.weight_values.device.type not in ("cpu", "meta"):
            raise RuntimeError(
                f"SparseConv2d: its kernels run on the CPU, and the layer is on {self.weight_values.device}. Move it "
                "with .cpu(), or use to_dense()."
            )
        if self._needs_grad(input, residual):
            return activate(self._differentiable(input, residual), self.activation)
        return self._run(self._route(input), input, residual)

    def _size(self, input: Tensor) -> int:
        return input.numel() // max(self.in_channels, 1)

    def _run(self, weight: PackedWeight | Tensor, input: Tensor, residual: Tensor | None = None) -> Tensor:
        if isinstance(weight, Tensor):
            sums = self._dense(input, weight, self.bias)
            return activate(sums if residual is None else sums + residual, self.activation)
        assert isinstance(weight, GroupLists)
        return weight.conv2d(
            input,
            self.bias,
            residual,
            **self._geometry(),
            activation=self.activation,
            compute=COMPUTE_NAMES[self.compute_dtype],
            input_scale=self.input_scale,
        )

    def _geometry(self) -> dict[str, Any]:
        return {
            "kernel_size": self.kernel_size,
            "stride": self.stride,
            "padding": self.sides,
            "dilation": self.dilation,
        }

    def _dense(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv2d(input, weight, bias, self.stride, self.padding, self.dilation)

    def _differentiable(self, input: Tensor, residual: Tensor | None) -> Tensor:
        weight = self.weight
        assert isinstance(weight, GroupLists)
        if weight.dtype == torch.int8:
            # no gradient for the weight: those of input, bias and residual go through the dense convolution
            dense = self.dense_kernel(weight.to_dense()).to(input.dtype)
            sums = self._dense(input, dense, None if self.bias is None else self.bias.to(input.dtype))
            return sums if residual is None else sums + residual
        return group_lists_conv2d(
            input,
            weight.values,
            weight.index,
            weight.order,
            weight.starts,
            bias=self.bias,
            residual=residual,
            out_channels=self.out_channels,
            **self._geometry(),
            depth=weight.depth,
            window=weight.window,
            transposed=self._transposition(weight),
        )

    def _describe(self) -> dict[str, Any]:
        padding = self.padding if isinstance(self.padding, str) else list(self.padding)
        conv = {
            "in_channels": self.in_channels,
            "kernel_size": list(self.kernel_size),
            "stride": list(self.stride),
            "padding": padding,
            "dilation": list(self.dilation),
        }
        if self.input_scale is not None:
            conv["input_scale"] = float(self.input_scale)
        return super()._describe() | {"conv": conv}

    def set_extra_state(self, state: Tensor) -> None:
        """Takes over what :meth:`get_extra_state` wrote, stride, padding, dilation and input scale included."""
        super().set_extra_state(state)
        conv = read_extra_state(state)["conv"]
        self.stride, self.dilation = tuple(conv["stride"]), tuple(conv["dilation"])
        self.padding = conv["padding"] if isinstance(conv["padding"], str) else tuple(conv["padding"])
        self.input_scale = conv.get("input_scale")

    def _check_description(self, described: Mapping[str, Any]) -> None:
        conv = described.get("conv")
        if conv is None:
            raise ValueError("the checkpoint holds a linear layer, this one is a SparseConv2d.")
        if described["layout"] != "group_lists":
            raise ValueError(f"a convolution is stored as group lists, not as {described['layout']!r}.")
        if (conv["in_channels"], tuple(conv["kernel_size"])) != (self.in_channels, self.kernel_size):
            raise ValueError(
                f"the checkpoint holds {conv['in_channels']} channels under a kernel of {conv['kernel_size']}, this "
                f"layer has {self.in_channels} under {list(self.kernel_size)}."
            )

    def extra_repr(self) -> str:
        """Shape, geometry, pattern and storage in words."""
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        if self.padding not in ((0, 0), "valid"):
            text += f", padding={self.padding}"
        if self.dilation != (1, 1):
            text += f", dilation={self.dilation}"
        text += self._storage_repr()
        return text if self.input_scale is None else f"{text}, input_scale={self.input_scale:.4g}"
