"""What every packed weight can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from sparsecore._library import has_kernel
from sparsecore.patterns import Pattern

ACTIVATIONS = {
    "none": 0,
    "relu": 1,
    "gelu": 2,
    "gelu_tanh": 3,
    "silu": 4,
    "relu6": 5,
    "hard_swish": 6,
    "hard_sigmoid": 7,
    "sigmoid": 8,
}
COMPUTE = {"float32": 0, "float16": 1, "int8": 2}
VALUE_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8)


def status_text(status: int) -> str:
    """A reason in words for a status code of the kernels."""
    reasons = (
        "no error",
        "a required array is missing",
        "a dimension is negative or too large",
        "the pattern's parameters are outside what the format allows",
        "the starts of the lists do not ascend from 0 to the number of values",
        "an index points outside its block, group or row",
        "the indices of a list are not strictly ascending",
        "a weight scale is missing or not finite",
    )
    return reasons[status] if 0 <= status < len(reasons) else f"status {status}"


def require_tensor(
    owner: str, name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int | None, ...]
) -> None:
    """Raises ValueError unless ``tensor`` has this dtype and shape (None: any size) and is contiguous."""
    wanted = "(" + ", ".join("*" if size is None else str(size) for size in shape) + ")"
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{owner}: {name} must be a tensor, got {type(tensor).__name__}.")
    fits = tensor.dim() == len(shape) and all(
        size is None or size == got for size, got in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype != dtype or not fits:
        raise ValueError(
            f"{owner}: {name} must be {dtype} of shape {wanted}, got {tensor.dtype} of shape {tuple(tensor.shape)}. "
            "The packed weight is damaged or belongs to another shape; pack it again."
        )
    if not tensor.is_contiguous():
        raise ValueError(f"{owner}: {name} must be contiguous. Call .contiguous() on it.")


@dataclass(frozen=True, eq=False)
class PackedWeight(ABC):
    """A sparse ``(out_features, in_features)`` matrix in the layout of one kernel family.

    Attributes:
        shape: ``(out_features, in_features)``.
        pattern: What the weight was packed as.
        values: The kept weights: float32, bfloat16, float16, float64 (reference only) or int8.
        scale: ``(out_features,)`` float32 beside int8 values, else None.
    """

    shape: tuple[int, int]
    pattern: Pattern
    values: Tensor
    scale: Tensor | None

    layout: ClassVar[str]
    index_names: ClassVar[tuple[str, ...]]
    trainable: ClassVar[bool] = False
    """Whether floating-point values of this layout can be trained."""
    int8_products: ClassVar[bool] = False
    """Whether int8 values can be multiplied with inputs rounded to int8."""

    @abstractmethod
    def to_dense(self) -> Tensor:
        """``(out_features, in_features)`` in the dtype of the values (int8: float32, scaled)."""

    @abstractmethod
    def mask(self) -> Tensor:
        """``(out_features, in_features)`` bool, True where a weight is stored, be its value zero or not."""

    @abstractmethod
    def validate(self) -> Self:
        """Checks every array and every index; returns self.

        Raises:
            ValueError: What is wrong and where.
        """

    @abstractmethod
    def linear(
        self, input: Tensor, bias: Tensor | None = None, *, activation: str = "none", compute: str = "float32"
    ) -> Tensor:
        """``activation(input @ weight.T + bias)`` by the kernels of this layout."""

    @property
    def proves_pattern(self) -> bool:
        """Whether ``validate()`` leaves no doubt that the weight follows its pattern; else its mask is looked at."""
        return False

    @classmethod
    def runs_on(cls, device: str) -> bool:
        """Whether this installation has kernels of the layout for a kind of device; on ``meta`` nothing runs."""
        return device == "meta" or has_kernel(f"{cls.layout}_linear", device)

    def transposed_structure(self) -> tuple[Tensor, ...] | None:
        """What spares :meth:`trained_linear` work in the backward pass, where there is anything."""
        return None

    def trained_linear(
        self, input: Tensor, bias: Tensor | None, transposed: tuple[Tensor, ...] | None
    ) -> Tensor:
        """``input @ weight.T + bias`` with gradients for all three, of a ``trainable`` layout."""
        return self.linear(input, bias)

    @classmethod
    def wide_indices(cls, values: Tensor, attributes: Mapping[str, Any]) -> frozenset[str]:
        """Which indices are 16 bits wide. Layers keep those as bytes, because gloo and NCCL know no 16-bit integers."""
        return frozenset()

    @property
    def nbytes(self) -> int:
        """Bytes of everything stored, indices and scales included."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    @property
    def sparsity(self) -> float:
        """Fraction of the matrix that is not stored."""
        return 1.0 - self.stored / max(self.shape[0] * self.shape[1], 1)

    @property
    def stored(self) -> int:
        """Weights stored inside the matrix."""
        return int(self.mask().sum())

    @property
    def dtype(self) -> torch.dtype:
        """Of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Of the values."""
        return self.values.device

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuses functions of torch, which know dense weights alone.

        That there is this method also tells the layers of torch that look at ``linear1.weight``, such as
        ``nn.TransformerEncoderLayer``, not to hand the weights of their parts to one fused operator.
        """
        name = getattr(function, "__name__", function)
        raise TypeError(
            f"torch.{name}: a packed weight ({cls.layout}) is no tensor. Call the layer or weight.linear(input, bias); "
            "weight.to_dense() is the dense matrix."
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything stored, by name: ``values``, the indices of the layout, ``scale`` where there is one."""
        stored = {"values": self.values} | {name: getattr(self, name) for name in self.index_names}
        return stored if self.scale is None else stored | {"scale": self.scale}

    def attributes(self) -> dict[str, Any]:
        """The plain numbers of the layout that its tensors do not say."""
        return {name: getattr(self, name) for name in self.attribute_names()}

    @classmethod
    def attribute_names(cls) -> tuple[str, ...]:
        """Names of the plain numbers of the layout."""
        tensors = ("shape", "pattern", "values", "scale", *cls.index_names)
        return tuple(field.name for field in fields(cls) if field.name not in tensors)

    def integers(self) -> Tensor:
        """``(out_features, in_features)`` int8 of an int8 weight, before the scale."""
        unscaled = replace(self, values=self.values.to(torch.int8), scale=None)
        return unscaled._unpack(unscaled.values)

    @abstractmethod
    def _unpack(self, values: Tensor) -> Tensor:
        """``(out_features, in_features)`` with these values at the places of the structure, in their dtype."""

    def with_values(self, values: Tensor) -> Self:
        """The same structure with other values of the same shape."""
        if values.shape != self.values.shape:
            raise ValueError(
                f"{self.layout}: values must have shape {tuple(self.values.shape)}, got {tuple(values.shape)}."
            )
        return replace(self, values=values)

    def to(self, dtype: torch.dtype | None = None, *, device: torch.device | str | None = None) -> Self:
        """The same weight with values of another floating dtype, or on another device in the same layout."""
        if dtype is not None and (self.values.dtype == torch.int8 or not dtype.is_floating_point):
            raise ValueError(
                f"{self.layout}: cannot turn {self.values.dtype} values into {dtype}; pack again instead."
            )
        moved: dict[str, Any] = {name: tensor.to(device=device) for name, tensor in self.tensors().items()}
        return replace(self, **moved | {"values": moved["values"].to(dtype or self.dtype)})

    def _halves(self, input: Tensor, compute: str) -> tuple[Tensor, Tensor, torch.dtype]:
        """Input, values and output dtype of a layout that multiplies bfloat16 and float16 alone.

        The product is in the dtype of autocast, or of the input; float32 values are narrowed to it.
        """
        wanted = input.dtype
        if torch.is_autocast_enabled(input.device.type):
            wanted = torch.get_autocast_dtype(input.device.type)
        values = self.values
        if values.dtype != torch.float32:
            return input, values, wanted
        product = torch.float16 if compute == "float16" else wanted
        if product == torch.float32:
            raise ValueError(
                f"{self.layout}: sparse tensor cores have no float32 product, got float32 values and a float32 input. "
                "Use torch.autocast, layer.to(torch.bfloat16), or compute_dtype=torch.float16."
            )
        return input.to(product), values.to(product), wanted

    def _check_common(self) -> None:
        for name, tensor in self.tensors().items():
            if isinstance(tensor, Tensor) and tensor.device != self.values.device:
                raise ValueError(
                    f"{self.layout}: values are on {self.values.device} and {name} on {tensor.device}. Move one of "
                    "them."
                )
        if self.values.dtype not in VALUE_DTYPES:
            raise ValueError(f"{self.layout}: values must be one of {VALUE_DTYPES}, got {self.values.dtype}.")
        if self.values.dtype == torch.int8:
            if self.scale is None:
                raise ValueError(f"{self.layout}: int8 values need a scale per output channel.")
            require_tensor(self.layout, "scale", self.scale, torch.float32, (self.shape[0],))
            if not torch.isfinite(self.scale).all():
                raise ValueError(
                    f"{self.layout}: a scale is inf or nan. The packed weight is damaged; pack it again."
                )
        elif self.scale is not None:
            raise ValueError(f"{self.layout}: only int8 values have a scale, got {self.values.dtype}.")

    def _raise_status(self, status: int, where: int, place: str) -> None:
        if status:
            raise ValueError(
                f"{self.layout}: {status_text(status)}{f', at {place} {where}' if where >= 0 else ''}. "
                "The packed weight is damaged; pack it again."
            )

    def _scaled(self, dense: Tensor) -> Tensor:
        return dense if self.scale is None else dense.float() * self.scale.unsqueeze(1)
