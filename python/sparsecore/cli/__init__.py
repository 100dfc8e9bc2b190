"""The command line: ``sparsecore env | inspect | advise | prune | bench | demo``."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Runs the command line, or says in a sentence what it lacks."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"sparsecore: the command line needs {' and '.join(missing)}: pip install 'sparsecore[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(2)
    from sparsecore.cli.app import run

    run()
