"""Folders of transformers larger than memory: pruned tensor by tensor, file by file, into a folder like it.

``dense`` needs nothing but the files. The packed forms have to know which matrices are linear layers, which the weights
alone do not tell: the architecture that ``config.json`` names is built without memory for its weights and asked.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparsecore.formats.bitmask24 import HELD
from sparsecore.integrations._folders import INDEX, read_json, replaced_folder, weight_files
from sparsecore.patterns import Pattern, pattern_name
from sparsecore.stream import DEFAULT_IGNORE, FORMATS, Pruned, is_target, opened, prune_file

CONFIG = "config.json"


def prune_folder(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    pattern: Pattern,
    *,
    sparsity: float | None = None,
    targets: Sequence[str] = (),
    ignore: Sequence[str] = DEFAULT_IGNORE,
    format: str = "sparsecore",
    advance: Callable[[], object] = lambda: None,
) -> list[Pruned]:
    """Prunes the matrices of a folder by magnitude, holding one tensor at a time.

    Args:
        source: With ``model.safetensors``, or several files and their index; the packed forms also need
            ``config.json`` and transformers.
        target: Made where it does not exist; its files are replaced when all new ones are complete.
        pattern: What is kept together.
        sparsity: Fraction of zeros of each matrix, for patterns that leave it open.
        targets: As in :func:`sparsecore.stream.is_target`.
        ignore: The same. Tied weights, the output head and what is no ``nn.Linear`` stay dense in the packed forms.
        format: ``"sparsecore"`` (packed, for ``from_pretrained`` after ``register()``), ``"dense"`` (exact zeros), or
            ``"sparse-24-bitmask"`` (of compressed-tensors; 2:4 only, two-way or not).
        advance: Called after each tensor.

    Returns:
        What was pruned.

    Raises:
        ValueError: Nothing to prune, a damaged file, a weight that is not finite, or an unknown architecture.
        FileNotFoundError: A file is missing.
        ImportError: transformers is not installed.
    """
    source, target = Path(source), Path(target)
    if format not in FORMATS:
        raise ValueError(f"prune_folder: format must be one of {', '.join(FORMATS)}, got {format!r}.")
    if format == "sparse-24-bitmask" and pattern not in HELD:
        raise ValueError(f"prune_folder: sparse-24-bitmask holds 2:4 only, two-way or not, got {pattern}.")
    files = weight_files("prune_folder", source)
    if format == "dense":
        content, skeleton = {}, None
    else:
        content = read_json("prune_folder", source / CONFIG)
        skeleton = _Skeleton(source)
    chosen = {path: list(_chosen(path, targets, ignore, skeleton)) for path in files}
    if not any(chosen.values()):
        raise ValueError(f"prune_folder: {source} holds no matrix to prune. Use targets and ignore.")
    done: list[Pruned] = []
    with replaced_folder(target) as temporary:
        for path in files:
            if chosen[path]:
                done += prune_file(
                    path,
                    temporary / path.name,
                    pattern,
                    sparsity=sparsity,
                    targets=chosen[path],
                    ignore=(),
                    format=format,
                    advance=advance,
                )
            else:
                shutil.copyfile(path, temporary / path.name)
        for path in source.iterdir():
            if path.is_file() and path.suffix != ".safetensors" and path.name != INDEX:
                shutil.copyfile(path, temporary / path.name)
        if (source / INDEX).is_file():
            _write_index(source, temporary, files)
        if skeleton is not None:
            content.pop("compression_config", None)
            content["quantization_config"] = skeleton.describe(done, pattern, format)
            (temporary / CONFIG).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")
    return done


def _chosen(
    path: Path, targets: Sequence[str], ignore: Sequence[str], skeleton: _Skeleton | None
) -> Iterator[str]:
    with opened("prune_folder", path) as file:
        for key in file.keys():  # noqa: SIM118 (not a dict)
            name = key.removesuffix(".weight")
            named = is_target(key, file.get_slice(key).get_shape(), targets, ignore)
            if named and (skeleton is None or skeleton.has(name, targets)):
                yield name


def _write_index(source: Path, folder: Path, files: Sequence[Path]) -> None:
    """Where each tensor of the new files lies; other entries of the index stay as they were."""
    index = read_json("prune_folder", source / INDEX)
    places: dict[str, str] = {}
    total = 0
    for path in files:
        with opened("prune_folder", folder / path.name) as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                places[key] = path.name
                tensor = file.get_slice(key)
                total += math.prod(tensor.get_shape()) * _BYTES.get(tensor.get_dtype(), 1)
    index["weight_map"] = dict(sorted(places.items()))
    index["metadata"] = {**(index.get("metadata") or {}), "total_size": total}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")


_BYTES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}


class _Skeleton:
    """The architecture of a folder on the meta device: its layers, without their weights.

    Raises:
        ImportError: transformers is not installed.
        ValueError: It does not know the architecture.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import transformers
        except ImportError as error:
            raise ImportError(
                "prune_folder: packed folders need transformers: pip install 'sparsecore[transformers]'. "
                "format='dense' does not."
            ) from error
        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            named = [getattr(transformers, name, None) for name in config.architectures or []]
            known = next((cls for cls in named if cls is not None), None)
            with torch.device("meta"):
                model = transformers.AutoModel.from_config(config) if known is None else known(config)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"prune_folder: transformers does not know the model of {folder / CONFIG} ({error}). "
                "format='dense' does not need to."
            ) from error
        self.model: Any = model
        self.linear = {name: layer for name, layer in model.named_modules() if type(layer) is nn.Linear}
        tied: dict[str, str] = getattr(model, "all_tied_weights_keys", {}) or {}
        self.tied = {key.removesuffix(".weight") for pair in tied.items() for key in pair}
        self.prefix = f"{model.base_model_prefix}."

    def own_name(self, name: str) -> str | None:
        """A layer of a file as this model calls it: files of a bare model lack its prefix, those of a head have it."""
        names = (name, self.prefix + name, name.removeprefix(self.prefix))
        return next((each for each in names if each in self.linear), None)

    def has(self, name: str, targets: Sequence[str]) -> bool:
        """Whether a layer may be packed; the output head only where it is named."""
        own = self.own_name(name)
        if own is None or own in self.tied:
            return False
        return self.linear[own] is not self.model.get_output_embeddings() or name in targets

    def describe(self, done: Sequence[Pruned], pattern: Pattern, format: str) -> dict[str, Any]:
        """The ``quantization_config`` of a folder of packed layers."""
        if format == "sparse-24-bitmask":
            from sparsecore.integrations.compressed_tensors import describe

            zeros = sum(round(each.zeros * each.shape[0] * each.shape[1]) for each in done)
            total = sum(parameter.numel() for parameter in self.model.parameters())
            packed = {self.own_name(each.name) for each in done}
            return describe(zeros / total, [name for name in self.linear if name not in packed])
        from sparsecore.integrations.transformers import SparseCoreConfig

        stated = getattr(self.model.config, "dtype", None)
        layers = {}
        for each in done:
            layers[each.name] = {"pattern": pattern_name(pattern), "layout": each.layout or ""}
            if stated is not None and each.dtype != str(stated).removeprefix("torch."):
                layers[each.name]["dtype"] = each.dtype
        return SparseCoreConfig(layers=layers).to_dict()
