"""Which layers are pruned: by class name, by exact module name, or by ``re:`` and a regular expression."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn


def matches(name: str, module: nn.Module, rules: Sequence[str]) -> bool:
    """Whether a rule names this module.

    Args:
        name: The module's dotted name.
        module: The module itself.
        rules: Each a class name (``"Linear"``; base classes count), a dotted name, or ``"re:"`` and an
            expression that has to match the whole dotted name.

    Returns:
        True if at least one rule fits.
    """
    classes = {cls.__name__ for cls in type(module).__mro__}
    for rule in rules:
        if rule.startswith("re:"):
            if re.fullmatch(rule[3:], name):
                return True
        elif rule == name or rule in classes:
            return True
    return False


def find_targets(
    model: nn.Module, targets: Sequence[str], ignore: Sequence[str] = ()
) -> dict[str, nn.Linear]:
    """The linear layers that ``targets`` names and ``ignore`` does not, in the model's order.

    Raises:
        ValueError: Nothing is left to prune, or a layer shares its weight with another module.
        TypeError: A rule names a layer that is not ``nn.Linear``.
    """
    named = {
        name: module
        for name, module in model.named_modules()
        if matches(name, module, targets) and not matches(name, module, ignore)
    }
    # An expression may match containers and norms as well: it means the linear layers among them.
    found = {name: module for name, module in named.items() if isinstance(module, nn.Linear)}
    odd = [name for name, module in named.items() if name in targets and not isinstance(module, nn.Linear)]
    if odd:
        raise TypeError(
            f"prune_once: {odd[0]!r} is a {type(named[odd[0]]).__name__}, and only nn.Linear can be pruned. "
            f"Take it out of targets."
        )
    if not found:
        raise ValueError(
            f"prune_once: no nn.Linear matches targets={list(targets)} with ignore={list(ignore)}."
        )
    _refuse_tied_weights(model, found)
    return found


def _refuse_tied_weights(model: nn.Module, found: dict[str, nn.Linear]) -> None:
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    for name, linear in found.items():
        others = [other for other in owners[id(linear.weight)] if other != name]
        if others:
            raise ValueError(
                f"prune_once: the weight of {name!r} is also the weight of {others[0]!r}; pruning one would "
                f"change the other. Add {name!r} to ignore."
            )
