"""How the budget of zeros is split over layers.

Counts are exact: over all layers ``round((1 - sparsity) * units)`` units stay, by largest remainders where shares have
to be rounded, and no layer loses its last unit while another has more than one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from sparsecore._rules import fits
from sparsecore.formats.select import top_mask

Scope = Literal["row", "block", "layer"]
log = logging.getLogger("sparsecore")


@dataclass(frozen=True)
class Layer:
    """What an allocation needs to know of a layer.

    Attributes:
        shape: Of the weight, ``(out, in)`` or ``(out, in, *kernel)``.
        units: Weights or groups that are kept or dropped together.
        legal: Unit counts the pattern allows, or None: any.
    """

    shape: tuple[int, ...]
    units: int
    legal: tuple[int, ...] | None = None


class Allocation(Protocol):
    """Splits a budget of zeros over layers."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    requires: ClassVar[frozenset[str]]  # of {"score", "norm"}: what it compares layers by, if by anything

    @property
    def sparsity(self) -> float | None:
        """Fraction of zeros over all layers; None where the pattern fixes it."""
        ...

    @property
    def within(self) -> Scope:
        """What competes inside a layer."""
        ...

    def kept(self, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """Units kept of each layer."""
        ...


@dataclass(frozen=True)
class Uniform:
    """Every layer gets the same sparsity.

    Attributes:
        sparsity: Fraction of zeros in ``[0, 1)``; None where the pattern itself fixes it (N:M).
        within: What competes for the budget inside a layer: each ``row`` (of groups, for ``Group``) on its
            own, all rows of a ``block`` of neighbouring columns, or the whole ``layer``. N:M groups always
            compete alone.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    sparsity: float | None = None
    within: Scope = "row"

    def __post_init__(self) -> None:
        if self.sparsity is not None and not 0.0 <= self.sparsity < 1.0:
            raise ValueError(f"Uniform: sparsity is the fraction of zeros in [0, 1), got {self.sparsity}.")
        if self.within not in ("row", "block", "layer"):
            raise ValueError(f"Uniform: within must be 'row', 'block' or 'layer', got {self.within!r}.")

    def kept(self, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """The same share of each layer's units."""
        if self.sparsity is None:
            raise ValueError("Uniform: sparsity is None, so the pattern has to say how much is kept.")
        return {name: round((1.0 - self.sparsity) * layer.units) for name, layer in layers.items()}


def _check(owner: object, sparsity: float | None, within: str) -> None:
    name = type(owner).__name__
    if sparsity is None or not 0.0 <= sparsity < 1.0:
        raise ValueError(
            f"{name}: sparsity is the fraction of zeros over all layers in [0, 1), got {sparsity}."
        )
    if within not in ("row", "layer"):
        raise ValueError(f"{name}: within must be 'row' or 'layer', got {within!r}.")


def apportion(shares: Mapping[str, float], layers: Mapping[str, Layer], sparsity: float) -> dict[str, int]:
    """Counts near ``shares[name] * units`` that sum to ``round((1 - sparsity) * total)`` exactly.

    Shares are first cut to ``[0, 1]``; what is missing or too much is spread by largest remainders, then, where shares
    were cut, in proportion to the room left. Ties go to the layer named first.
    """
    total = round((1.0 - sparsity) * sum(layer.units for layer in layers.values()))
    wanted = {name: min(max(shares[name], 0.0), 1.0) * layer.units for name, layer in layers.items()}
    kept = {name: math.floor(value) for name, value in wanted.items()}
    order = sorted(layers, key=lambda name: kept[name] - wanted[name])  # stable: largest remainder first
    missing = total - sum(kept.values())
    for name in order:
        if missing > 0 and kept[name] < layers[name].units and wanted[name] > kept[name]:
            kept[name] += 1
            missing -= 1
    _spread(kept, layers, total)
    _rescue(kept, layers)
    return kept


def _spread(kept: dict[str, int], layers: Mapping[str, Layer], total: int) -> None:
    """Gives or takes what the sum lacks, in proportion to what a layer can take or give."""
    while (missing := total - sum(kept.values())) != 0:
        room = {
            name: layer.units - kept[name] if missing > 0 else max(kept[name] - 1, 0)
            for name, layer in layers.items()
        }
        whole = sum(room.values())
        if whole == 0:
            return
        step = 1 if missing > 0 else -1
        amount = min(abs(missing), whole)
        for name, free in room.items():
            kept[name] += step * (amount * free // whole)
        rest = abs(total - sum(kept.values()))
        for name, free in sorted(room.items(), key=lambda item: -item[1]):
            if rest and free > amount * free // whole:
                kept[name] += step
                rest -= 1


def _rescue(kept: dict[str, int], layers: Mapping[str, Layer]) -> None:
    """Moves single units from the richest layers to those that were left with none."""
    for name, layer in layers.items():
        if layer.units and not kept[name]:
            richest = max(kept, key=lambda other: kept[other])
            if kept[richest] < 2:
                log.warning("the budget is too small: %s keeps nothing", name)
                continue
            kept[name], kept[richest] = 1, kept[richest] - 1
            log.warning("the budget of %s rounds to nothing; it keeps a single unit", name)


def _inputs_outputs(layer: Layer) -> tuple[int, int]:
    return layer.shape[1] if len(layer.shape) > 1 else 1, layer.shape[0]


def _random_graph_shares(
    raw: Mapping[str, float], layers: Mapping[str, Layer], sparsity: float, dense: set[str]
) -> dict[str, float]:
    """``eps * raw`` with the one eps that meets the budget; layers above 1 become dense and eps is solved again."""
    density, dense = 1.0 - sparsity, set(dense)
    while True:
        free = [name for name in layers if name not in dense]
        if not free:
            return dict.fromkeys(layers, 1.0)
        budget = density * sum(layers[name].units for name in free)
        budget -= (1.0 - density) * sum(layers[name].units for name in dense)
        eps = budget / sum(raw[name] * layers[name].units for name in free)
        largest = max(raw[name] for name in free)
        if eps * largest <= 1.0:
            return {name: 1.0 if name in dense else max(eps * raw[name], 0.0) for name in layers}
        dense |= {name for name in free if raw[name] == largest}


@dataclass(frozen=True)
class UniformPlus:
    """Uniform, but the first layer stays dense and the last keeps at least a fifth (Gale et al. 2019)."""

    requires: ClassVar[frozenset[str]] = frozenset()

    sparsity: float
    within: Scope = "layer"
    last_density: float = 0.2

    def __post_init__(self) -> None:
        _check(self, self.sparsity, self.within)

    def kept(self, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """Units kept of each layer."""
        names = list(layers)
        total = sum(layer.units for layer in layers.values())
        fixed = {names[0]: 1.0} if len(names) > 1 else {}
        if len(names) > 1 and 1.0 - self.sparsity < self.last_density:
            fixed[names[-1]] = self.last_density
        spent = sum(fixed[name] * layers[name].units for name in fixed)
        rest = sum(layers[name].units for name in names if name not in fixed)
        share = ((1.0 - self.sparsity) * total - spent) / max(rest, 1)
        if share < 0.0 and len(names) > 1:
            raise ValueError(
                f"UniformPlus: a dense first layer alone takes more than {1.0 - self.sparsity:.3g} of all units. Use "
                f"Uniform or ERK, or ignore the first layer."
            )
        return apportion({name: fixed.get(name, share) for name in names}, layers, self.sparsity)


@dataclass(frozen=True)
class ER:
    """Density in proportion to ``(in + out) / (in * out)``: every neuron has about as many connections (SET)."""

    requires: ClassVar[frozenset[str]] = frozenset()

    sparsity: float
    within: Scope = "layer"

    def __post_init__(self) -> None:
        _check(self, self.sparsity, self.within)

    def kept(self, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """Units kept of each layer."""
        raw = {
            name: sum(_inputs_outputs(layer)) / math.prod(_inputs_outputs(layer))
            for name, layer in layers.items()
        }
        return apportion(_random_graph_shares(raw, layers, self.sparsity, set()), layers, self.sparsity)


@dataclass(frozen=True)
class ERK:
    """Density in proportion to ``(sum(shape) / prod(shape)) ** power``, kernels included (RigL).

    Attributes:
        sparsity: Over all layers.
        within: What competes inside a layer.
        power: 1 is the published rule, 0 is uniform.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    sparsity: float
    within: Scope = "layer"
    power: float = 1.0

    def __post_init__(self) -> None:
        _check(self, self.sparsity, self.within)

    def kept(self, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """Units kept of each layer."""
        raw = {
            name: (sum(layer.shape) / math.prod(layer.shape)) ** self.power for name, layer in layers.items()
        }
        return apportion(_random_graph_shares(raw, layers, self.sparsity, set()), layers, self.sparsity)


@dataclass(frozen=True)
class ERKPlus:
    """ERK over all layers but the last, which keeps ``last_density`` (Liu et al. 2022); the total is unchanged."""

    requires: ClassVar[frozenset[str]] = frozenset()

    sparsity: float
    within: Scope = "layer"
    last_density: float = 1.0

    def __post_init__(self) -> None:
        _check(self, self.sparsity, self.within)
        if not 0.0 < self.last_density <= 1.0:
            raise ValueError(f"ERKPlus: last_density must be in (0, 1], got {self.last_density}.")

    def kept(self, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """Units kept of each layer."""
        last = list(layers)[-1]
        rest = {name: layer for name, layer in layers.items() if name != last}
        units = sum(layer.units for layer in layers.values())
        last_units = round(self.last_density * layers[last].units)
        budget = round((1.0 - self.sparsity) * units) - last_units
        others = sum(layer.units for layer in rest.values())
        if budget < 0:
            raise ValueError(
                f"ERKPlus: the last layer alone takes more than {1.0 - self.sparsity:.3g} of all units. Lower "
                f"last_density or use ERK."
            )
        found = (
            ERK(1.0 - budget / others).kept(rest)
            if rest and budget < others
            else {name: layer.units for name, layer in rest.items()}
        )
        return {name: last_units if name == last else found[name] for name in layers}


@dataclass(frozen=True)
class Global:
    """One threshold on the score over all layers: each keeps what is above it.

    A layer that would lose everything keeps its best unit. Ties go to the layer named first.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"score"})

    sparsity: float
    within: Scope = "layer"

    def __post_init__(self) -> None:
        _check(self, self.sparsity, self.within)

    def kept(self, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """Units kept of each layer."""
        return _global_counts(self, layers, scores)


def _global_counts(
    owner: Any, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None
) -> dict[str, int]:
    if scores is None:
        raise ValueError(f"{type(owner).__name__}: needs the scores of the layers.")
    flat = torch.cat([scores[name].flatten().double() for name in layers])
    chosen = top_mask(flat, round((1.0 - owner.sparsity) * len(flat)))
    parts = chosen.split([scores[name].numel() for name in layers])
    kept = {name: int(part.sum()) for name, part in zip(layers, parts, strict=True)}
    _rescue(kept, layers)
    return kept


@dataclass(frozen=True)
class LAMP:
    """One threshold on each score divided by the sum of all scores of its layer that are not below it.

    With squared magnitudes as the score this is layer-adaptive magnitude pruning (Lee et al. 2021): scaling a layer
    changes nothing, and the best unit of every layer scores 1, so that none is emptied.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"score"})

    sparsity: float
    within: Scope = "layer"

    def __post_init__(self) -> None:
        _check(self, self.sparsity, self.within)

    def kept(self, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """Units kept of each layer."""
        adapted = {name: lamp_scores(score) for name, score in (scores or {}).items()}
        return _global_counts(self, layers, adapted if scores is not None else None)


def lamp_scores(score: Tensor) -> Tensor:
    """``s_u / sum of s_v over all v that do not score below u``, in float64, in the shape of ``score``."""
    flat = score.double().flatten()
    if not flat.numel():
        return flat.view_as(score)
    # Of equal scores the one with the lowest index is to stay, so it counts as the larger.
    ascending, order = flat.flip(0).sort(stable=True)
    above = ascending.flip(0).cumsum(0).flip(0)
    found = torch.empty_like(flat)
    found[order] = ascending / above.clamp_min(torch.finfo(torch.float64).tiny)
    return found.flip(0).view_as(score)


@dataclass(frozen=True)
class OWL:
    """Layers with many outliers keep more (Yin et al. 2023, Outlier weighed layerwise sparsity).

    An outlier is a weight whose ``|w| * norm(x)`` exceeds ``factor`` times its layer's mean. Shares of outliers are
    scaled to ``[0, 2 spread]`` and centred, so that densities lie within ``spread`` of the target.

    Attributes:
        sparsity: Over all layers.
        within: What competes inside a layer.
        factor: How far above the mean an outlier lies.
        spread: Largest deviation of a layer's density.
    """

    requires: ClassVar[frozenset[str]] = frozenset({"score", "norm"})

    sparsity: float
    within: Scope = "layer"
    factor: float = 5.0
    spread: float = 0.08

    def __post_init__(self) -> None:
        _check(self, self.sparsity, self.within)
        if not self.factor > 0.0 or not 0.0 <= self.spread < 1.0:
            raise ValueError(
                f"OWL: needs factor > 0 and spread in [0, 1), got {self.factor} and {self.spread}."
            )

    def kept(self, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """Units kept of each layer; ``scores`` are squares, as Wanda's are here."""
        if scores is None:
            raise ValueError("OWL: needs the scores of the layers.")
        shares = {}
        for name in layers:
            size = scores[name].double().sqrt()
            shares[name] = (size > self.factor * size.mean()).double().mean().item() if size.numel() else 0.0
        low, high = min(shares.values()), max(shares.values())
        scaled = {
            name: (share - low) / (high - low) * 2.0 * self.spread if high > low else 0.0
            for name, share in shares.items()
        }
        units = sum(layer.units for layer in layers.values())
        centre = sum(scaled[name] * layer.units for name, layer in layers.items()) / max(units, 1)
        density = 1.0 - self.sparsity
        return apportion(
            {name: density + value - centre for name, value in scaled.items()}, layers, self.sparsity
        )


@dataclass(frozen=True)
class PerLayer:
    """Sparsities by rule: dotted names, or ``"re:"`` and an expression for the whole name; the first match counts.

    Attributes:
        rules: Rule to fraction of zeros.
        default: For layers no rule names.
        within: What competes inside a layer.
    """

    requires: ClassVar[frozenset[str]] = frozenset()

    rules: Mapping[str, float] = field(default_factory=dict)
    default: float = 0.0
    within: Scope = "row"

    def __post_init__(self) -> None:
        for rule, sparsity in {**self.rules, "default": self.default}.items():
            if not 0.0 <= sparsity < 1.0:
                raise ValueError(f"PerLayer: sparsity of {rule!r} must be in [0, 1), got {sparsity}.")

    @property
    def sparsity(self) -> float:
        """Of layers no rule names; the others have their own."""
        return self.default

    def kept(self, layers: Mapping[str, Layer], scores: Mapping[str, Tensor] | None = None) -> dict[str, int]:
        """Units kept of each layer."""
        unused = set(self.rules)
        found = {}
        for name, layer in layers.items():
            sparsity = self.default
            for rule, value in self.rules.items():
                if fits(rule, name):
                    sparsity = value
                    unused.discard(rule)
                    break
            found[name] = round((1.0 - sparsity) * layer.units)
        if unused:
            raise ValueError(f"PerLayer: {sorted(unused)[0]!r} names no layer of {list(layers)[:5]}...")
        return found
