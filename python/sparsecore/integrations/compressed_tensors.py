"""Checkpoints of compressed-tensors' ``sparse-24-bitmask``: one file into any model, whole folders in and out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sparsecore.convert import _replace
from sparsecore.formats.bitmask24 import bitmask24_keys, read_bitmask24, write_bitmask24
from sparsecore.integrations._folders import opened, read_json, replaced_folder, weight_files
from sparsecore.nn.linear import SparseLinear

FORMAT = "sparse-24-bitmask"
VERSION = "0.12.2"  # the release of compressed-tensors whose files these are
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


def load_folder(folder: str | os.PathLike[str], auto_class: Any = None, **options: Any) -> Any:
    """A transformers model from a folder whose weights compressed-tensors stored as ``sparse-24-bitmask``.

    Each compressed weight becomes a :class:`~sparsecore.nn.SparseLinear`; the rest is loaded by transformers.

    Args:
        folder: With ``config.json`` and one safetensors file, or several and their index.
        auto_class: For example ``transformers.AutoModelForCausalLM``; None: the class that ``config.json`` names.
        options: For ``from_pretrained``: ``dtype``, ``attn_implementation``, ...

    Returns:
        The model in eval mode. ``model.save_pretrained`` stores it in our own form, :func:`save_folder` in this one.

    Raises:
        ValueError: The folder is of another format, quantised as well, or damaged; the message names the layer.
        FileNotFoundError: A file is missing.
        ImportError: transformers is not installed.
    """
    from sparsecore.integrations.transformers import SparseCoreConfig, register

    folder = Path(folder)
    import transformers  # after ours, whose error says how to install it

    content = read_json("load_folder", folder / "config.json")
    _check_block(folder, content)
    register()
    state: dict[str, Tensor] = {}
    layers: dict[str, dict[str, str]] = {}
    with opened("load_folder", weight_files("load_folder", folder)) as files:
        names = sorted(f".{key}".removesuffix(_MARK)[1:] for key in files if f".{key}".endswith(_MARK))
        parts = {name: [key for key in bitmask24_keys(name).values() if key in files] for name in names}
        for name, keys in parts.items():
            try:
                packed = read_bitmask24({key: files[key].get_tensor(key) for key in keys}, name)
            except ValueError as error:
                raise ValueError(f"load_folder: {folder}: {error}") from error
            layer = SparseLinear.from_packed(packed).state_dict()
            state |= {f"{name}.{key}": tensor for key, tensor in layer.items()}
            layers[name] = {"pattern": "2:4", "layout": packed.layout}
        taken = {key for keys in parts.values() for key in keys}
        state |= {key: file.get_tensor(key) for key, file in files.items() if key not in taken}
    if not layers:
        raise ValueError(
            f"load_folder: {folder} holds no .bitmask tensors. Use from_pretrained for dense folders."
        )
    if auto_class is None:
        name = next(iter(content.get("architectures") or ["none"]))
        auto_class = getattr(transformers, name, None)
        if auto_class is None:
            raise ValueError(
                f"load_folder: transformers has no architecture {name!r}, which {folder / 'config.json'} names. "
                "Pass auto_class=transformers.AutoModel or the like."
            )
    config = transformers.AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    if hasattr(auto_class, "from_config"):
        with torch.device("meta"):
            auto_class = type(auto_class.from_config(config))
    config.quantization_config = SparseCoreConfig("2:4", layers=layers).to_dict()
    model = auto_class.from_pretrained(None, config=config, state_dict=state, **options)
    if (folder / "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    return model


def _check_block(folder: Path, content: dict[str, Any]) -> None:
    """That ``config.json`` speaks of this format and of no quantisation beside it."""
    block = content.get("quantization_config") or content.get("compression_config") or {}
    sparsity = block.get("sparsity_config") or content.get("sparsity_config") or {}
    found = sparsity.get("format") or block.get("format")
    method = block.get("quant_method", "compressed-tensors")
    if method != "compressed-tensors" or found != FORMAT:
        raise ValueError(
            f"load_folder: {folder / 'config.json'} needs a quantization_config of compressed-tensors with "
            f"sparsity_config.format {FORMAT!r}, got {method!r} with {found!r}."
        )
    groups = block.get("config_groups") or {}
    quantised = [name for name, group in groups.items() if (group or {}).get("weights")]
    if quantised or block.get("transform_config"):
        raise ValueError(
            f"load_folder: {folder} is quantised or transformed beside its sparsity "
            f"({quantised[0] if quantised else 'transform_config'}). Decompress it with compressed-tensors, save it "
            "dense and load that with SparseCoreConfig('2:4')."
        )


def describe(sparsity: float, ignore: Sequence[str]) -> dict[str, Any]:
    """The ``quantization_config`` of a ``sparse-24-bitmask`` folder.

    Args:
        sparsity: Fraction of zeros over all parameters.
        ignore: Linear layers that are dense.
    """
    return {
        "quant_method": "compressed-tensors",
        "version": VERSION,
        "sparsity_config": {
            "format": FORMAT,
            "global_sparsity": round(sparsity, 6),
            "ignore": list(ignore),
            "registry_requires_subclass": False,
            "sparsity_structure": "2:4",
            "targets": ["Linear"],
        },
        "transform_config": {},
    }


def save_folder(model: Any, folder: str | os.PathLike[str], *, max_shard_size: int | str = "50GB") -> None:
    """Writes a transformers model with packed 2:4 layers as a ``sparse-24-bitmask`` folder.

    Dense layers are written dense. The files are written beside the folder and moved in when all are complete.

    Args:
        model: With layers that :func:`sparsecore.sparsify_`, ``from_pretrained`` or :func:`load_folder` packed.
        folder: Made where it does not exist.
        max_shard_size: As of ``save_pretrained``.

    Raises:
        ValueError: No packed layer, one that keeps more than 2 of 4, int8 values or a fused activation.
        TypeError: It is no transformers model.
    """
    from sparsecore.integrations.transformers import attach

    if not hasattr(model, "save_pretrained"):
        raise TypeError(f"save_folder: needs a transformers model, got {type(model).__name__}.")
    state: dict[str, Tensor] = dict(model.state_dict())
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, SparseLinear)}
    zeros = 0
    for name, layer in layers.items():
        if layer.activation != "none":
            raise ValueError(
                f"save_folder: layer {name!r} has the fused activation {layer.activation!r}, which the format cannot "
                "hold. Set layer.activation = 'none' and put the activation back into the model first."
            )
        for key in [key for key in state if key.startswith((f"{name}.weight_", f"{name}._extra_state"))]:
            del state[key]
        try:
            state |= write_bitmask24(layer.weight, name)
        except ValueError as error:
            raise ValueError(f"save_folder: {error}") from error
        zeros += layer.in_features * layer.out_features - layer.weight.stored
    attach(model)  # also refuses models without a packed layer
    total = zeros + sum(parameter.numel() for parameter in model.parameters())
    ignore = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    block = describe(zeros / total, ignore)
    quantizer, ours = model.hf_quantizer, model.config.quantization_config
    model.hf_quantizer, model.config.quantization_config = None, block
    try:
        with replaced_folder(Path(folder)) as temporary:
            model.save_pretrained(temporary, state_dict=state, max_shard_size=max_shard_size)
    finally:
        model.hf_quantizer, model.config.quantization_config = quantizer, ours
