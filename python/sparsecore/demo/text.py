"""Real English without a download: the docstrings of Python's standard library."""

from __future__ import annotations

import ast
import random
import sysconfig
from pathlib import Path

# Installed packages and test suites are not the library; the others are programs or their generated data.
_LEFT_OUT = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "__pycache__",
}
_SHORTEST = 80  # characters; below that a docstring is a stub


def docstrings(root: Path | None = None) -> list[str]:
    """Every distinct docstring of at least 80 characters, shuffled with a fixed seed.

    Args:
        root: Folder to read; the standard library of the running interpreter by default.

    Returns:
        The texts. Their number depends on the version of Python.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, None] = {}
    for path in sorted(root.rglob("*.py")):
        if _LEFT_OUT & set(path.relative_to(root).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text and len(text) >= _SHORTEST:
                    found[text] = None
    texts = list(found)
    random.Random(0).shuffle(texts)
    return texts


def split(texts: list[str], held_out: int, calibration: int) -> tuple[list[str], list[str]]:
    """``(held_out, calibration)``: disjoint, both from the front of the shuffled list.

    Raises:
        ValueError: There are not enough texts.
    """
    if len(texts) < held_out + calibration:
        raise ValueError(
            f"demo: found {len(texts)} docstrings, and {held_out} + {calibration} are needed. Ask for fewer."
        )
    return texts[:held_out], texts[held_out : held_out + calibration]
