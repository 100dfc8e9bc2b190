"""Checkpoints larger than memory: safetensors files read, pruned and written one tensor at a time.

A safetensors file begins with a header that says where every tensor lies, so all sizes have to be known before the
first byte is written. Tensors therefore go to one spool file per element size first, largest elements in front so that
all are aligned in the end, and are copied behind the header when it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sparsecore._rules import fits
from sparsecore.formats.bitmask24 import HELD, write_bitmask24
from sparsecore.formats.pack import pack
from sparsecore.formats.select import select_mask
from sparsecore.nn.linear import SparseLinear
from sparsecore.patterns import Pattern, pattern_name

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_PRUNED = ("F64", "F32", "F16", "BF16")
FORMATS = ("sparsecore", "dense", "sparse-24-bitmask")
# Matrices that are looked up or stand at the end of a model lose more than they save.
DEFAULT_IGNORE = (r"re:(.*\.)?(\w*embed\w*|emb|wte|wpe|lm_head|classifier|\w*norm\w*|ln_\w+)(\..*)?",)


@contextmanager
def opened(owner: str, path: Path) -> Iterator[Any]:
    """A safetensors file, checked by its own library.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is truncated or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{owner}: there is no file {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{owner}: {path} is not a complete safetensors file ({error}).") from error


class Writer:
    """Writes a safetensors file tensor by tensor; it appears under its name when complete, or not at all.

    Args:
        path: Of the file.
        metadata: Strings for the header.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.metadata = {"format": "pt", **(metadata or {})}
        self._folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        self._spools: dict[int, IO[bytes]] = {}
        self._entries: dict[
            str, tuple[str, list[int], int, int, int]
        ] = {}  # dtype, shape, element, start, bytes

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for spool in self._spools.values():
                spool.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, name: str, tensor: Tensor) -> None:
        """Appends a tensor.

        Raises:
            ValueError: The name is taken, or the dtype has no name in safetensors files.
        """
        if name in self._entries or name == "__metadata__":
            raise ValueError(f"Writer: the file already has a tensor {name!r}.")
        if tensor.dtype not in _NAMES:
            raise ValueError(f"Writer: {name!r} is {tensor.dtype}, which this release does not write.")
        size = tensor.element_size()
        if size not in self._spools:
            self._spools[size] = open(self._folder / f"{size}.spool", "w+b")  # noqa: SIM115 (closed on exit)
        spool = self._spools[size]
        start = spool.tell()
        tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tofile(spool)
        self._entries[name] = (_NAMES[tensor.dtype], list(tensor.shape), size, start, tensor.nbytes)

    def _finish(self) -> None:
        sizes = sorted(self._spools, reverse=True)
        base, offset = {}, 0
        for size in sizes:
            base[size] = offset
            offset += self._spools[size].tell()
        header: dict[str, Any] = {"__metadata__": self.metadata}
        for name, (dtype, shape, size, start, count) in self._entries.items():
            begin = base[size] + start
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + count]}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        whole = self._folder / "whole"
        with open(whole, "wb") as target:
            target.write(len(text).to_bytes(8, "little") + text)
            for size in sizes:
                self._spools[size].seek(0)
                shutil.copyfileobj(self._spools[size], target, 1 << 24)
        os.chmod(whole, 0o666 & ~_umask())
        os.replace(whole, self.path)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def is_target(name: str, shape: Sequence[int], targets: Sequence[str], ignore: Sequence[str]) -> bool:
    """Whether a tensor of a checkpoint is the weight of a layer to prune.

    Args:
        name: Of the tensor.
        shape: Of the tensor; only matrices are pruned.
        targets: Layer names, or ``"re:"`` and an expression for the whole name; empty: all.
        ignore: The same, for layers to leave alone.
    """
    if not name.endswith(".weight") or len(shape) != 2:
        return False
    layer = name.removesuffix(".weight")

    def named(rules: Sequence[str]) -> bool:
        return any(fits(rule, layer) for rule in rules)

    return (not targets or named(targets)) and not named(ignore)


@dataclass(frozen=True)
class Pruned:
    """One pruned weight.

    Attributes:
        name: Of the layer.
        shape: ``(out, in)``.
        zeros: Fraction of zeros now.
        dense_bytes: Before.
        nbytes: As it was written.
        dtype: Of the kept values.
        layout: Of the packed weight; None where it was written in another form.
    """

    name: str
    shape: tuple[int, int]
    zeros: float
    dense_bytes: int
    nbytes: int
    dtype: str
    layout: str | None = None


def prune_file(
    source: Path,
    target: Path,
    pattern: Pattern,
    *,
    sparsity: float | None = None,
    targets: Sequence[str] = (),
    ignore: Sequence[str] = DEFAULT_IGNORE,
    format: str = "sparsecore",
    advance: Callable[[], object] = lambda: None,
) -> list[Pruned]:
    """Prunes the matrices of a safetensors file by magnitude, holding one tensor at a time.

    Tensors of integers and of 8-bit floating types are copied as they are.

    Args:
        source: File to read.
        target: File to write; replaced when the new one is complete.
        pattern: What is kept together.
        sparsity: Fraction of zeros of each matrix, for patterns that leave it open.
        targets: As in :func:`is_target`.
        ignore: As in :func:`is_target`.
        format: ``"sparsecore"`` (packed, for ``sparsecore.load``), ``"dense"`` (exact zeros), or
            ``"sparse-24-bitmask"`` (of compressed-tensors; 2:4 only, two-way or not).
        advance: Called after each tensor.

    Returns:
        What was pruned.

    Raises:
        ValueError: Nothing to prune, a damaged file, or a weight that is not finite.
    """
    if format not in FORMATS:
        raise ValueError(f"prune_file: format must be one of {', '.join(FORMATS)}, got {format!r}.")
    if format == "sparse-24-bitmask" and pattern not in HELD:
        raise ValueError(f"prune_file: sparse-24-bitmask holds 2:4 only, two-way or not, got {pattern}.")
    done: list[Pruned] = []
    with opened("prune_file", source) as file:
        names = list(file.keys())
        slices = {name: file.get_slice(name) for name in names}
        chosen = [
            name
            for name, part in slices.items()
            if part.get_dtype() in _PRUNED and is_target(name, part.get_shape(), targets, ignore)
        ]
        if not chosen:
            raise ValueError(
                f"prune_file: {source} holds no matrix to prune among {len(names)} tensors. Name layers in targets, or "
                f"take them out of ignore."
            )
        packed = {f"sparsecore.layer.{n.removesuffix('.weight')}": pattern_name(pattern) for n in chosen}
        metadata = {"sparsecore": "1", **packed} if format == "sparsecore" else {}
        with Writer(target, metadata) as writer:
            for name in names:
                tensor = file.get_tensor(name)
                if name not in chosen:
                    writer.add(name, tensor)
                else:
                    try:
                        done.append(_write_pruned(writer, name, tensor, pattern, sparsity, format))
                    except ValueError as error:
                        raise ValueError(f"prune_file: {name!r}: {error}") from error
                advance()
    return done


def _write_pruned(
    writer: Writer, name: str, weight: Tensor, pattern: Pattern, sparsity: float | None, format: str
) -> Pruned:
    if not torch.isfinite(weight).all():
        raise ValueError("it is not finite everywhere; the checkpoint is damaged.")
    mask = select_mask(weight.float().abs(), pattern, sparsity)
    layer = name.removesuffix(".weight")
    layout = None
    if format == "dense":
        parts = {name: weight.masked_fill(~mask, 0.0)}
    elif format == "sparse-24-bitmask":
        parts = write_bitmask24(pack(weight, pattern, mask), name)
    else:
        packed = pack(weight, pattern, mask)
        layout = packed.layout
        state = SparseLinear.from_packed(packed).state_dict()
        parts = {f"{layer}.{key}": value for key, value in state.items()}
    for key, value in parts.items():
        writer.add(key, value)
    zeros = 1.0 - float(mask.float().mean()) if mask.numel() else 0.0
    size = sum(value.nbytes for value in parts.values())
    dtype = str(weight.dtype).removeprefix("torch.")
    return Pruned(layer, (weight.shape[0], weight.shape[1]), zeros, weight.nbytes, size, dtype, layout)
