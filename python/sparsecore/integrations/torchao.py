"""The names of torchao's sparsity API, over sparsecore. torchao itself is not needed.

``torchao.sparsity`` pruned with ``WandaSparsifier`` or ``apply_fake_sparsity`` and then called ``sparsify_`` with
``SemiSparseWeightConfig()``, for GPUs only. The same three lines run here on CPUs, for every pattern there is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from sparsecore import convert
from sparsecore.patterns import Pattern
from sparsecore.patterns import pattern as parse_pattern
from sparsecore.sparsify.aliases import WandaSparsifier, WeightNormSparsifier

__all__ = [
    "SemiSparseWeightConfig",
    "WandaSparsifier",
    "WeightNormSparsifier",
    "apply_fake_sparsity",
    "semi_sparse_weight",
    "sparsify_",
]


@dataclass(frozen=True)
class SemiSparseWeightConfig:
    """What :func:`sparsify_` makes of each layer.

    Attributes:
        pattern: torchao has 2:4 alone; any other works here too.
        sparsity: Fraction of zeros, for patterns that leave it open; None keeps exactly the non-zero weights.
        dtype: Of the stored values; ``torch.int8`` quantises.
        compute_dtype: See :class:`~sparsecore.nn.SparseLinear`.
    """

    pattern: Pattern | str = "2:4"
    sparsity: float | None = None
    dtype: torch.dtype | None = None
    compute_dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        parse_pattern(self.pattern)


semi_sparse_weight = SemiSparseWeightConfig  # its name before configurations were classes


def sparsify_(
    model: nn.Module,
    config: SemiSparseWeightConfig,
    filter_fn: Callable[[nn.Module, str], bool] | None = None,
) -> nn.Module:
    """Replaces the chosen linear layers by packed ones, in place.

    torchao takes the pattern for granted and compresses whatever it gets; here N:M keeps the largest magnitudes of each
    group, which for a model pruned to the pattern are exactly its non-zero weights.

    Args:
        model: Any module; a bare ``nn.Linear`` is returned converted.
        config: ``SemiSparseWeightConfig()`` or ``semi_sparse_weight()``.
        filter_fn: ``(module, name) -> bool``; None: every ``nn.Linear``.

    Returns:
        The model.

    Raises:
        TypeError: ``config`` is another object, for instance torchao's own class.
        ValueError: A layer cannot be packed; the message names it.
    """
    if not isinstance(config, SemiSparseWeightConfig):
        raise TypeError(
            "sparsify_: needs sparsecore.integrations.torchao.SemiSparseWeightConfig(), got "
            f"{type(config).__module__}.{type(config).__qualname__}."
        )
    return convert.sparsify_(
        model,
        config.pattern,
        filter_fn,
        sparsity=config.sparsity,
        dtype=config.dtype,
        compute_dtype=config.compute_dtype,
    )


def apply_fake_sparsity(
    model: nn.Module,
    sparsity_level: float = 1.0,
    sparse_block_shape: tuple[int, int] = (1, 4),
    zeros_per_block: int = 2,
) -> None:
    """Makes zeros in every linear layer by magnitude, 2:4 by default; the model stays dense.

    Args:
        model: Changed in place.
        sparsity_level: Fraction of blocks with zeros.
        sparse_block_shape: See :class:`WeightNormSparsifier`.
        zeros_per_block: Zeros in each block.
    """
    sparsifier = WeightNormSparsifier(sparsity_level, sparse_block_shape, zeros_per_block)
    sparsifier.prepare(model)
    sparsifier.step()
    sparsifier.squash_mask()
