"""Models and batches of the user's own code, named as ``module:name``.

The module is imported, so it runs: name only code you trust. The current folder counts as a place to import from.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

from torch import nn

from sparsecore.io import load

HELP = 'Function that returns the model, as "module:name"; its weights are read from the file.'
DATA_HELP = 'Batches, or a function that returns them, as "module:name".'


def is_name(text: str) -> bool:
    """Whether a text names something in a module, and no file."""
    return ":" in text and not Path(text).exists()


def named(command: str, option: str, text: str) -> Any:
    """What ``module:name`` stands for, called if it can be called.

    Raises:
        ValueError: The text is not of that form, or the module has no such name.
        ImportError: There is no such module.
    """
    module, _, attribute = text.partition(":")
    if not module or not attribute:
        raise ValueError(f'{command}: {option} is "module:name", got {text!r}.')
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f"{command}: {option} {text}: {error}.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{command}: {option} {text}: {module} has no {attribute!r}.")
        found = getattr(found, part)
    return found() if callable(found) and not isinstance(found, nn.Module) else found


def network(command: str, text: str, weights: Path) -> nn.Module:
    """The model in eval mode, with the weights of a file."""
    model = named(command, "--network", text)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{command}: --network {text} gave a {type(model).__name__}, not an nn.Module.")
    return load(model, weights).eval()


def batches(command: str, text: str) -> list[Any]:
    """Calibration batches."""
    found = list(named(command, "--data", text))
    if not found:
        raise ValueError(f"{command}: --data {text} holds no batch.")
    return found
