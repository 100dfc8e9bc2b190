"""Training steps that the tests of several layers take."""

from __future__ import annotations

import torch
from torch import nn

from sparsecore.nn import SparseLinear
from sparsecore.sparsify import exchange_


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


def exchange_connections(layer: SparseLinear) -> None:
    """A quarter of the kept weights changes places; the others keep their values and moments."""
    optimizer = torch.optim.Adam(layer.parameters(), 1e-3)
    device = layer.weight_values.device
    layer(torch.randn(4, layer.in_features, device=device, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    old, mask, moments = layer.weight.to_dense(), layer.weight.mask(), optimizer.state[layer.weight_values]
    before = layer.weight.with_values(moments["exp_avg"]).to_dense()
    count = exchange_(nn.Sequential(layer), optimizer, 0.25, init=0.1)
    stayed, grown = mask & layer.weight.mask(), layer.weight.mask() & ~mask
    assert 0 < count == int(grown.sum())
    assert int(layer.weight.mask().sum()) == int(mask.sum())
    assert torch.equal(layer.weight.to_dense()[stayed], old[stayed])
    after = layer.weight.with_values(moments["exp_avg"]).to_dense()
    assert torch.equal(after[stayed], before[stayed])
    assert not after[grown].any()
    layer.weight.validate()
