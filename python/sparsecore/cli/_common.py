"""What the commands share: where text goes, and how they end.

Results go to standard output, as a table or, with ``--json``, as one JSON document and nothing else. Progress and
messages go to standard error. Exit codes: 0 done, 1 the work failed or a check did not hold, 2 wrong usage or input
that cannot be read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

FAILED, UNUSABLE = 1, 2


def fail(message: str, code: int = UNUSABLE) -> NoReturn:
    """Ends the command with a message on standard error."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
    console.print(f"sparsecore: {message}")
    raise typer.Exit(code)


@contextmanager
def reported(code: int = UNUSABLE) -> Iterator[None]:
    """Mistakes of the user become a message and an exit code; other errors stay errors of ours."""
    try:
        yield
    except (
        ValueError,
        TypeError,
        FileNotFoundError,
        PermissionError,
        IsADirectoryError,
        ImportError,
    ) as error:
        fail(str(error), code)
    except OSError as error:
        fail(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), FAILED)


def emit(document: Any, as_json: bool, show: Callable[[Console], object]) -> None:
    """Prints the result one way or the other."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        # Names of the user are shown as they are: "[0]" is no style and ":x:" no picture.
        width = None if sys.stdout.isatty() else 240
        show(Console(width=width, markup=False, emoji=False))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Table:
    """A plain table, the first ``left`` columns to the left and the others to the right."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(head):
        found.add_column(name, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        found.add_row(*row)
    return found


def watched() -> bool:
    """Whether someone looks at standard error, so that a progress bar makes sense."""
    return sys.stderr.isatty()
