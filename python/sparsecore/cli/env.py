"""``sparsecore env``: what is installed and which kernels this machine runs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from sparsecore.cli._common import emit, reported, table
from sparsecore.env import backends, collect_env


def env(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Shows versions, the processor and every kernel; put it into a bug report.

    Example: sparsecore env
    """
    with reported():
        facts = collect_env()
        rows = [asdict(backend) for backend in backends()]

    def show(console: Console) -> None:
        console.print(facts, markup=False, highlight=False)
        head = ("operator", "kernel", "instructions", "weights", "usable")
        body = [
            (row["op"], row["kernel"], row["isa"], row["weights"], "yes" if row["usable"] else "no")
            for row in rows
        ]
        console.print(table(head, body, left=5))

    emit({"facts": facts.splitlines(), "backends": rows}, as_json, show)
