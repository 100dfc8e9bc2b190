"""What every packed layer shares: the kept weights as a parameter, where they stand as buffers, saving and loading.

The kept weights are the parameter ``weight_values``; where they stand is in plain integer buffers (``weight_<index>``),
so ``state_dict``, safetensors, deepcopy, pickle and DDP need no special case. What the tensors do not say is plain JSON
in ``_extra_state``. A checkpoint is checked as a whole before any of it is taken over. A layer that comes to another
kind of device, by ``.to()`` or from a file, is packed anew where its layout has no kernels there
(:func:`sparsecore.formats.placed`).
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self

from sparsecore.formats.base import ACTIVATIONS, PackedWeight
from sparsecore.formats.layouts import LAYOUTS
from sparsecore.formats.pack import from_tensors
from sparsecore.ops.group_lists_conv import checked_scale
from sparsecore.patterns import Pattern, pattern_name
from sparsecore.patterns import pattern as parse_pattern

FORMAT_VERSION = 1
COMPUTE_NAMES = {None: "float32", torch.float16: "float16", torch.int8: "int8"}
COMPUTE_DTYPES = {name: dtype for dtype, name in COMPUTE_NAMES.items()}

_checking_only: ContextVar[bool] = ContextVar("checking_only", default=False)


@contextmanager
def checking_only() -> Iterator[None]:
    """Packed layers that are given a state dict meanwhile check it, say what is wrong, and stay as they are."""
    token = _checking_only.set(True)
    try:
        yield
    finally:
        _checking_only.reset(token)


def _as_buffer(index: Tensor) -> Tensor:
    """16-bit indices as their bytes: gloo and NCCL, which DDP broadcasts buffers with, have no 16-bit integers."""
    return index.view(torch.uint8) if index.dtype == torch.int16 else index


def _from_buffer(buffer: Tensor, wide: bool) -> Tensor:
    """The index that :func:`_as_buffer` stored; anything else comes back as it is, for ``validate`` to judge."""
    whole = buffer.dtype == torch.uint8 and buffer.dim() > 0 and buffer.shape[-1] % 2 == 0
    return buffer.view(torch.int16) if wide and whole and buffer.is_contiguous() else buffer


class PackedLayer(nn.Module):
    """A layer with a packed sparse weight and perhaps a bias; see :class:`SparseLinear` and :class:`SparseConv2d`."""

    bias: nn.Parameter | None
    weight_values: Tensor
    weight_scale: Tensor | None
    pattern: Pattern
    layout: str
    attributes: dict[str, Any]
    activation: str
    compute_dtype: torch.dtype | None

    @property
    @abstractmethod
    def matrix_shape(self) -> tuple[int, int]:
        """Rows (of output channels) and columns of the matrix that is packed."""

    @abstractmethod
    def _run(self, weight: PackedWeight | Tensor, input: Tensor) -> Tensor:
        """The layer without gradients, by another packing of its weight or by a dense one."""

    @abstractmethod
    def _size(self, input: Tensor) -> int:
        """Tokens or pixels of an input, by which a plan chooses."""

    @abstractmethod
    def to_dense(self) -> nn.Module:
        """The layer of torch with exact zeros; a fused activation is not part of it."""

    def _set_up(
        self,
        weight: PackedWeight,
        bias: Tensor | None,
        activation: str,
        compute_dtype: torch.dtype | None,
        trainable: bool = True,
    ) -> None:
        owner = type(self).__name__
        if activation not in ACTIVATIONS:
            raise ValueError(
                f"{owner}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}."
            )
        if compute_dtype not in COMPUTE_NAMES:
            raise ValueError(
                f"{owner}: compute_dtype must be None, torch.float16 or torch.int8, got {compute_dtype}."
            )
        self.pattern, self.layout = weight.pattern, weight.layout
        self.attributes = weight.attributes()
        self.activation, self.compute_dtype = activation, compute_dtype
        if weight.dtype == torch.int8:
            self.register_buffer("weight_values", weight.values)
        else:
            self.weight_values = nn.Parameter(weight.values, requires_grad=trainable and weight.trainable)
        for name in weight.index_names:
            self.register_buffer(f"weight_{name}", _as_buffer(getattr(weight, name)))
        self.register_buffer("weight_scale", weight.scale)
        self.register_parameter("bias", bias if bias is None else nn.Parameter(bias, bias.requires_grad))
        self._forget_derived()

    def _forget_derived(self) -> None:
        """Drops what was computed from the indices or measured with them."""
        self._transposed: tuple[Tensor, ...] | None = None
        self.routes: list[tuple[int, PackedWeight | Tensor]] = []

    @property
    def weight(self) -> PackedWeight:
        """The packed weight; shares memory with the layer."""
        kind = LAYOUTS[self.layout]
        wide = kind.wide_indices(self.weight_values, self.attributes)
        indices = {
            name: _from_buffer(getattr(self, f"weight_{name}"), name in wide) for name in kind.index_names
        }
        return kind(
            shape=self.matrix_shape,
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
                f"{type(self).__name__}.replace_weight: needs {self.weight_values.dtype} values, got {weight.dtype}."
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

    def _route(self, input: Tensor) -> PackedWeight | Tensor:
        """What the plan chose for an input of this size."""
        if self.routes:
            size = self._size(input)
            for most, route in self.routes:
                if size <= most:
                    return route
        return self.weight

    def _require_floats(self, input: Tensor) -> None:
        if not isinstance(input, Tensor) or not input.is_floating_point():
            got = input.dtype if isinstance(input, Tensor) else type(input).__name__
            raise TypeError(
                f"{type(self).__name__}: input must be a tensor of a floating-point type, got {got}. "
                "Convert it, for example with .float()."
            )

    def _needs_grad(self, *inputs: Tensor | None) -> bool:
        if not torch.is_grad_enabled():
            return False
        return any(
            tensor is not None and tensor.requires_grad for tensor in (*inputs, self.weight_values, self.bias)
        )

    def _transposition(self, weight: PackedWeight) -> tuple[Tensor, ...] | None:
        """The transposed structure, kept for the next backward pass."""
        real = not weight.values.is_meta and weight.dtype != torch.float64
        if self._transposed is None and real and not torch.compiler.is_compiling():
            self._transposed = weight.transposed_structure()
        return self._transposed

    def _copy_to_dense(self, dense: nn.Module, weight: Tensor) -> None:
        """Gives a dense layer this weight, in its shape, and the bias."""
        dense.weight = nn.Parameter(weight, requires_grad=self.weight_values.requires_grad)
        if self.bias is not None:
            dense.bias = nn.Parameter(self.bias.detach().clone().to(weight.dtype), self.bias.requires_grad)
        dense.train(self.training)

    def _placed(self, weight: PackedWeight, device: torch.device) -> PackedWeight:
        """The weight on another kind of device."""
        return weight.to(device=device)

    def _take(self, weight: PackedWeight) -> None:
        """Takes over a packed weight on its own device; the parameter stays the same object, without a gradient."""
        self._make_room(weight)
        self.pattern, self.attributes = weight.pattern, weight.attributes()
        self.weight_values.data, self.weight_values.grad = weight.values.detach(), None
        for name in weight.index_names:
            setattr(self, f"weight_{name}", _as_buffer(getattr(weight, name)))
        self.weight_scale = weight.scale

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        there = fn(self.weight_values.detach().new_empty(0)).device
        if there.type not in (self.weight_values.device.type, "meta") and not self.weight_values.is_meta:
            self._take(self._placed(self.weight, there))
        scale = self.weight_scale
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if scale is not None and self.weight_scale is not None and self.weight_scale.dtype != torch.float32:
            self.weight_scale = scale.to(
                self.weight_scale.device
            )  # scales stay float32 whatever the layer becomes
        self._forget_derived()
        return self

    def _describe(self) -> dict[str, Any]:
        """What the tensors do not say."""
        return {
            "version": FORMAT_VERSION,
            "layout": self.layout,
            "pattern": pattern_name(self.pattern),
            "shape": list(self.matrix_shape),
            "attributes": self.attributes,
            "activation": self.activation,
            "compute": None if self.compute_dtype is None else COMPUTE_NAMES[self.compute_dtype],
        }

    def get_extra_state(self) -> Tensor:
        """What the tensors do not say, as plain JSON bytes in a uint8 tensor."""
        return _written(self._describe())

    def set_extra_state(self, state: Tensor) -> None:
        """Takes over what :meth:`get_extra_state` wrote; the tensors were checked against it before."""
        described = read_extra_state(state)
        self.pattern, self.layout = parse_pattern(described["pattern"]), described["layout"]
        self.attributes, self.activation = described["attributes"], described["activation"]
        self.compute_dtype = COMPUTE_DTYPES[described["compute"] or "float32"]

    def _check_description(self, described: Mapping[str, Any]) -> None:
        """Raises ValueError unless a layer so described is of this kind."""
        if described.get("conv") is not None:
            raise ValueError(f"the checkpoint holds a convolution, this layer is a {type(self).__name__}.")

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
                self._check_description(read_extra_state(state_dict[f"{prefix}_extra_state"]))
                packed = packed_from_state(state_dict, prefix)
                if not self.weight_values.is_meta:
                    here = self._placed(packed, self.weight_values.device)
                    if here.layout != packed.layout:
                        state_dict = _state_with(state_dict, prefix, here)
                    packed = here
                self._check_shapes(packed, state_dict.get(f"{prefix}bias"))
            except ValueError as error:
                error_msgs.append(f"{prefix.rstrip('.') or type(self).__name__}: {error}")
                return
            if _checking_only.get():
                bias = set() if self.bias is None else {f"{prefix}bias"}
                known = (
                    {f"{prefix}weight_{name}" for name in packed.tensors()} | {f"{prefix}_extra_state"} | bias
                )
                missing_keys += sorted(bias - set(state_dict))
                unexpected_keys += [
                    key for key in state_dict if strict and key.startswith(prefix) and key not in known
                ]
                return
            self._make_room(packed)
        elif any(key.startswith(f"{prefix}weight_") for key in state_dict):
            error_msgs.append(f"{prefix}_extra_state is missing: without it the indices cannot be checked.")
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._forget_derived()

    def _check_shapes(self, packed: PackedWeight, bias: Any = None) -> None:
        """Raises ValueError unless a weight, and a bias where there is one, have the shapes of this layer."""
        if packed.shape != self.matrix_shape:
            raise ValueError(
                f"the checkpoint holds a {packed.shape[0]} x {packed.shape[1]} weight, "
                f"this layer is {self.matrix_shape[0]} x {self.matrix_shape[1]}."
            )
        if self.bias is not None and bias is not None and getattr(bias, "shape", None) != self.bias.shape:
            raise ValueError(
                f"the checkpoint holds a bias of shape {tuple(getattr(bias, 'shape', ()))}, this layer has one of "
                f"shape {tuple(self.bias.shape)}."
            )

    def _make_room(self, packed: PackedWeight) -> None:
        """Gives parameter and buffers the shapes of a checked weight, so that copying its tensors in succeeds."""
        self._check_shapes(packed)
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
            self.weight_values.data = self.weight_values.new_empty(packed.values.shape)

    def _storage_repr(self) -> str:
        """Bias, pattern and storage in words."""
        text = f", bias={self.bias is not None}, pattern={self.pattern!r}"
        text += f", {self.layout}, {str(self.weight_values.dtype).removeprefix('torch.')}"
        return text + (f", activation={self.activation!r}" if self.activation != "none" else "")


def bias_parameter(
    owner: str, bias: Tensor | None, weight: PackedWeight, trainable: bool
) -> nn.Parameter | None:
    """A copy of a bias as the parameter of a layer with this weight.

    Raises:
        ValueError: Its shape or dtype does not fit.
    """
    if bias is None:
        return None
    fits = bias.is_floating_point() and (bias.dtype != torch.float64 or weight.dtype == torch.float64)
    if bias.shape != (weight.shape[0],) or not fits:
        raise ValueError(
            f"{owner}: bias must be ({weight.shape[0]},) of float32, bfloat16 or float16 (float64 beside float64 "
            f"values alone), got {bias.dtype} of shape {tuple(bias.shape)}."
        )
    return nn.Parameter(bias.detach().clone(), requires_grad=trainable)


def _written(described: Mapping[str, Any]) -> Tensor:
    return torch.tensor(list(json.dumps(described, sort_keys=True).encode()), dtype=torch.uint8)


def _state_with(state_dict: Mapping[str, Any], prefix: str, packed: PackedWeight) -> dict[str, Any]:
    """A state dict whose layer at ``prefix`` holds this weight instead of the one it has."""
    others = {key: value for key, value in state_dict.items() if not key.startswith(f"{prefix}weight_")}
    described = read_extra_state(state_dict[f"{prefix}_extra_state"])
    described |= {"layout": packed.layout, "attributes": packed.attributes()}
    stored = {f"{prefix}weight_{name}": _as_buffer(tensor) for name, tensor in packed.tensors().items()}
    return others | stored | {f"{prefix}_extra_state": _written(described)}


def read_extra_state(state: Any) -> dict[str, Any]:
    """The description a layer saved.

    Raises:
        ValueError: It is not one, or of a version this release does not know.
    """
    try:
        described = json.loads(bytes(state.to(torch.uint8).tolist()).decode())
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the description of a sparse layer is not readable JSON ({error}).") from error
    if not isinstance(described, dict) or described.get("version") != FORMAT_VERSION:
        raise ValueError(
            "the description of a sparse layer has another version; upgrade sparsecore or save again."
        )
    wanted = {"version", "layout", "pattern", "shape", "attributes", "activation", "compute"}
    if set(described) - {"conv"} != wanted:
        raise ValueError(f"the description of a sparse layer must have the keys {sorted(wanted)}.")
    if not _are_sizes(described["shape"], 2, 0):
        raise ValueError(f"the shape of a sparse layer must be two sizes, got {described['shape']!r}.")
    if described["activation"] not in [*ACTIVATIONS] or described["compute"] not in [None, "float16", "int8"]:
        raise ValueError("the description of a sparse layer names an unknown activation or compute type.")
    if not isinstance(described["layout"], str) or not isinstance(described["attributes"], dict):
        raise ValueError("the description of a sparse layer has a malformed layout or attributes.")
    if "conv" in described:
        _check_conv(described["conv"], described["shape"][1])
        if "input_scale" in described["conv"]:
            _check_input_scale(described["conv"]["input_scale"], described["compute"])
    return described


def _are_sizes(value: Any, count: int, low: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(i) is int and i >= low for i in value)


def _check_conv(conv: Any, columns: int) -> None:
    fits = isinstance(conv, dict) and set(conv) - {"input_scale"} == {
        "in_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
    }
    fits = fits and _are_sizes([conv["in_channels"]], 1, 0)
    fits = fits and all(_are_sizes(conv[name], 2, 1) for name in ("kernel_size", "stride", "dilation"))
    fits = fits and (conv["padding"] in ("same", "valid") or _are_sizes(conv["padding"], 2, 0))
    if not fits or conv["in_channels"] * conv["kernel_size"][0] * conv["kernel_size"][1] != columns:
        raise ValueError("the description of a sparse convolution has a malformed geometry.")


def _check_input_scale(scale: Any, compute: str | None) -> None:
    if not isinstance(scale, float):
        raise ValueError(f"the input scale of a sparse convolution must be a float, got {scale!r}.")
    checked_scale("the description of a sparse convolution", scale, compute or "float32")


def packed_from_state(state_dict: dict[str, Any], prefix: str) -> PackedWeight:
    """The checked packed weight that a layer's entries of a state dict hold.

    Raises:
        ValueError: Something is missing, damaged or out of range.
    """
    described = read_extra_state(state_dict[f"{prefix}_extra_state"])
    start = f"{prefix}weight_"
    stored = {key[len(start) :]: value for key, value in state_dict.items() if key.startswith(start)}
    for name, value in stored.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"weight_{name} must be a tensor, got {type(value).__name__}.")
    aligned = {name: value.clone() if value.storage_offset() % 2 else value for name, value in stored.items()}
    kind, values = LAYOUTS.get(described["layout"]), aligned.get("values")
    wide = (
        frozenset() if kind is None or values is None else kind.wide_indices(values, described["attributes"])
    )
    tensors = {name: _from_buffer(value, name in wide) for name, value in aligned.items()}
    try:
        pattern = parse_pattern(described["pattern"])
    except TypeError as error:
        raise ValueError(str(error)) from error
    shape = (described["shape"][0], described["shape"][1])
    packed = from_tensors(described["layout"], shape, pattern, tensors, described["attributes"])
    if described["compute"] == "int8" and packed.dtype != torch.int8:
        raise ValueError(
            f"products of int8 need int8 values, and the checkpoint holds {packed.dtype}. Its description is of "
            "another weight; save the layer again."
        )
    return packed
