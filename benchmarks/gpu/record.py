"""The record of a visit: one JSON file, complete after every item, so that a visit may end anywhere and go on later.

    {"dry": false, "commit": "..", "stages": {"timings": {"2:4 bfloat16, 4096 x 4096, 16 tokens": {..}, ..}, ..},
     "running": {"stage": "timings", "item": "..", "since": 1.0e9, "limit": 60} or null}

``running`` is what a process was at when it ended without a word: its supervisor reads there what to give up.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

Result = dict[str, Any]


class Record:
    """A record file. Every change is on disk when the call returns."""

    def __init__(self, path: Path, copy: Path | None = None) -> None:
        """Args:
        path: The file; it need not exist.
        copy: A second place that always holds the same.
        """
        self.path, self.copy = path, copy
        self.data: Result = json.loads(path.read_text("utf-8")) if path.exists() else {}
        self.data.setdefault("stages", {})
        self.data.setdefault("running", None)

    def has(self, stage: str, item: str) -> bool:
        """Whether this item is done, well or not."""
        result = self.data["stages"].get(stage, {}).get(item)
        return result is not None and bool(result.get("complete", True))

    def begin(self, stage: str, item: str, limit: float) -> None:
        """Says what is being done and after how many seconds it counts as hung."""
        self.data["running"] = {"stage": stage, "item": item, "since": time.time(), "limit": limit}
        self.write()

    def put(self, stage: str, item: str, result: Result) -> None:
        """Stores a result and ends the item."""
        self.data["stages"].setdefault(stage, {})[item] = result
        self.data["running"] = None
        self.write()

    def write(self) -> None:
        text = json.dumps(self.data, indent=0)
        for path in filter(None, (self.path, self.copy)):
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".unfinished")
            with unfinished.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
