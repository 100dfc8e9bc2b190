"""The record of a visit: one JSON file, complete after every item, so that a visit may end anywhere and go on later.

    {"dry": false, "commit": "..", "stages": {"timings": {"2:4 bfloat16, 4096 x 4096, 16 tokens": {..}, ..}, ..},
     "strikes": {"V:N:M": 1, "peer cuSPARSELt": 1}, "left": {"timings": {"items": 12, "seconds": 9.0}},
     "left_out": {"timings": {"V:N:M": 12}}}

Beside it lies what is being done, in a small file of its own:

    {"stage": "timings", "item": "..", "group": "V:N:M", "at": "peer cuSPARSELt", "since": 1.0e9, "limit": 60}

That is what a process was at when it ended without a word: its supervisor reads there whom to blame.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

Result = dict[str, Any]
BETWEEN_SYNCS = 1.0  # seconds; what a process that is killed has written is never lost, whatever this is


def read(path: Path, copy: Path | None) -> Result:
    """What a record holds. A damaged one is put aside, and its copy is read."""
    if not path.exists():
        return {}
    for source in filter(None, (path, copy)):
        try:
            found = json.loads(source.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    path.replace(path.with_suffix(".damaged"))
    return {}


def replace(path: Path, text: str, sync: bool) -> None:
    """Writes a file that is whole at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    unfinished.replace(path)


class Record:
    """A record file. A result is in the file when :meth:`put` returns."""

    def __init__(self, path: Path, copy: Path | None = None) -> None:
        """Args:
        path: The file; it need not exist.
        copy: A second place that always holds the same.
        """
        self.path, self.copy = path, copy
        self.data = read(path, copy)
        for key in ("stages", "strikes", "left", "left_out"):
            self.data.setdefault(key, {})
        self._synced = 0.0

    def has(self, stage: str, item: str) -> bool:
        """Whether this item is done, well or not."""
        result = self.data["stages"].get(stage, {}).get(item)
        return result is not None and bool(result.get("complete", True))

    def expected(self, stage: str, group: str, otherwise: float) -> float:
        """Seconds of an item of a group: the mean of those that are done."""
        items = self.data["stages"].get(stage, {}).values()
        seconds = [
            result["seconds"] for result in items if result.get("group") == group and "seconds" in result
        ]
        return sum(seconds) / len(seconds) if len(seconds) >= 3 else otherwise

    def begin(self, stage: str, item: str, limit: float, group: str = "") -> None:
        """Says what is being done and after how many seconds it counts as hung."""
        self._running: Result = {"stage": stage, "item": item, "group": group, "at": "", "limit": limit}
        self.at("")

    def at(self, part: str) -> None:
        """Says which part of the item is being done. Its time begins anew."""
        self._running |= {"at": part, "since": time.time()}
        replace(running_file(self.path), json.dumps(self._running), sync=False)

    def put(self, stage: str, item: str, result: Result) -> None:
        """Stores a result and ends the item."""
        self.data["stages"].setdefault(stage, {})[item] = result
        self.write()
        self.end()

    def strike(self, whom: str) -> None:
        """One more hang or crash of a group of items, or of a peer."""
        self.data["strikes"][whom] = self.data["strikes"].get(whom, 0) + 1
        self.write()

    def end(self) -> None:
        """Nothing is being done."""
        running_file(self.path).unlink(missing_ok=True)

    def write(self) -> None:
        text = json.dumps(self.data, indent=0)
        now = time.monotonic()
        sync = now - self._synced > BETWEEN_SYNCS
        for path in filter(None, (self.path, self.copy)):
            replace(path, text, sync)
        if sync:
            self._synced = now


def running_file(path: Path) -> Path:
    """Of the record at ``path``: what is being done."""
    return path.with_suffix(".running")


def running(path: Path) -> Result | None:
    """What is being done, of the record at ``path``."""
    try:
        return json.loads(running_file(path).read_text("utf-8"))
    except (OSError, ValueError):
        return None
