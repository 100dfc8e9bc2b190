"""Advice: exact knapsacks, real measurements, honest tables, predictions that hold."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore._advise.knapsack import Knapsack
from sparsecore._advise.quality import Candidate, layer_costs
from sparsecore.advise import Advice, LayerAdvice, Option

QUICK = (("unstructured", 0.9), ("2:4", None), ("1:4/16", None))


def made_up(seed: int, layers: int = 4) -> Advice:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for index in range(layers):
        dense = 1e-3 * (1 + torch.rand(1, generator=generator).item())
        options = [Option("dense", None, dense, 0.0, 0.0)]
        for ratio in (0.9, 0.6, 0.4, 0.2):
            noise = torch.rand(2, generator=generator).tolist()
            options.append(Option("2:4", None, dense * (ratio + 0.2 * noise[0]), 0.0, noise[1] * (1 - ratio)))
        found.append(LayerAdvice(str(index), (8, 8), 1, tuple(options)))
    return Advice(tuple(found), 1, "float32", "weights", rest_seconds=2e-3)


def brute(advice: Advice) -> list[tuple[float, float]]:
    return [
        (sum(option.seconds for option in chosen) + 2e-3, sum(option.cost for option in chosen) / len(chosen))
        for chosen in itertools.product(*(layer.options for layer in advice.layers))
    ]


@pytest.mark.parametrize("seed", range(5))
def test_knapsack_against_brute_force(seed: int) -> None:
    advice = made_up(seed)
    every = brute(advice)
    for share in (0.65, 0.75, 0.9, 1.0):
        budget = share * advice.dense_seconds
        found = advice.choose(latency=share)
        assert found.seconds <= budget * (1 + 1e-9)
        best = min(cost for seconds, cost in every if seconds <= budget)
        near = min(cost for seconds, cost in every if seconds <= budget - 0.002 * advice.dense_seconds)
        assert best - 1e-12 <= found.cost <= near + 1e-12
    for quality in (0.0, 0.05, 0.2, 0.5):
        found = advice.choose(quality=quality)
        assert found.cost <= quality * (1 + 1e-9) + 1e-12
        best = min(seconds for seconds, cost in every if cost <= quality + 1e-12)
        assert found.seconds <= best * 1.003
    curve = advice.curve(6)
    assert [cost for _, cost in curve] == sorted((cost for _, cost in curve), reverse=True)
    assert curve[0][0] == pytest.approx(min(seconds for seconds, _ in every))
    assert curve[-1][1] == 0.0


def test_knapsack_of_many_layers() -> None:
    """The fastest assignment stays within reach, and the answer comes within a thousandth of the bound by duality."""
    generator = torch.Generator().manual_seed(0)
    times = (0.1 + torch.rand(60, 12, generator=generator, dtype=torch.float64)).tolist()
    costs = torch.rand(60, 12, generator=generator, dtype=torch.float64).tolist()
    for time_row, cost_row in zip(times, costs, strict=True):
        time_row[0], cost_row[0] = 1.1, 0.0
    found = Knapsack(times, costs)
    fastest = found.within_time(found.fastest)
    assert fastest == [row.index(min(row)) for row in times]
    assert found.within_time(found.fastest * 0.99) is None
    assert found.within_cost(0.0) == [0] * 60
    budget = 0.5 * (found.fastest + found.slowest)
    chosen = found.within_time(budget)
    assert chosen is not None
    assert sum(row[i] for row, i in zip(times, chosen, strict=True)) <= budget
    cost = sum(row[i] for row, i in zip(costs, chosen, strict=True))
    prices = torch.logspace(-2, 2, 500, dtype=torch.float64)
    relaxed = torch.tensor(costs)[..., None] + prices * torch.tensor(times)[..., None]
    bound = float((relaxed.amin(1).sum(0) - prices * budget).max())
    assert bound <= cost <= bound + 0.02 * abs(bound)


def test_zero_cost_is_taken_where_it_is_faster() -> None:
    options = (Option("dense", None, 2.0, 0.0, 0.0), Option("unstructured", 0.5, 1.0, 0.0, 0.0))
    advice = Advice((LayerAdvice("a", (8, 8), 1, options),), 1, "float32", "weights")
    assert advice.choose(latency=1.0).assignment == {"a": ("unstructured", 0.5)}
    slower = (options[0], Option("2:4", None, 3.0, 0.0, 0.1))
    losing = Advice((LayerAdvice("a", (8, 8), 1, slower),), 1, "float32", "weights")
    for advice in (losing.choose(latency=1.0), losing.choose(quality=1.0), losing.fastest()):
        assert advice.assignment == {}
        assert advice.seconds == 2.0
        assert "2:4" in str(advice).splitlines()[1]  # listed as slower than dense


def test_budgets_that_cannot_be_met() -> None:
    advice = made_up(0)
    with pytest.raises(ValueError, match="no assignment runs within"):
        advice.choose(latency=0.05)
    with pytest.raises(ValueError, match="one of them"):
        advice.choose()
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        advice.choose(latency=2.0)
    with pytest.raises(ValueError, match="not negative"):
        advice.choose(quality=-1.0)
    for mistake in ("12 minutes", "0ms", "1.2.3ms"):
        with pytest.raises(ValueError, match="a latency in words"):
            advice.choose(latency=mistake)
    with pytest.raises(ValueError, match="points >= 1"):
        advice.curve(0)


def test_budget_in_seconds() -> None:
    advice = made_up(1)
    share = 0.75
    for words in (f"{share * advice.dense_seconds * 1e3:.9f}ms", f"{share * advice.dense_seconds:.12f} s"):
        assert advice.choose(latency=words).assignment == advice.choose(latency=share).assignment


def test_shapes_alone() -> None:
    advice = sc.advise(
        {"a": (64, 96), "b": (64, 96), "c": (33, 50)}, seconds=0.1, patterns=QUICK, progress=False
    )
    assert [layer.name for layer in advice.layers] == ["a", "b", "c"]
    assert advice.layers[0].options == advice.layers[1].options  # measured once
    assert advice.estimate == "random"
    assert "quality unknown" in str(advice)
    assert "best mean cost by time" in str(advice)
    assert all(option.cost > 0 for layer in advice.layers for option in layer.options[1:])
    assert all(layer.choice == min(layer.options, key=lambda o: o.seconds) for layer in advice.layers)
    again = Advice.from_dict(json.loads(json.dumps(advice.to_dict())))
    assert again == advice
    assert "<table>" in advice._repr_html_()
    assert sc.advise([(16, 16)], seconds=0.01, patterns=["2:4"], progress=False).layers[0].name == "0"


class Model(nn.Module):
    def __init__(self, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(torch.nn.functional.layer_norm(x, x.shape[-1:]))
        return x


def test_advises_applies_and_predicts() -> None:
    torch.manual_seed(0)
    data = [torch.randn(128, 256)]
    state = torch.get_rng_state()
    found = None
    for _ in range(10):  # a busy machine gets another chance
        model = Model().train()
        before = torch.get_num_threads()
        measured = sc.advise(model, data=data, threads=1, seconds=1.0, patterns=QUICK, progress=False)
        assert model.training
        floor = measured.seconds / measured.dense_seconds
        advice = measured.choose(latency=min(1.0, floor + 0.15))
        assert advice.rest_seconds is not None
        assert advice.estimate == "calibration"
        assert {layer.tokens for layer in advice.layers} == {128}
        assert 0 < len(advice.assignment) <= 6
        advice.apply_(model, data, progress=False)
        sparse = {name for name, module in model.named_modules() if isinstance(module, sc.nn.SparseLinear)}
        assert sparse == set(advice.assignment)
        found = advice.check(model, data[0], seconds=0.5)
        assert torch.get_num_threads() == before
        assert found.error is not None
        if abs(found.error) < 0.15 and abs(found.layers_error) < 0.15:
            break
    assert found is not None
    assert found.predicted == pytest.approx(found.measured, rel=0.15)
    assert found.layers_predicted == pytest.approx(found.layers_measured, rel=0.15)
    assert "predicted" in str(found)
    torch.set_rng_state(state)


def test_check_wants_the_model_that_was_advised() -> None:
    torch.manual_seed(0)
    model, data = Model(64, 1).eval(), [torch.randn(32, 64)]
    advice = sc.advise(model, data=data, seconds=0.05, patterns=QUICK, progress=False)
    every = tuple(LayerAdvice(one.name, one.shape, one.tokens, one.options, 1) for one in advice.layers)
    advice = Advice(every, advice.threads, advice.dtype, advice.estimate, None)
    with pytest.raises(ValueError, match="Call apply_ on the dense model first"):
        advice.check(model, data[0])
    advice.apply_(model, progress=False)
    found = advice.check(model, data[0], seconds=0.05)
    assert found.predicted is None
    assert found.error is None
    assert "measured" in str(found)
    with pytest.raises(ValueError, match="sees 7 tokens"):
        advice.check(model, torch.randn(7, 64))
    with pytest.raises(ValueError, match="has no layer"):
        advice.check(nn.ReLU(), data[0])


def test_apply_refuses_another_model_before_it_changes_it() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    advice = sc.advise({"0": (32, 32), "1": (32, 16)}, seconds=0.02, patterns=["2:4"], progress=False)
    layers = tuple(LayerAdvice(one.name, one.shape, one.tokens, one.options, 1) for one in advice.layers)
    advice = Advice(layers, 1, "float32", "random")
    weight = model[0].weight.clone()
    with pytest.raises(ValueError, match=r"'1' must be an nn.Linear with a weight of 32x16"):
        advice.apply_(model)
    assert torch.equal(model[0].weight, weight)


class Twice(nn.Module):
    """One layer called twice, with different numbers of tokens, and one that cannot be packed."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(32, 32)
        self.alias = self.shared
        self.special = nn.Bilinear(32, 32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.alias(self.shared(x)[:10])


def test_layers_called_twice() -> None:
    torch.manual_seed(0)
    model, data = Twice(), [torch.randn(30, 32)]
    advice = sc.advise(model, data=data, seconds=0.05, patterns=["2:4"], progress=False)
    (layer,) = advice.layers
    assert layer.tokens == 20
    assert advice.seconds > 0
    forced = Advice((LayerAdvice("shared", (32, 32), 20, layer.options, 1),), 1, "float32", "calibration")
    forced.apply_(model, data, progress=False)
    assert isinstance(model.shared, sc.nn.SparseLinear)
    assert model.alias is model.shared


def test_a_bare_layer_in_int8() -> None:
    torch.manual_seed(0)
    layer, data = nn.Linear(96, 64), [torch.randn(256, 96)]
    before = layer.weight.detach().clone()
    advice = sc.advise(
        layer, data=data, seconds=0.05, patterns=[("2:4", None), ("2:4", None, "int8")], progress=False
    )
    (found,) = advice.layers
    assert [option.title for option in found.options] == ["dense", "2:4", "2:4 int8"]
    # Rounding moves the cost a little, either way.
    assert found.options[1].cost != found.options[2].cost
    assert found.options[2].cost == pytest.approx(found.options[1].cost, rel=0.02)
    forced = Advice((LayerAdvice("", (64, 96), 256, found.options, 2),), 1, "float32", "calibration")
    packed = forced.apply_(layer, data, method="wanda", progress=False)
    assert isinstance(packed, sc.nn.SparseLinear)
    assert packed.weight.dtype == torch.int8
    with torch.no_grad():
        dense, sparse = data[0] @ before.T, data[0] @ packed.weight.to_dense().T
    real = float((sparse - dense).square().sum() / (dense - dense.mean(0)).square().sum())
    assert found.options[2].cost == pytest.approx(real, rel=1e-3)


class Gated(nn.Module):
    """Two equal layers; the output hardly listens to the second."""

    def __init__(self) -> None:
        super().__init__()
        self.loud, self.quiet = nn.Linear(64, 64, bias=False), nn.Linear(64, 64, bias=False)
        self.quiet.weight.data.copy_(self.loud.weight.data)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"sum": self.loud(x) + 0.125 * self.quiet(x), "ids": x.argmax(-1)}


def test_costs_are_changes_of_the_output() -> None:
    torch.manual_seed(0)
    model, data = Gated().eval(), [torch.randn(8, 64), torch.randn(512, 64), torch.randn(16, 64)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    advice = sc.advise(model, data=data, seconds=0.05, patterns=QUICK, progress=False)
    loud, quiet = advice.layers
    for ours, theirs in zip(loud.options[1:], quiet.options[1:], strict=True):
        assert theirs.cost == pytest.approx(ours.cost / 64, rel=1e-3)  # the square of an eighth
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_costs_of_a_weight_that_has_the_zeros_already() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64))
    sc.sparsify.magnitude(model, sc.NM(2, 4), progress=False)
    patterns = ("2:4", ("unstructured", 0.5), ("unstructured", 0.9))
    advice = sc.advise(model, data=[torch.randn(99, 64)], seconds=0.02, patterns=patterns, progress=False)
    _, nm, half, most = (option.cost for option in advice.layers[0].options)
    assert nm == 0.0
    assert half == 0.0
    assert most > 0.1
    advice = sc.advise(model, data=[torch.randn(99, 64)], seconds=0.02, patterns=["2:4"], progress=False)
    assert advice.layers[0].options[1].cost == 0.0


def test_costs_need_an_output_that_can_change() -> None:
    class Classes(Gated):
        def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x)["sum"].argmax(-1)

    with pytest.raises(ValueError, match="returns floating tensors"):
        sc.advise(Classes(), data=[torch.randn(8, 64)], seconds=0.02, patterns=QUICK, progress=False)


def test_costs_are_what_they_are_called() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(16, 32, generator=generator), torch.randn(500, 32, generator=generator)
    candidates = [Candidate(sc.NM(2, 4)), Candidate(sc.Unstructured(), 0.75)]
    costs = layer_costs(weight, x.T @ x / 500, candidates)
    score = weight.square() * (x.square().mean(0))
    kept = torch.zeros_like(weight).scatter_(1, score.topk(8, 1).indices, 1.0)
    y = x @ weight.T
    real = float((y - x @ (weight * kept).T).square().sum() / y.square().sum())
    assert costs[1] == pytest.approx(real, rel=1e-4)
    assert layer_costs(weight * kept, x.T @ x, [candidates[1]]) == pytest.approx([0.0], abs=1e-6)


def test_few_tokens_try_the_layouts_for_decoding() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 512))
    advice = sc.advise(model, batch=1, seconds=0.1, patterns=["2:4"], progress=False)
    (option,) = advice.layers[0].options[1:]
    assert option.layout in ("auto", "nm_decode", "group_lists")
    forced = Option("2:4", None, option.seconds, 0.0, 0.1, None, "nm_decode")
    layer = LayerAdvice("0", (512, 512), 1, (advice.layers[0].options[0], forced), 1)
    Advice((layer,), 1, "float32", "weights").apply_(model, progress=False)
    assert model[0].layout == "nm_decode"


def test_costs_order_patterns_as_pruning_does() -> None:
    torch.manual_seed(0)
    model = Model(64, 1).eval()
    data = [torch.randn(64, 64) @ torch.randn(64, 64)]
    patterns = (("unstructured", 0.5), ("unstructured", 0.9), ("2:4", None), ("2:4/16", None))
    for given in (data, None):
        advice = sc.advise(model, data=given, seconds=0.05, patterns=patterns, progress=False)
        for layer in advice.layers:
            half, most, nm, shared = (option.cost for option in layer.options[1:])
            assert 0 < half < nm < shared < most < 1.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch >= 1"),
        ({"patterns": ["unstructured"]}, "leaves the sparsity open"),
        ({"patterns": []}, "is empty"),
        ({"patterns": ["9:4"]}, "n < m"),
        ({"quality": 0.1, "latency": 0.5}, "not both"),
        ({"threads": 0}, "threads >= 1"),
        ({"dtype": torch.int8}, "dtype must be"),
        ({"patterns": [("2:4", None, "int4")]}, "stored as"),
        ({"patterns": [("2:4", None, None, None)]}, "at most"),
        ({"data": [torch.ones(1, 8)]}, "needs a model"),
    ],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sc.advise([(8, 8)], progress=False, **options)


def test_more_mistakes() -> None:
    with pytest.raises(ValueError, match="no layer"):
        sc.advise({}, progress=False)
    with pytest.raises(ValueError, match="out_features, in_features"):
        sc.advise({"a": (0, 4)}, progress=False)
    with pytest.raises(ValueError, match="malformed"):
        Advice.from_dict({"layers": [{"name": "a"}]})
    bad = made_up(0).to_dict()
    bad["layers"][0]["chosen"] = 99
    with pytest.raises(ValueError, match="does not exist"):
        Advice.from_dict(bad)
