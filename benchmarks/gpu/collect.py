"""The record of a visit becomes a result file, from which benchmarks/table.py writes its tables."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from .programs import ROOT
from .record import Record

RESULTS = ROOT / "benchmarks" / "results"


def collect(path: Path, results: Path = RESULTS) -> Path:
    """Writes ``gpu_<device>.json``, a row a line; rows of a dry run are never written."""
    if not path.exists():
        sys.exit(
            f"gpu.visit --collect: there is no record {path}. Copy it from the GPU machine, or name another."
        )
    data = Record(path).data
    if data.get("dry", True):
        sys.exit(f"gpu.visit --collect: {path} is the record of a dry run, in which nothing was measured.")
    stages = data["stages"]
    machine = dict(stages.get("machine", {}).get("machine", {}))
    if "gpu" not in machine:
        sys.exit(
            f"gpu.visit --collect: {path} does not say which GPU it was; its stage 'machine' is missing."
        )
    header = {
        **machine,
        "commit": data["commit"],
        "compiler": data["compiler"],
        "command": "python -m benchmarks.gpu.visit --run",
        **{key: data[key] for key in ("left", "left_out", "peers") if data.get(key)},
    }
    rows = [
        {"stage": stage, "item": item, **result}
        for stage, items in stages.items()
        if stage != "machine"
        for item, result in items.items()
    ]
    slug = re.sub(r"[^a-z0-9]+", "_", machine["gpu"].lower()).strip("_")
    results.mkdir(exist_ok=True)
    to = results / f"gpu_{slug}.json"
    body = ",\n  ".join(json.dumps(row) for row in rows)
    to.write_text(
        f'{{"name": "gpu",\n"machine": {json.dumps(header, indent=1)},\n"rows": [\n  {body}\n]}}\n', "utf-8"
    )
    print(f"written: {to}; python benchmarks/table.py renders it")
    return to
