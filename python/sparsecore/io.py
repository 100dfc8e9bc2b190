"""Saving and loading models with packed layers: one safetensors file, written whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sparsecore._memory import give_back_freed
from sparsecore.formats.pack import placed
from sparsecore.nn._packed import PackedLayer, checking_only, packed_from_state, read_extra_state
from sparsecore.nn.conv import SparseConv2d, why_dense
from sparsecore.nn.linear import SparseLinear
from sparsecore.patterns import pattern_name

_SUFFIX = "_extra_state"
_VERSION = "1"


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes every parameter and buffer of a model, packed layers packed.

    The file is written beside ``path`` and renamed at the end: an interrupted save leaves the old file untouched.
    Tensors that share memory are written once.

    Args:
        model: Any module.
        path: Of the safetensors file.
    """
    target = Path(path)
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[tuple[int, torch.dtype, torch.Size, tuple[int, ...]], str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ValueError(f"save: {name} is a {type(value).__name__}; only tensors can be saved.")
        key = (value.data_ptr(), value.dtype, value.shape, value.stride())
        if value.numel() and key in owners:
            aliases[name] = owners[key]
        else:
            owners[key] = name
            tensors[name] = value.detach().cpu().contiguous().clone()
    packed = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, PackedLayer)]
    described = {f"sparsecore.layer.{name}": pattern_name(layer.pattern) for name, layer in packed}
    shared = {f"sparsecore.alias.{name}": owner for name, owner in aliases.items()}
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata={"format": "pt", "sparsecore": _VERSION} | described | shared)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def load(model: nn.Module, path: str | os.PathLike[str], *, strict: bool = True) -> nn.Module:
    """Reads what :func:`save` wrote into a model, in place.

    Where the file holds a packed layer and the model an ``nn.Linear`` or ``nn.Conv2d``, that is replaced by the packed
    layer. Everything is checked before the model is touched: what is refused leaves it as it was.

    Args:
        model: A model of the saved architecture, dense or already converted.
        path: Of the file.
        strict: Whether every key must match.

    Returns:
        The model.

    Raises:
        ValueError: The file is truncated, damaged, or of another model.
        FileNotFoundError: There is none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"load: there is no file {path}.")
    state: dict[str, Any] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 (not a dict)
                state[name] = file.get_tensor(name)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"load: {path} is not a complete safetensors file ({error}).") from error
    version = metadata.get("sparsecore", _VERSION)
    if version != _VERSION:
        raise ValueError(
            f"load: {path} is of version {version!r}, this release reads {_VERSION!r}; upgrade sparsecore."
        )
    for key, owner in metadata.items():
        if key.startswith("sparsecore.alias."):
            name = key.removeprefix("sparsecore.alias.")
            if owner not in state:
                raise ValueError(f"load: {path} refers to {owner}, which it does not hold.")
            if name in state:
                raise ValueError(f"load: {path} holds {name}, and says that it is {owner}.")
            state[name] = state[owner]

    replacements: dict[str, PackedLayer] = {}
    made: dict[int, PackedLayer] = {}
    modules = dict(model.named_modules(remove_duplicate=False))
    for key in [key for key in state if key.endswith(_SUFFIX)]:
        name = key.removesuffix(_SUFFIX).rstrip(".")
        prefix = key.removesuffix(_SUFFIX)
        module = modules.get(name)
        if isinstance(module, PackedLayer) or not isinstance(module, (nn.Linear, nn.Conv2d)):
            continue
        try:
            if id(module) not in made:  # a layer used twice stays one layer
                made[id(module)] = _packed_layer(module, state, prefix, strict)
            replacements[name] = made[id(module)]
        except ValueError as error:
            raise ValueError(f"load: {path}, layer {name!r}: {error}") from error
    if "" in replacements:
        layer: nn.Module = replacements[""]
        _load_state(layer, state, path, strict)
        return layer
    originals = {name: modules[name] for name in replacements}
    _swap(model, replacements)
    try:
        _load_state(model, state, path, strict)
    except ValueError:
        _swap(model, originals)
        raise
    originals.clear()
    modules.clear()
    state.clear()
    give_back_freed()
    return model


def _packed_layer(
    module: nn.Linear | nn.Conv2d, state: dict[str, Any], prefix: str, strict: bool
) -> PackedLayer:
    """The packed layer that a file holds for this one of the model, checked and in memory of its own."""
    packed = packed_from_state(state, prefix)
    conv = read_extra_state(state[f"{prefix}_extra_state"]).get("conv")
    shape = (module.weight.shape[0], module.weight[0].numel() if len(module.weight) else packed.shape[1])
    if packed.shape != shape or (conv is not None) != isinstance(module, nn.Conv2d):
        words = [
            f"{a} x {b} {kind}"
            for (a, b), kind in zip((packed.shape, shape), _kinds(conv, module), strict=True)
        ]
        raise ValueError(f"the file holds a {words[0]}, the model a {words[1]}.")
    # safetensors maps the file: a layer owns its memory, whatever happens to the file later.
    owned: dict[str, Any] = {part: tensor.clone() for part, tensor in packed.tensors().items()}
    packed = dataclasses.replace(packed, **owned)
    bias = state.get(f"{prefix}bias")
    if strict and (bias is None) != (module.bias is None):
        raise ValueError(
            f"the file holds {'no bias' if bias is None else 'a bias'}, the model's layer has "
            f"{'none' if module.bias is None else 'one'}."
        )
    if bias is None:
        bias = module.bias
    if isinstance(module, nn.Linear):
        if not module.weight.is_meta:
            packed = placed(packed, module.weight.device)
            bias = None if bias is None else bias.to(module.weight.device)
        return SparseLinear.from_packed(packed, bias).train(module.training)
    assert conv is not None
    if reason := why_dense(module):
        raise ValueError(f"the file holds a packed convolution, the model's {reason}.")
    names = ("kernel_size", "stride", "padding", "dilation")
    saved = {name: conv[name] if isinstance(conv[name], str) else tuple(conv[name]) for name in names}
    ours = {name: getattr(module, name) for name in names}
    if saved != ours:
        raise ValueError(f"the file holds a convolution with {saved}, the model one with {ours}.")
    return SparseConv2d.from_packed(packed, bias, **saved).train(module.training)


def _kinds(conv: Any, module: nn.Module) -> tuple[str, str]:
    return "linear layer" if conv is None else "convolution", type(module).__name__


def _swap(model: nn.Module, modules: dict[str, Any]) -> None:
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, module)


class _NothingCopied(TorchDispatchMode):
    """Leaves tensors as they are that others are copied into."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func is torch.ops.aten.copy_.default else func(*args, **(kwargs or {}))


def _load_state(model: nn.Module, state: dict[str, Any], path: str | os.PathLike[str], strict: bool) -> None:
    """A rehearsal that copies nothing says whether all fits: torch reports what does not after copying what does."""
    try:
        with checking_only(), _NothingCopied():  # type: ignore[no-untyped-call]
            model.load_state_dict(state, strict=strict)
        model.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        raise ValueError(f"load: {path} does not fit the model: {error}") from error
