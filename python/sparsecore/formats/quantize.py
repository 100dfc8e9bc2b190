"""Symmetric int8 weights, one scale per output channel."""

from __future__ import annotations

import torch
from torch import Tensor


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rounds each row to int8: ``weight`` is close to ``scale[:, None] * values``.

    Args:
        weight: ``(out_features, in_features)``, floating point, finite.

    Returns:
        ``values`` int8 in ``[-127, 127]`` and ``scale`` float32 ``(out_features,)``, ``max|row| / 127`` (1 for a row of
        zeros). Exact zeros stay exact zeros.

    Raises:
        ValueError: The weight holds inf or nan.
    """
    if not torch.isfinite(weight).all():
        raise ValueError("quantize_rows: the weight holds inf or nan, which int8 cannot say. Clean it first.")
    largest = weight.abs().amax(1).float() if weight.shape[1] else torch.zeros(weight.shape[0])
    scale = torch.where(largest > 0, largest / 127.0, torch.ones_like(largest))
    values = (weight.float() / scale.unsqueeze(1)).round_().clamp_(-127, 127).to(torch.int8)
    return values, scale
