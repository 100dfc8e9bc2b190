"""Training steps that the tests of several layers take."""

from __future__ import annotations

import torch

from sparsecore.nn import SparseLinear


def train_kept_weights_only(layer: SparseLinear, tokens: int, steps: int) -> None:
    """Steps on one batch: the loss falls, and what is not kept stays zero."""
    mask, parameter = layer.weight.mask(), layer.weight_values
    optimizer = torch.optim.AdamW(layer.parameters(), 0.05, weight_decay=0.1)
    device = parameter.device
    input = torch.randn(tokens, layer.in_features, device=device, dtype=torch.bfloat16)
    target = torch.randn(tokens, layer.out_features, device=device, dtype=torch.bfloat16)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (layer(input) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert layer.weight_values is parameter
    assert torch.equal(layer.weight.mask(), mask)
    assert not layer.weight.to_dense()[~mask].any()
    layer.weight.validate()
