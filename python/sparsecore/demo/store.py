"""Finished parts of the demo on disk, so that a second run continues where the first one ended."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets ``write`` make a file beside ``path`` and moves it there only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    write(partial)
    os.replace(partial, path)


class Store:
    """One JSON file per finished part, in a folder that belongs to one set of settings.

    Args:
        folder: Where parts are kept; made if missing.
        settings: JSON values the parts depend on. Parts of other settings are not seen.
        fresh: Forget what was there.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], fresh: bool = False) -> None:
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        self.folder = folder / digest
        if fresh and self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """The value of a part: read if it was finished before, made and kept otherwise."""
        path = self.folder / f"{name}.json"
        if path.exists():
            return json.loads(path.read_text())
        value = make()
        write_atomically(path, lambda target: target.write_text(json.dumps(value, indent=1)))
        return value
