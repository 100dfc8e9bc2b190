"""Whole models: what is pruned, in which order, with what statistics; recipes and their refusals."""

import json

import pytest
import torch
from torch import Tensor, nn

from sparsecore.patterns import NM, Group, Unstructured
from sparsecore.sparsify import (
    ADMM,
    OBS,
    Keep,
    Magnitude,
    OBSScore,
    OneShot,
    Recipe,
    Uniform,
    Wanda,
    alps,
    magnitude,
    prune_once,
    sparsegpt,
    wanda,
)
from sparsecore.sparsify.activations import Budget
from sparsecore.sparsify.calibration import Calibration, Moments, find_chain
from sparsecore.sparsify.targets import find_targets


class Block(nn.Module):
    """Two projections of one input, a product, and a way back; a mask as keyword, as transformers pass it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 2 * width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor]:
        y = x + self.down(torch.tanh(self.gate(x)) * self.up(x))
        return (y if attention_mask is None else y * attention_mask.unsqueeze(-1),)


class Tower(nn.Module):
    """Embedding, a chain of blocks, a head."""

    def __init__(self, width: int = 16, depth: int = 3, skip: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 4)
        self.skip = skip

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed(x)
        first = x
        for block in self.blocks:
            x = block(x + first if self.skip else x, attention_mask=attention_mask)[0]
        return self.head(x)


@pytest.fixture
def tower() -> Tower:
    torch.manual_seed(0)
    return Tower()


def batches(count: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(8, 8, generator=generator)
    return [torch.randn(6, 10, 8, generator=generator) @ mix for _ in range(count)]


def error(model: nn.Module, reference: nn.Module) -> float:
    x = torch.cat(batches())
    with torch.no_grad():
        return ((model(x) - reference(x)).square().mean() / reference(x).square().mean()).item()


def test_presets_rank_as_published(tower: Tower) -> None:
    import copy

    results = {}
    for name, prune in {"magnitude": magnitude, "wanda": wanda, "sparsegpt": sparsegpt, "alps": alps}.items():
        model = copy.deepcopy(tower)
        options = {} if name == "magnitude" else {"data": batches()}
        masks = prune(model, NM(2, 4), progress=False, ignore=["head"], **options)  # type: ignore[operator]
        assert list(masks) == [
            n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "head"
        ]
        for layer, mask in masks.items():
            weight = model.get_submodule(layer).weight
            assert mask.dtype == torch.bool
            assert mask.sum(1).eq(mask.shape[1] // 2).all()
            assert not weight[~mask].any()
            assert not torch.signbit(weight[~mask]).any()
        assert torch.equal(model.head.weight, tower.head.weight)
        results[name] = error(model, tower)
    assert results["alps"] < results["sparsegpt"] < results["wanda"], results
    assert results["sparsegpt"] < results["magnitude"], results


def test_following_the_dense_model_corrects_earlier_layers() -> None:
    import copy

    torch.manual_seed(0)
    tower = Tower(depth=8)
    errors = {}
    for follow in ("pruned", "dense"):
        model = copy.deepcopy(tower)
        prune_once(
            model,
            NM(2, 4, 16),
            score=Wanda(),
            weights=ADMM(follow=follow),
            data=batches(),
            progress=False,  # type: ignore[arg-type]
        )
        errors[follow] = error(model, tower)
    assert errors["dense"] < 0.97 * errors["pruned"], errors


def test_stages_share_inputs_and_skip_finished_blocks(tower: Tower) -> None:
    layers = find_targets(tower, ["Linear"])
    calibration = Calibration(tower, layers, batches(), follow_dense=False)
    assert [(stage.names, stage.finished) for stage in calibration.stages] == [
        (["embed"], 0),
        (["blocks.0.gate", "blocks.0.up"], 0),
        (["blocks.0.down"], 0),
        (["blocks.1.gate", "blocks.1.up"], 1),
        (["blocks.1.down"], 1),
        (["blocks.2.gate", "blocks.2.up"], 2),
        (["blocks.2.down"], 2),
        (["head"], 3),
    ]


@pytest.mark.parametrize("room", [0, 20_000, 1 << 30])
@pytest.mark.parametrize("skip", [False, True])
def test_moments_are_those_of_the_model_as_it_is(
    skip: bool, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks in a chain or not (a skip connection over them), layer outputs kept or not: the same numbers."""
    monkeypatch.setattr("sparsecore.sparsify.calibration._LAYER_CACHE", room)
    torch.manual_seed(0)
    model = Tower(skip=skip)
    layers = find_targets(model, ["Linear"])
    calibration = Calibration(model, layers, batches(), follow_dense=True)
    untouched = Tower(skip=skip)
    untouched.load_state_dict(model.state_dict())
    for stage in calibration.stages:
        moments = calibration.collect(stage)
        now, before = (_inputs(m, stage.names[0]) for m in (model, untouched))
        torch.testing.assert_close(moments.second, (now.T @ now).double() / len(now), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(moments.cross, (before.T @ now).double() / len(now), rtol=1e-5, atol=1e-6)
        with torch.no_grad():
            for name in stage.names:  # stand-in for pruning
                layers[name].weight.mul_(0.9)
    assert (calibration.stages[-1].finished == 3) is not skip
    assert not any("forward" in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("memory", [0, 4_000, 40_000])
def test_a_limit_of_memory_changes_no_bit(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched(Budget):
        def __init__(self, limit: int | None) -> None:
            super().__init__(limit)
            self.most = 0
            budgets.append(self)

        def take(self, count: int) -> bool:
            found = super().take(count)
            self.most = max(self.most, self.taken)
            return found

    budgets: list[Watched] = []
    monkeypatch.setattr("sparsecore.sparsify.calibration.Budget", Watched)
    found = []
    for limit in (None, memory):
        torch.manual_seed(0)
        model = Tower()
        alps(model, NM(2, 4), batches(), memory=limit, progress=False)
        found.append(model.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())
    free, limited = budgets
    # Outputs of a block, 4 batches of 60 x 16 floats for either model, and of layers inside it.
    assert free.most > 2 * 4 * 60 * 16 * 4
    assert limited.most <= memory
    assert (limited.most > 0) == (memory > 0)
    with pytest.raises(ValueError, match="number of bytes or None"):
        alps(model, NM(2, 4), batches(), memory=-1, progress=False)


def test_a_dataset_is_read_batch_by_batch() -> None:
    alive: set[int] = set()
    most = 0

    class Given(dict[str, Tensor]):
        def __del__(self) -> None:
            alive.discard(id(self))

    class Lazy:
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Given:
            nonlocal most
            if not 0 <= index < 4:
                raise IndexError(index)
            made = Given(x=batches()[index])
            alive.add(id(made))
            most = max(most, len(alive))
            return made

    kept = []
    for data in (Lazy(), [{"x": x} for x in batches()], ({"x": x} for x in batches())):
        torch.manual_seed(0)
        model = Tower()
        kept.append(sparsegpt(model, NM(2, 4), data, progress=False))  # type: ignore[arg-type]
    assert 0 < most <= 2
    for masks in kept[1:]:
        assert all(torch.equal(mask, kept[0][name]) for name, mask in masks.items())


def _inputs(model: nn.Module, name: str) -> Tensor:
    seen: list[Tensor] = []
    handle = model.get_submodule(name).register_forward_pre_hook(
        lambda _, args: seen.append(args[0].flatten(0, 1))
    )
    with torch.no_grad():
        for x in batches():
            model(x)
    handle.remove()
    return torch.cat(seen)


def test_padding_is_left_out(tower: Tower) -> None:
    x = batches(1)[0]
    mask = torch.ones(6, 10)
    mask[:, 7:] = 0
    noisy = x.clone()
    noisy[:, 7:] = 1e3
    layers = find_targets(tower, ["embed"])
    given = Calibration(tower, layers, [{"x": noisy, "attention_mask": mask}], follow_dense=False)
    expected = Moments()
    expected.add(x[:, :7].reshape(-1, 8))
    torch.testing.assert_close(given.collect(given.stages[0]).second, expected.second, rtol=1e-5, atol=1e-6)


def test_a_layer_called_twice_sees_all_its_inputs() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.a(self.a(x))
            return y

    torch.manual_seed(0)
    model = Twice()
    calibration = Calibration(model, find_targets(model, ["a"]), batches(1), follow_dense=False)
    moments = calibration.collect(calibration.stages[0])
    assert moments.tokens == 2 * 6 * 10


def test_chain_is_the_list_that_holds_the_targets(tower: Tower) -> None:
    assert find_chain(tower, find_targets(tower, ["Linear"])) == list(tower.blocks)
    assert find_chain(tower, find_targets(tower, ["head"])) == []


def test_targets_by_class_name_and_expression(tower: Tower) -> None:
    assert list(find_targets(tower, ["head"])) == ["head"]
    assert list(find_targets(tower, [r"re:blocks\.\d\.down"])) == [f"blocks.{i}.down" for i in range(3)]
    assert "embed" not in find_targets(tower, ["Linear"], ["embed", "re:.*gate"])
    with pytest.raises(ValueError, match=r"no nn\.Linear matches"):
        find_targets(tower, ["nothing"])
    with pytest.raises(TypeError, match=r"'blocks\.0' is a Block"):
        find_targets(tower, ["blocks.0"])
    tied = nn.ModuleDict({"a": nn.Embedding(8, 8), "b": nn.Linear(8, 8, bias=False)})
    tied["b"].weight = tied["a"].weight
    with pytest.raises(ValueError, match="'b' is also the weight of 'a'"):
        find_targets(tied, ["Linear"])


def test_mode_dtype_and_unreached_layers(tower: Tower) -> None:
    tower.train().bfloat16()
    prune_once(tower, NM(1, 4), progress=False)
    assert tower.training
    assert tower.head.weight.dtype == torch.bfloat16
    assert (tower.head.weight != 0).float().mean() == 0.25
    tower.float()
    tower.spare = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="never calls 'spare'"):
        sparsegpt(tower, NM(2, 4), batches(1), progress=False)


def test_recipes_refuse_parts_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"needs \['pivot'\]"):
        Recipe(NM(2, 4), score=OBSScore(), weights=Keep())
    with pytest.raises(ValueError, match=r"needs \['pivot'\]"):
        Recipe(NM(2, 4), score=OBSScore(), weights=ADMM())
    with pytest.raises(ValueError, match="leaves the sparsity open"):
        Recipe(Group(4))
    with pytest.raises(ValueError, match="'block' is the block of columns of the OBS rule"):
        Recipe(Unstructured(), allocation=Uniform(0.5, "block"))
    with pytest.raises(ValueError, match="dampening must be positive"):
        OBS(dampening=0.0)
    with pytest.raises(ValueError, match="fraction of zeros"):
        Uniform(1.0)
    with pytest.raises(ValueError, match="needs data"):
        prune_once(nn.Linear(4, 4), NM(2, 4), score=Wanda(), progress=False, targets=["Linear"])


def test_recipes_survive_json() -> None:
    recipe = Recipe(NM(2, 4, 16), OBSScore(), Uniform(), OneShot(), OBS(block_size=64, refit=3))
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert Recipe.from_dict({"pattern": {"kind": "NM", "n": 1, "m": 4}}) == Recipe(NM(1, 4))
    state = recipe.to_dict()
    state["weights"]["percdamp"] = 0.1
    with pytest.raises(ValueError, match=r"OBS has no field \['percdamp'\]"):
        Recipe.from_dict(state)
    with pytest.raises(ValueError, match="unknown kind 'Nothing'"):
        Recipe.from_dict({"pattern": {"kind": "Nothing"}})


def test_the_same_twice(tower: Tower) -> None:
    import copy

    first, second = (copy.deepcopy(tower) for _ in range(2))
    masks = [
        sparsegpt(model, Unstructured(), batches(), sparsity=0.7, progress=False) for model in (first, second)
    ]
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_magnitude_keeps_values_and_counts(tower: Tower) -> None:
    before = tower.blocks[1].up.weight.detach().clone()
    mask = magnitude(tower, Unstructured(), sparsity=0.8, progress=False)["blocks.1.up"]
    assert mask.sum() == round(0.2 * mask.numel())
    assert torch.equal(tower.blocks[1].up.weight, before * mask)
    assert before[mask].abs().min() >= before[~mask].abs().max()
    assert Magnitude().requires == frozenset()
