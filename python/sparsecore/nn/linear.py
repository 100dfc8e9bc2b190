"""``SparseLinear``: a linear layer whose weight is packed, trained and saved packed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from sparsecore.formats.base import ACTIVATIONS, PackedWeight
from sparsecore.formats.channels import Channels
from sparsecore.formats.pack import LAYOUTS, from_tensors, pack
from sparsecore.formats.row_lists import RowLists
from sparsecore.formats.shared_lists import SharedLists
from sparsecore.ops import (
    row_lists_linear,
    row_lists_transpose,
    shared_lists_linear,
    shared_lists_transpose,
)
from sparsecore.patterns import Pattern, pattern_name
from sparsecore.patterns import pattern as parse_pattern
from sparsecore.reference import activate

FORMAT_VERSION = 1
_COMPUTE = {None: "float32", torch.float16: "float16", torch.int8: "int8"}
_TRAINABLE = ("row_lists", "shared_lists", "channels")


def _as_buffer(index: Tensor) -> Tensor:
    """16-bit columns as their bytes: gloo and NCCL, which DDP broadcasts buffers with, have no 16-bit integers."""
    return index.view(torch.uint8) if index.dtype == torch.int16 else index


def _from_buffer(name: str, buffer: Tensor) -> Tensor:
    """The index that :func:`_as_buffer` stored; anything else comes back as it is, for ``validate`` to judge."""
    whole = buffer.dtype == torch.uint8 and buffer.dim() == 1 and buffer.numel() % 2 == 0
    return buffer.view(torch.int16) if name == "columns" and whole and buffer.is_contiguous() else buffer


class SparseLinear(nn.Module):
    """``activation(input @ weight.T + bias)`` with a packed sparse weight.

    The kept weights are the parameter ``weight_values``; where they stand is in plain integer buffers
    (``weight_<index>``), so ``state_dict``, safetensors, ``.to()``, deepcopy, pickle and DDP need no special case.
    Gradients reach the kept weights only. float64 layers run, slowly, on the reference.

    Args:
        in_features: Inputs.
        out_features: Outputs.
        bias: Whether there is one.
        pattern: ``NM(2, 4)``, ``Unstructured()``, ``Group(16, 1)``, or a short name.
        sparsity: Fraction of zeros, for patterns that leave it open.
        activation: Fused: ``none``, ``relu``, ``gelu``, ``gelu_tanh``, ``silu``, ``relu6``, ``hard_swish``,
            ``hard_sigmoid`` or ``sigmoid``.
        compute_dtype: None; ``torch.float16`` for products at the float16 rate of CPUs that have one (relative error
            at most 1.5e-3); ``torch.int8`` for int8 shared lists with inputs quantised per token. Inference only.
        device: Where the parameters live.
        dtype: Of the parameters.
    """

    bias: nn.Parameter | None
    weight_values: Tensor
    weight_scale: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        pattern: Pattern | str,
        sparsity: float | None = None,
        activation: str = "none",
        compute_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        dense = nn.Linear(in_features, out_features, bias, device=device, dtype=dtype)
        packed = pack(dense.weight, pattern, sparsity=sparsity)
        self._set_up(packed, dense.bias, activation, compute_dtype)

    @classmethod
    def from_packed(
        cls,
        weight: PackedWeight,
        bias: Tensor | None = None,
        *,
        activation: str = "none",
        compute_dtype: torch.dtype | None = None,
        trainable: bool = True,
    ) -> Self:
        """A layer around a packed weight (validated here) and a bias ``(out_features,)``."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=trainable)
        layer._set_up(weight.validate(), bias, activation, compute_dtype, trainable)
        return layer

    @classmethod
    def from_dense(
        cls,
        linear: nn.Linear,
        pattern: Pattern | str,
        mask: Tensor | None = None,
        *,
        sparsity: float | None = None,
        activation: str = "none",
        compute_dtype: torch.dtype | None = None,
        dtype: torch.dtype | None = None,
        layout: str = "auto",
    ) -> Self:
        """Packs an ``nn.Linear``; the dense weight is not kept.

        Args:
            linear: The layer to take over.
            pattern: What is kept together.
            mask: ``(out_features, in_features)`` bool, True where kept. None: the largest magnitudes.
            sparsity: Fraction of zeros, for patterns that leave it open; None keeps exactly the non-zero weights.
            activation: Fused after the bias.
            compute_dtype: See the class.
            dtype: Of the stored values, ``torch.int8`` included. None: as the weight.
            layout: See :func:`sparsecore.pack`.

        Raises:
            ValueError: A mask or option that does not fit.
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"SparseLinear.from_dense: needs an nn.Linear, got {type(linear).__name__}.")
        packed = pack(linear.weight, pattern, mask, sparsity=sparsity, dtype=dtype, layout=layout)
        layer = cls.from_packed(
            packed,
            linear.bias,
            activation=activation,
            compute_dtype=compute_dtype,
            trainable=linear.weight.requires_grad,
        )
        return layer.train(linear.training)

    def _set_up(
        self,
        weight: PackedWeight,
        bias: Tensor | None,
        activation: str,
        compute_dtype: torch.dtype | None,
        trainable: bool = True,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"SparseLinear: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}."
            )
        if compute_dtype not in _COMPUTE:
            raise ValueError(
                f"SparseLinear: compute_dtype must be None, torch.float16 or torch.int8, got {compute_dtype}."
            )
        if compute_dtype == torch.int8 and (weight.layout != "shared_lists" or weight.dtype != torch.int8):
            raise ValueError(
                "SparseLinear: compute_dtype=torch.int8 needs int8 values in shared lists. "
                "Use dtype=torch.int8 with NM(n, m, vector=16) or Group(16, 1)."
            )
        self.out_features, self.in_features = weight.shape
        self.pattern, self.layout = weight.pattern, weight.layout
        self.attributes = weight.attributes()
        self.activation, self.compute_dtype = activation, compute_dtype
        if weight.dtype == torch.int8:
            self.register_buffer("weight_values", weight.values)
        else:
            frozen = weight.layout not in _TRAINABLE
            self.weight_values = nn.Parameter(weight.values, requires_grad=trainable and not frozen)
        for name in weight.index_names:
            self.register_buffer(f"weight_{name}", _as_buffer(getattr(weight, name)))
        self.register_buffer("weight_scale", weight.scale)
        self.register_parameter("bias", bias if bias is None else nn.Parameter(bias, bias.requires_grad))
        self._forget_derived()

    def _forget_derived(self) -> None:
        """Drops what was computed from the indices or measured with them."""
        self._transposed: tuple[Tensor, Tensor, Tensor] | None = None
        self.routes: list[tuple[int, PackedWeight | Tensor]] = []

    @property
    def weight(self) -> PackedWeight:
        """The packed weight; shares memory with the layer."""
        names = LAYOUTS[self.layout].index_names
        indices = {name: _from_buffer(name, getattr(self, f"weight_{name}")) for name in names}
        return LAYOUTS[self.layout](
            shape=(self.out_features, self.in_features),
            pattern=self.pattern,
            values=self.weight_values,
            scale=self.weight_scale,
            **indices,
            **self.attributes,
        )

    def replace_weight(self, weight: PackedWeight) -> None:
        """Takes over another packed weight of the same shape and dtype; the parameter stays the same object.

        Raises:
            ValueError: It is malformed, or of another shape or dtype.
        """
        weight.validate()
        if weight.dtype != self.weight_values.dtype:
            raise ValueError(
                f"SparseLinear.replace_weight: needs {self.weight_values.dtype} values, got {weight.dtype}."
            )
        self._make_room(weight)
        self.pattern, self.attributes = weight.pattern, weight.attributes()
        with torch.no_grad():
            self.weight_values.copy_(weight.values)
            for name in weight.index_names:
                getattr(self, f"weight_{name}").copy_(_as_buffer(getattr(weight, name)))
            if weight.scale is not None and self.weight_scale is not None:
                self.weight_scale.copy_(weight.scale)
        self._forget_derived()

    @property
    def nbytes(self) -> int:
        """Bytes of the weight (what a plan keeps besides included) and the bias."""
        extra = sum(route.nbytes for _, route in self.routes)
        return self.weight.nbytes + extra + (0 if self.bias is None else self.bias.nbytes)

    def to_dense(self) -> nn.Linear:
        """An ``nn.Linear`` with exact zeros; a fused activation is not part of it."""
        with torch.no_grad():
            weight = self.weight.to_dense()
        dense = nn.Linear(
            self.in_features, self.out_features, self.bias is not None, device="meta", dtype=weight.dtype
        )
        dense.weight = nn.Parameter(weight, requires_grad=self.weight_values.requires_grad)
        if self.bias is not None:
            dense.bias = nn.Parameter(self.bias.detach().clone().to(weight.dtype), self.bias.requires_grad)
        return dense.train(self.training)

    def forward(self, input: Tensor) -> Tensor:
        """``(..., in_features)`` to ``(..., out_features)``, in the dtype of ``input``."""
        if input.dim() == 0 or input.shape[-1] != self.in_features:
            raise ValueError(
                f"SparseLinear: input must be (..., {self.in_features}), got shape {tuple(input.shape)}."
            )
        if self._needs_grad(input):
            return activate(self._differentiable(input), self.activation)
        if self.routes:
            tokens = input.numel() // max(self.in_features, 1)
            for most, route in self.routes:
                if tokens <= most:
                    return self._run(route, input)
        return self._run(self.weight, input)

    def _run(self, weight: PackedWeight | Tensor, input: Tensor) -> Tensor:
        if isinstance(weight, Tensor):
            return activate(nn.functional.linear(input, weight, self.bias), self.activation)
        compute = _COMPUTE[self.compute_dtype]
        return weight.linear(input, self.bias, activation=self.activation, compute=compute)

    def _needs_grad(self, input: Tensor) -> bool:
        if not torch.is_grad_enabled():
            return False
        bias = self.bias is not None and self.bias.requires_grad
        return input.requires_grad or self.weight_values.requires_grad or bias

    def _differentiable(self, input: Tensor) -> Tensor:
        weight = self.weight
        if self.layout not in _TRAINABLE or weight.dtype == torch.int8:
            # inference layouts have no backward of their own: gradients of input and bias go through the dense matrix
            dense = weight.to_dense().to(input.dtype)
            return nn.functional.linear(
                input, dense, None if self.bias is None else self.bias.to(input.dtype)
            )
        if isinstance(weight, Channels):
            return weight.linear(input, self.bias)
        if self._transposed is None and not torch.compiler.is_compiling() and weight.dtype != torch.float64:
            self._transposed = self._transpose(weight)
        if isinstance(weight, RowLists):
            return row_lists_linear(
                input,
                weight.values,
                weight.offsets,
                weight.block_ptr,
                bias=self.bias,
                out_features=self.out_features,
                block=weight.block,
                transposed=self._transposed,
            )
        assert isinstance(weight, SharedLists)
        return shared_lists_linear(
            input,
            weight.values,
            weight.columns,
            weight.group_ptr,
            bias=self.bias,
            out_features=self.out_features,
            transposed=self._transposed,
        )

    def _transpose(self, weight: PackedWeight) -> tuple[Tensor, Tensor, Tensor]:
        n, k = weight.shape
        if isinstance(weight, RowLists):
            return row_lists_transpose(
                weight.offsets, weight.block_ptr, out_features=n, in_features=k, block=weight.block
            )
        assert isinstance(weight, SharedLists)
        return shared_lists_transpose(
            weight.columns, weight.group_ptr, vector=weight.vector, out_features=n, in_features=k
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        scale = self.weight_scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if scale is not None and self.weight_scale is not None and self.weight_scale.dtype != torch.float32:
            self.weight_scale = scale.to(
                self.weight_scale.device
            )  # scales stay float32 whatever the layer becomes
        self._forget_derived()
        return self

    def get_extra_state(self) -> Tensor:
        """What the tensors do not say, as plain JSON bytes in a uint8 tensor."""
        compute = None if self.compute_dtype is None else _COMPUTE[self.compute_dtype]
        described = {
            "version": FORMAT_VERSION,
            "layout": self.layout,
            "pattern": pattern_name(self.pattern),
            "shape": [self.out_features, self.in_features],
            "attributes": self.attributes,
            "activation": self.activation,
            "compute": compute,
        }
        return torch.tensor(list(json.dumps(described, sort_keys=True).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Takes over what :meth:`get_extra_state` wrote; the tensors were checked against it before."""
        described = read_extra_state(state)
        self.pattern, self.layout = parse_pattern(described["pattern"]), described["layout"]
        self.attributes, self.activation = described["attributes"], described["activation"]
        self.compute_dtype = {name: dtype for dtype, name in _COMPUTE.items()}[
            described["compute"] or "float32"
        ]

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        if f"{prefix}_extra_state" in state_dict:
            try:
                self._make_room(packed_from_state(state_dict, prefix))
            except ValueError as error:
                error_msgs.append(f"{prefix.rstrip('.') or 'SparseLinear'}: {error}")
                return
        elif f"{prefix}weight_values" in state_dict:
            error_msgs.append(f"{prefix}_extra_state is missing: without it the indices cannot be checked.")
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._forget_derived()

    def _make_room(self, packed: PackedWeight) -> None:
        """Gives parameter and buffers the shapes of a checked weight, so that copying its tensors in succeeds."""
        if packed.shape != (self.out_features, self.in_features):
            raise ValueError(
                f"the checkpoint holds a {packed.shape[0]} x {packed.shape[1]} weight, "
                f"this layer is {self.out_features} x {self.in_features}."
            )
        for name in LAYOUTS[self.layout].index_names:
            delattr(self, f"weight_{name}")
        for name in packed.index_names:
            self.register_buffer(f"weight_{name}", torch.empty_like(_as_buffer(getattr(packed, name))))
        self.layout = packed.layout
        self.weight_scale = None if packed.scale is None else torch.empty_like(packed.scale)
        quantised = packed.dtype == torch.int8
        if quantised != (self.weight_values.dtype == torch.int8):
            del self.weight_values
            if quantised:
                self.register_buffer("weight_values", torch.empty_like(packed.values))
            else:
                self.weight_values = nn.Parameter(torch.empty_like(packed.values))
        elif self.weight_values.shape != packed.values.shape:
            self.weight_values.data = torch.empty(packed.values.shape, dtype=self.weight_values.dtype)

    def extra_repr(self) -> str:
        """Shape, pattern and storage in words."""
        text = (
            f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, pattern={self.pattern!r}"
        )
        text += f", {self.layout}, {str(self.weight_values.dtype).removeprefix('torch.')}"
        return text + (f", activation={self.activation!r}" if self.activation != "none" else "")


def read_extra_state(state: Any) -> dict[str, Any]:
    """The description a layer saved.

    Raises:
        ValueError: It is not one, or of a version this release does not know.
    """
    try:
        described = json.loads(bytes(state.to(torch.uint8).tolist()).decode())
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"the description of a sparse layer is not readable JSON ({error}).") from error
    if not isinstance(described, dict) or described.get("version") != FORMAT_VERSION:
        raise ValueError(
            "the description of a sparse layer has another version; upgrade sparsecore or save again."
        )
    wanted = {"version", "layout", "pattern", "shape", "attributes", "activation", "compute"}
    if set(described) != wanted:
        raise ValueError(f"the description of a sparse layer must have the keys {sorted(wanted)}.")
    shape = described["shape"]
    if not (
        isinstance(shape, list) and len(shape) == 2 and all(isinstance(i, int) and i >= 0 for i in shape)
    ):
        raise ValueError(f"the shape of a sparse layer must be two sizes, got {shape!r}.")
    if described["activation"] not in ACTIVATIONS or described["compute"] not in (None, "float16", "int8"):
        raise ValueError("the description of a sparse layer names an unknown activation or compute type.")
    if not isinstance(described["layout"], str) or not isinstance(described["attributes"], dict):
        raise ValueError("the description of a sparse layer has a malformed layout or attributes.")
    return described


def packed_from_state(state_dict: dict[str, Any], prefix: str) -> PackedWeight:
    """The checked packed weight that a layer's entries of a state dict hold.

    Raises:
        ValueError: Something is missing, damaged or out of range.
    """
    described = read_extra_state(state_dict[f"{prefix}_extra_state"])
    start = f"{prefix}weight_"
    stored = {key[len(start) :]: value for key, value in state_dict.items() if key.startswith(start)}
    aligned = {name: value.clone() if value.storage_offset() % 2 else value for name, value in stored.items()}
    tensors = {name: _from_buffer(name, value) for name, value in aligned.items()}
    try:
        pattern = parse_pattern(described["pattern"])
    except TypeError as error:
        raise ValueError(str(error)) from error
    shape = (described["shape"][0], described["shape"][1])
    return from_tensors(described["layout"], shape, pattern, tensors, described["attributes"])
