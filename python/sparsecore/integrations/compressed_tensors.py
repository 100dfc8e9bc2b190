"""Whole checkpoints that compressed-tensors wrote as ``sparse-24-bitmask``, into models with packed layers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sparsecore.convert import _replace
from sparsecore.formats.bitmask24 import bitmask24_keys, read_bitmask24
from sparsecore.nn.linear import SparseLinear

_MARK = ".bitmask"


def load_bitmask24(model: nn.Module, path: str | os.PathLike[str], *, strict: bool = True) -> nn.Module:
    """Reads one safetensors file with ``sparse-24-bitmask`` weights into a model, in place.

    Every ``nn.Linear`` whose weight the file holds compressed becomes a :class:`~sparsecore.nn.SparseLinear`; all other
    tensors are copied into the parameters and buffers they name. Weights are read and packed one at a time. Packed
    layers take the dtype of the file, all else keeps the model's.

    Args:
        model: A model of the checkpoint's architecture, its layers still dense; a bare ``nn.Linear`` is returned
            converted.
        path: Of the file.
        strict: Whether every key must match. Of a checkpoint in several files load each with ``strict=False``;
            the three tensors of a weight have to lie in one.

    Returns:
        The model. Everything is checked before the first layer is replaced, so an error leaves the model as it was.

    Raises:
        ValueError: The file is truncated or damaged, or does not fit the model.
        FileNotFoundError: There is none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"load_bitmask24: there is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            keys = set(file.keys())
            names = sorted(f".{key}".removesuffix(_MARK)[1:] for key in keys if f".{key}".endswith(_MARK))
            parts = {key for name in names for key in bitmask24_keys(name).values()}
            modules = dict(model.named_modules(remove_duplicate=False))
            linears = {name: _linear(path, modules, name) for name in names}
            rest = {key: file.get_tensor(key) for key in sorted(keys - parts)}
            _check_rest(path, model, rest, {f"{name}.weight".lstrip(".") for name in names}, strict)
            packed: dict[int, SparseLinear] = {}
            for name, linear in linears.items():
                packed[id(linear)] = _read(path, file, keys, name, linear, rest)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"load_bitmask24: {path} is not a complete safetensors file ({error}).") from error
    if id(model) in packed:
        return packed[id(model)]
    for name, module in modules.items():
        if id(module) in packed:  # under each of its names
            _replace(model, name, packed[id(module)])
    model.load_state_dict(rest, strict=False)
    return model


def _linear(path: str | os.PathLike[str], modules: dict[str, nn.Module], name: str) -> nn.Linear:
    module = modules.get(name)
    if type(module) is not nn.Linear:
        found = "no module of that name" if module is None else type(module).__name__
        raise ValueError(
            f"load_bitmask24: {path} holds a compressed weight for {name!r}; there the model needs an nn.Linear "
            f"and has {found}. Build the dense model that the checkpoint was made from."
        )
    return module


def _check_rest(
    path: str | os.PathLike[str], model: nn.Module, rest: dict[str, Tensor], replaced: set[str], strict: bool
) -> None:
    """Every tensor fits where it is to go and, if ``strict``, all are there; tied ones need one name only."""
    wanted = model.state_dict(keep_vars=True)
    wrong = [
        f"{key} is {tuple(tensor.shape)}, the model's {tuple(wanted[key].shape)}"
        for key, tensor in rest.items()
        if isinstance(wanted.get(key), Tensor) and wanted[key].shape != tensor.shape
    ]
    if strict:
        given = {id(wanted[key]) for key in wanted if key in rest or key in replaced}
        wrong += [f"{key} is missing" for key, value in wanted.items() if id(value) not in given]
        wrong += [f"{key} is not in the model" for key in rest if key not in wanted]
    if wrong:
        raise ValueError(f"load_bitmask24: {path} does not fit the model: {'; '.join(wrong[:8])}.")


def _read(
    path: str | os.PathLike[str],
    file: Any,
    keys: set[str],
    name: str,
    linear: nn.Linear,
    rest: dict[str, Tensor],
) -> SparseLinear:
    try:
        tensors = {key: file.get_tensor(key) for key in bitmask24_keys(name).values() if key in keys}
        packed = read_bitmask24(tensors, name)
    except ValueError as error:
        raise ValueError(f"load_bitmask24: {path}: {error}") from error
    if packed.shape != (linear.out_features, linear.in_features):
        raise ValueError(
            f"load_bitmask24: {path}, layer {name!r} is {packed.shape[0]} x {packed.shape[1]}, "
            f"the model's is {linear.out_features} x {linear.in_features}."
        )
    bias = None if linear.bias is None else rest.get(f"{name}.bias".lstrip("."), linear.bias)
    layer = SparseLinear.from_packed(packed, bias, trainable=linear.weight.requires_grad)
    return layer.train(linear.training)
