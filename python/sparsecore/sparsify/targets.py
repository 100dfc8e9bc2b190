"""Which layers are pruned: by class name, by exact module name, or by ``re:`` and a regular expression."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from sparsecore._rules import fits
from sparsecore._sharding import refuse_sharded


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
    return any(rule in classes or fits(rule, name) for rule in rules)


def find_targets(
    model: nn.Module, targets: Sequence[str], ignore: Sequence[str] = ()
) -> dict[str, nn.Linear]:
    """The linear layers that ``targets`` names and ``ignore`` does not, in the model's order.

    Raises:
        ValueError: Nothing is left to prune, or a layer shares its weight with another module.
        TypeError: A rule names a layer that is not ``nn.Linear``, or weights are spread over processes.
    """
    found = _find("prune_once", model, targets, ignore, (nn.Linear,))
    return {name: module for name, module in found.items() if isinstance(module, nn.Linear)}


def find_trainable(
    model: nn.Module, targets: Sequence[str], ignore: Sequence[str] = ()
) -> dict[str, nn.Module]:
    """The linear layers and convolutions that ``targets`` names; otherwise as :func:`find_targets`."""
    return _find("Sparsifier", model, targets, ignore, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _find(
    owner: str,
    model: nn.Module,
    targets: Sequence[str],
    ignore: Sequence[str],
    kinds: tuple[type[nn.Module], ...],
) -> dict[str, nn.Module]:
    refuse_sharded(owner, model)
    words = " or ".join(f"nn.{kind.__name__}" for kind in kinds)
    named = {
        name: module
        for name, module in model.named_modules()
        if matches(name, module, targets) and not matches(name, module, ignore)
    }
    # An expression may match containers and norms as well: it means the layers among them.
    found = {name: module for name, module in named.items() if isinstance(module, kinds)}
    odd = [name for name, module in named.items() if name in targets and not isinstance(module, kinds)]
    if odd:
        raise TypeError(
            f"{owner}: {odd[0]!r} is a {type(named[odd[0]]).__name__}, and only {words} can be pruned. "
            f"Take it out of targets."
        )
    if not found:
        raise ValueError(f"{owner}: no {words} matches targets={list(targets)} with ignore={list(ignore)}.")
    _refuse_tied_weights(owner, model, found)
    return found


def _refuse_tied_weights(owner: str, model: nn.Module, found: dict[str, nn.Module]) -> None:
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    for name, layer in found.items():
        others = [other for other in owners[id(layer.weight)] if other != name]
        if others:
            raise ValueError(
                f"{owner}: the weight of {name!r} is also the weight of {others[0]!r}; pruning one would "
                f"change the other. Add {name!r} to ignore."
            )
