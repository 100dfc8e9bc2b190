"""A progress bar if tqdm is installed and someone is watching; otherwise nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(total: int, title: str, show: bool, unit: str = "layer") -> Iterator[Callable[[], object]]:
    """Yields a function that advances the bar by one."""
    if show:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            show = False
    if not show:
        yield lambda: None
        return
    with tqdm(total=total, desc=title, unit=unit, leave=False) as shown:
        yield shown.update
