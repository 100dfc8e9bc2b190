"""Rules that name layers: an exact name, or ``re:`` and an expression for the whole name."""

from __future__ import annotations

import re


def fits(rule: str, name: str) -> bool:
    """Whether a rule names this.

    Raises:
        ValueError: What follows ``re:`` is no regular expression.
    """
    if not rule.startswith("re:"):
        return rule == name
    try:
        return re.fullmatch(rule[3:], name) is not None
    except re.error as error:
        raise ValueError(f"{rule!r} is no regular expression: {error}.") from error
