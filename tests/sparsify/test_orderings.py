"""Orderings: never worse, exact, and free for the model."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.sparsify import asp, find_pairs, order_columns, order_hidden_, order_rows, permute_hidden_
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


def exchange_gains(score: Tensor, pattern: sc.NM) -> list[float]:
    """Gain of every exchange of two columns, one at a time."""
    gains, kept = [], kept_score(score, pattern)
    for a in range(score.shape[1]):
        for b in range(a):
            order = torch.arange(score.shape[1])
            order[[a, b]] = order[[b, a]]
            gains.append(kept_score(score[:, order], pattern) - kept)
    return gains


@pytest.mark.parametrize("pattern", [sc.NM(2, 4), sc.NM(1, 4), sc.NM(5, 8), sc.NM(2, 4, vector=4)], ids=str)
def test_no_exchange_of_columns_is_left(pattern: sc.NM) -> None:
    torch.manual_seed(1)
    score = torch.randn(16, 24).square()
    found = order_columns(score, pattern)
    assert max(exchange_gains(score, pattern)) > 1e-4
    assert max(exchange_gains(score[:, found.order], pattern)) < 1e-5


@pytest.mark.parametrize(("scale", "low", "high"), [(1.0, 0.75, 0.766), (0.05, 0.75, 0.955)])
def test_columns_of_random_weights_reach_what_was_published(scale: float, low: float, high: float) -> None:
    torch.manual_seed(0)
    score = torch.randn(64, 64).abs()
    score[:, 32:] *= scale
    found = order_columns(score, sc.NM(2, 4))
    assert found.before < low
    assert found.after > high


def test_columns_with_ties_and_zeros() -> None:
    torch.manual_seed(0)
    score = torch.randint(0, 3, (8, 32)).float()
    found = order_columns(score, sc.NM(2, 4))
    assert found.after > found.before
    nothing = order_columns(torch.zeros(8, 32), sc.NM(2, 4))
    assert torch.equal(nothing.order, torch.arange(32))


def test_columns_that_collide_are_parted() -> None:
    score = torch.full((4, 8), 0.01)
    score[:, :4] = 1.0  # four large ones in a group of which two may stay
    found = order_columns(score, sc.NM(2, 4))
    assert found.after == pytest.approx(16 / float(score.sum()), abs=1e-6)


@pytest.mark.parametrize("pattern", [sc.VNM(16, 2, 8), sc.VNM(32, 2, 5), sc.NM(2, 4, two_way=True)], ids=str)
@pytest.mark.parametrize("shape", [(64, 96), (70, 83)], ids=str)
def test_columns_of_patterns_that_choose_twice(pattern: sc.NM | sc.VNM, shape: tuple[int, int]) -> None:
    """Columns that are wanted together lie together at first; a run picks four of a group, and a row keeps two."""
    torch.manual_seed(0)
    wanted = torch.rand(shape)
    wanted[:, : shape[1] // 3] *= 10
    found = order_columns(wanted, pattern)
    assert found.order.sort().values.tolist() == list(range(shape[1]))
    assert found.after == pytest.approx(kept_score(wanted[:, found.order], pattern), rel=1e-6)
    assert found.before == pytest.approx(kept_score(wanted, pattern), rel=1e-6)
    tail = shape[1] % pattern.m
    assert torch.equal(found.order[shape[1] - tail :], torch.arange(shape[1] - tail, shape[1]))
    assert found.after > 1.04 * found.before
    again = order_columns(wanted[:, found.order], pattern)
    assert again.after >= found.after  # never worse
    assert torch.equal(order_columns(wanted, pattern).order, found.order)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_columns_of_vnm_are_parted_by_either_choice(scale: float) -> None:
    """Here rows want other columns of a group than their neighbours, there a few columns are wanted by all rows."""
    torch.manual_seed(0)
    pattern, score = sc.VNM(16, 2, 8), torch.rand(32, 64) ** 4
    score[:, :12] *= scale
    found = order_columns(score, pattern)
    by_rows = order_columns(score, sc.NM(2, 8)).order
    assert found.after >= kept_score(score[:, by_rows], pattern) - 1e-9
    assert found.after > found.before


@pytest.mark.parametrize(
    ("pattern", "sparsity"),
    [
        (sc.VNM(16, 2, 8), None),
        (sc.VNM(16, 2, 5), None),
        (sc.NM(2, 4, vector=8), None),
        (sc.Group(8, 1), 0.5),
        (sc.Group(16, 1), 0.75),
        (sc.Group(4, 4), 0.75),
    ],
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
    for pattern in (sc.NM(2, 4, vector=8), sc.VNM(16, 2, 8)):
        found = order_rows(score, pattern, seconds=1.0)
        assert found.after >= found.before
        assert torch.equal(found.order.sort().values, torch.arange(37))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(16, 32), nn.Linear(16, 32, bias=False), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.gate(x)) * self.up(x))


@pytest.mark.parametrize(
    "pattern", [sc.NM(2, 4), sc.NM(2, 4, vector=8), sc.VNM(16, 2, 8), sc.Group(8, 1)], ids=str
)
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


class Attention(nn.Module):
    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.value, self.output = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, x: Tensor) -> Tensor:
        value = self.value(x).unflatten(-1, (self.heads, -1))
        weight = torch.arange(1.0, self.heads + 1)[:, None]  # every head treats its units in its own way
        return self.output((value * weight).flatten(-2))


@pytest.mark.parametrize(
    "pattern", [sc.NM(2, 4), sc.NM(2, 4, vector=16), sc.VNM(16, 2, 8), sc.Group(16, 1)], ids=str
)
def test_units_stay_in_their_head(pattern: sc.Pattern) -> None:
    torch.manual_seed(0)
    model = Attention()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape).float())
    x = torch.randint(-3, 4, (5, 32)).float()
    expected = model(x)
    share = 0.5 if isinstance(pattern, sc.Group) else None
    found = order_hidden_(model, [("value", "output", 2)], pattern, share, progress=False)["value"]
    assert found.after > found.before
    assert found.order[:32].max() < 32
    assert torch.equal(model(x), expected)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(8, 16), nn.Linear(16, 4)
        self.up, self.gate, self.down = nn.Linear(16, 32), nn.Linear(16, 32), nn.Linear(32, 16)
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(x)
        x = x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))
        return self.head(x)


def test_pairs_are_found_and_free() -> None:
    torch.manual_seed(0)
    model = Residual()
    with torch.no_grad():
        model.norm.weight.normal_()
        model.norm.bias.normal_()
    pairs = find_pairs(model)
    named = [(set(pair[0]), set(pair[1])) for pair in pairs]
    assert ({"gate", "up"}, {"down"}) in named
    assert ({"stem", "norm", "down"}, {"gate", "up", "head"}) in named
    assert len(pairs) == 2
    x = torch.randn(7, 8)
    expected = model(x)
    for pattern in (sc.NM(2, 4), sc.NM(2, 4, vector=8), sc.VNM(16, 2, 8)):
        found = order_hidden_(model, pairs, pattern, progress=False)
        assert all(ordering.after > ordering.before for ordering in found.values())
        torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)


class Outside(nn.Module):
    """Hidden units that something else reads: the caller, a softmax, another use of a layer."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.second = how, nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        hidden = torch.relu(self.first(x))
        if self.how == "returned":
            return self.second(hidden), hidden
        if self.how == "softmax":
            return self.second(hidden.cumsum(-1))
        if self.how == "twice":
            return self.second(self.second(hidden))
        if self.how == "skip":
            return self.second(hidden + x)
        if self.how == "weight":
            return self.second(hidden) + nn.functional.linear(x, self.second.weight)
        return self.second(hidden)


@pytest.mark.parametrize("how", ["returned", "softmax", "twice", "skip", "weight"])
def test_units_read_elsewhere_are_left(how: str) -> None:
    assert find_pairs(Outside("")) == [(("first",), ("second",))]
    assert find_pairs(Outside(how)) == []


def test_batch_norm_and_scores_with_data() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 8)).eval()
    norm = model[1]
    for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        tensor.data.uniform_(0.5, 2.0)
    x = torch.randn(64, 8)
    expected = model(x)
    plain = copy.deepcopy(model)
    order_hidden_(plain, [(("0", "1"), "3")], sc.NM(2, 4), progress=False)
    found = order_hidden_(model, [(("0", "1"), "3")], sc.NM(2, 4), data=[x], progress=False)["0"]
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)
    size = torch.relu(norm(model[0](x))).detach().square().mean(0) * model[3].weight.detach().square()
    assert kept_score(size, sc.NM(2, 4)) == pytest.approx(found.after, rel=1e-4)
    other = torch.relu(plain[1](plain[0](x))).detach().square().mean(0) * plain[3].weight.detach().square()
    assert found.after > kept_score(other, sc.NM(2, 4))  # the order that looks at weights alone


def test_asp_finds_its_pairs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16))
    before = model[2].weight.detach().clone()
    masks = asp(model, pairs=None, progress=False)
    assert set(masks) == {"0", "2"}
    plain = before.abs() * sc.formats.select.select_mask(before.abs(), sc.NM(2, 4))
    assert model[2].weight.abs().sum() > 1.01 * plain.sum()


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
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    with pytest.raises(ValueError, match="shared with another layer"):
        order_hidden_(tied, [("0", "1")], sc.NM(2, 4), progress=False)
    with pytest.raises(ValueError, match="heads must divide"):
        order_hidden_(Gated(), [("gate", "down", 5)], sc.NM(2, 4), progress=False)
    with pytest.raises(ValueError, match="Order before pruning"):
        masked = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        permute_hidden_([masked], [], torch.arange(4))
    with pytest.raises(TypeError, match=r"no nn\.Linear"):
        order_hidden_(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), [("0", "1")], sc.NM(2, 4), progress=False)
    with pytest.raises(ValueError, match="does not matter"):
        order_hidden_(
            nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), [("0", "1")], sc.Unstructured(), progress=False
        )
