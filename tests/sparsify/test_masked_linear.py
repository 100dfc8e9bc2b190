"""``MaskedLinear`` without kernels: the selections, the gradients of its formulas, whole models."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore import sparsify
from sparsecore.reference import two_way_mask


def greedy(tile: Tensor) -> Tensor:
    """The two-way selection of one 4 x 4 tile, as it is told."""
    kept = torch.zeros(4, 4, dtype=torch.bool)
    places = sorted(range(16), key=lambda place: (-float(tile.flatten()[place]), place))
    for place in places:
        row, column = divmod(place, 4)
        if kept[row].sum() < 2 and kept[:, column].sum() < 2:
            kept[row, column] = True
    return kept


@pytest.mark.parametrize("shape", [(4, 4), (8, 12), (7, 10), (1, 1), (0, 4)], ids=str)
def test_two_way_selection_is_greedy(shape: tuple[int, int]) -> None:
    for ties in (False, True):
        score = torch.randint(0, 4, shape).float() if ties else torch.rand(shape)
        mask = two_way_mask(score)
        padded = torch.nn.functional.pad(score, (0, -shape[1] % 4, 0, -shape[0] % 4))
        for row in range(0, shape[0], 4):
            for column in range(0, shape[1], 4):
                want = greedy(padded[row : row + 4, column : column + 4])
                got = mask[row : row + 4, column : column + 4]
                assert torch.equal(got, want[: got.shape[0], : got.shape[1]])


@pytest.mark.parametrize("selection", sparsify.masked_linear.SELECTIONS)
@pytest.mark.parametrize("gradient", [sparsify.STE(), sparsify.SRSTE(0.1)], ids=str)
def test_gradients(selection: str, gradient: sparsify.SRSTE | sparsify.STE) -> None:
    layer = sparsify.MaskedLinear(10, 7, selection=selection, gradient=gradient, dtype=torch.float64)
    mask, weight = layer.mask(), layer.weight.detach()
    assert int(mask.view(7, -1)[:, :8].reshape(7, 2, 4).sum(-1).max()) == 2
    input = torch.randn(3, 5, 10, dtype=torch.float64, requires_grad=True)
    output = layer(input)
    assert torch.allclose(output, input @ (weight * mask).T + layer.bias)
    grad = torch.randn_like(output)
    output.backward(grad)
    assert torch.allclose(input.grad, grad @ (weight * mask))
    dense = grad.flatten(0, 1).T @ input.detach().flatten(0, 1)
    assert torch.allclose(layer.weight.grad, dense + gradient.decay * weight * ~mask)
    assert torch.allclose(layer.bias.grad, grad.sum((0, 1)))


def test_a_model_is_trained_and_packed() -> None:
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 8))
    first, keys = model[0].weight, set(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    model = sparsify.train_masked_(model, selection="two_way", gradient=sparsify.SRSTE(1e-3))
    assert model[0].weight is first
    assert set(model.state_dict()) == keys
    assert "selection='two_way', gradient=SRSTE(decay=0.001)" in repr(model)
    losses = []
    for _ in range(150):
        input = torch.randn(64, 16)
        optimizer.zero_grad()
        loss = (model(input) - input[:, :8]).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    clone, input = copy.deepcopy(model), torch.randn(5, 16)
    want = model(input).detach()
    packed = sparsify.pack_masked_(clone)
    assert [type(layer) for layer in packed] == [sc.nn.SparseLinear, nn.ReLU, sc.nn.SparseLinear]
    with torch.no_grad():
        assert torch.allclose(packed(input), want, atol=1e-5)
    assert torch.equal(packed[0].weight.mask(), model[0].mask())


@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # torch's compiler does it
def test_compiles_whole() -> None:
    layer = sparsify.MaskedLinear(16, 8, selection="two_way")
    clone, input = copy.deepcopy(layer), torch.randn(3, 16)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    compiled(input).square().sum().backward()
    clone(input).square().sum().backward()
    assert torch.equal(layer.weight.grad, clone.weight.grad)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="selection out of by_row, two_way"):
        sparsify.MaskedLinear(4, 4, selection="largest")
    with pytest.raises(ValueError, match="A mask that never moves is a SparseLinear"):
        sparsify.MaskedLinear(4, 4, gradient=sparsify.Hard())  # type: ignore[arg-type]
