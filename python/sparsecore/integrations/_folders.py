"""Folders as transformers lays them out: ``config.json`` and safetensors files, one or many with an index."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def read_json(owner: str, path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged or no object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{owner}: there is no file {path}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{owner}: {path} is not readable JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{owner}: {path} must hold an object, got {type(content).__name__}.")
    return content


def weight_files(owner: str, folder: Path) -> list[Path]:
    """The safetensors files of a folder.

    Raises:
        FileNotFoundError: One is missing.
        ValueError: The index is damaged, or names files outside of the folder.
    """
    if (folder / INDEX).is_file():
        places = read_json(owner, folder / INDEX).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
            raise ValueError(f"{owner}: {folder / INDEX} needs a weight_map from tensors to files.")
        names = sorted(set(places.values()))
        if any(Path(name).name != name for name in names):
            raise ValueError(f"{owner}: {folder / INDEX} names files outside of its folder.")
    else:
        names = [WEIGHTS]
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{owner}: there is no file {folder / name}.")
    return [folder / name for name in names]


@contextmanager
def opened(owner: str, files: list[Path]) -> Iterator[dict[str, Any]]:
    """Which open file holds each tensor of a checkpoint; ``found[key].get_tensor(key)`` reads it.

    Raises:
        ValueError: A file is truncated or damaged.
    """
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        for path in files:
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise ValueError(f"{owner}: {path} is not a complete safetensors file ({error}).") from error
            found |= dict.fromkeys(file.keys(), file)
        yield found


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, whose files take the place of those in ``folder`` once all of them are there.

    Weight files of an earlier save that the new one does not replace are removed; other files stay.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        yield temporary
        folder.mkdir(exist_ok=True)
        written = {path.name for path in temporary.iterdir()}
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, folder / path.name)
        for path in (*folder.glob("model-*-of-*.safetensors"), folder / WEIGHTS, folder / INDEX):
            if path.name not in written:
                path.unlink(missing_ok=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
