"""Orderings: never worse, exact, and free for the model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.sparsify import asp, order_columns, order_hidden_, order_rows, permute_hidden_
from sparsecore.sparsify.orderings import kept_score


@pytest.mark.parametrize("pattern", [sc.NM(2, 4), sc.NM(1, 4), sc.NM(2, 8), sc.NM(2, 4, vector=4)], ids=str)
@pytest.mark.parametrize("width", [32, 37, 3])
def test_columns(pattern: sc.NM, width: int) -> None:
    torch.manual_seed(0)
    score = torch.randn(24, width).square() * torch.rand(width) ** 4
    found = order_columns(score, pattern, seconds=3.0)
    assert found.order.sort().values.tolist() == list(range(width))
    assert found.before == pytest.approx(kept_score(score, pattern), rel=1e-5)
    assert found.after == pytest.approx(kept_score(score[:, found.order], pattern), rel=1e-5)
    assert found.after >= found.before
    if width > 8:
        assert found.after > found.before + 0.005


def test_columns_that_collide_are_parted() -> None:
    score = torch.full((4, 8), 0.01)
    score[:, :4] = 1.0  # four large ones in a group of which two may stay
    found = order_columns(score, sc.NM(2, 4))
    assert found.after == pytest.approx(16 / float(score.sum()), abs=1e-6)


@pytest.mark.parametrize(
    ("pattern", "sparsity"),
    [(sc.NM(2, 4, vector=8), None), (sc.Group(8, 1), 0.5), (sc.Group(16, 1), 0.75)],
    ids=str,
)
def test_rows_of_a_kind_come_together(pattern: sc.Pattern, sparsity: float | None) -> None:
    torch.manual_seed(0)
    kinds = torch.rand(4, 48) ** 6
    score = kinds[torch.arange(64) % 4] + 0.05 * torch.rand(64, 48)
    found = order_rows(score, pattern, sparsity, seconds=5.0)
    assert found.order.sort().values.tolist() == list(range(64))
    assert found.after == pytest.approx(kept_score(score[found.order], pattern, sparsity), rel=1e-5)
    ideal = kept_score(score[torch.arange(64).view(-1, 4).T.flatten()], pattern, sparsity)
    assert found.after > found.before
    assert found.after > found.before + 0.8 * (ideal - found.before)
    again = order_rows(score, pattern, sparsity, seconds=5.0)
    assert torch.equal(again.order, found.order)


def test_row_orders_are_never_worse() -> None:
    torch.manual_seed(0)
    score = torch.rand(37, 20)
    assert order_rows(score, sc.NM(2, 4)).after == order_rows(score, sc.NM(2, 4)).before
    found = order_rows(score, sc.NM(2, 4, vector=8), seconds=1.0)
    assert found.after >= found.before


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(16, 32), nn.Linear(16, 32, bias=False), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.gate(x)) * self.up(x))


@pytest.mark.parametrize("pattern", [sc.NM(2, 4), sc.NM(2, 4, vector=8), sc.Group(8, 1)], ids=str)
def test_models_do_not_change(pattern: sc.Pattern) -> None:
    torch.manual_seed(0)
    model = Gated()
    with torch.no_grad():  # small integers: every order of the sums gives the same bits
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape).float())
    x = torch.randint(-3, 4, (5, 16)).float()
    expected = model(x)
    share = 0.5 if isinstance(pattern, sc.Group) else None
    found = order_hidden_(model, [(("gate", "up"), "down")], pattern, share, seconds=2.0, progress=False)
    assert not torch.equal(found["gate"].order, torch.arange(32))
    assert torch.equal(model(x), expected)


def test_asp_keeps_more_with_permutation() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))
    with torch.no_grad():
        plain[2].weight *= torch.rand(64) ** 3
    permuted, x = copy.deepcopy(plain), torch.randn(64, 16)
    dense = plain(x)
    asp(plain, progress=False)
    masks = asp(permuted, pairs=[("0", "2")], progress=False)
    assert set(masks) == {"0", "2"}
    assert permuted[2].weight.square().sum() > plain[2].weight.square().sum()
    assert (permuted(x) - dense).square().mean() < (plain(x) - dense).square().mean()
    sc.sparsify_(permuted, "2:4", masks=masks)


def test_mistakes() -> None:
    layers = [nn.Linear(4, 8)], [nn.Linear(8, 4)]
    with pytest.raises(ValueError, match="permutation"):
        permute_hidden_(*layers, torch.zeros(8, dtype=torch.long))
    with pytest.raises(ValueError, match="hidden units"):
        permute_hidden_(*layers, torch.arange(6))
    with pytest.raises(ValueError, match="only N:M"):
        order_columns(torch.rand(4, 4), sc.Unstructured())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="finite"):
        order_rows(torch.full((4, 4), float("nan")), sc.Group(4, 1), 0.5)
    with pytest.raises(TypeError, match=r"no nn\.Linear"):
        order_hidden_(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), [("0", "1")], sc.NM(2, 4), progress=False)
    with pytest.raises(ValueError, match="does not matter"):
        order_hidden_(
            nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), [("0", "1")], sc.Unstructured(), progress=False
        )
