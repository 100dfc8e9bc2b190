"""Recipes as data, one-shot pruning by them, and the torch.ao life cycle."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import sparsecore as sc
from sparsecore.patterns import NM, Group, Unstructured
from sparsecore.sparsify import OBS, Magnitude, Recipe, Uniform, Wanda, apply_recipe, magnitude, wanda
from sparsecore.sparsify.aliases import StepSparsifier, WandaSparsifier, WeightNormSparsifier
from sparsecore.sparsify.recipes import assign, load_recipe, oneshot


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8))


def data() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(16, 16, generator=generator)
    return [torch.randn(40, 16, generator=generator) @ mix for _ in range(3)]


def test_yaml_and_mapping_say_the_same(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text('preset: sparsegpt\npattern: "2:4"\nignore: ["4"]\n')
    (found,) = load_recipe(file)
    assert found == load_recipe({"preset": "sparsegpt", "pattern": "2:4", "ignore": ["4"]})[0]
    assert found.recipe.pattern == NM(2, 4)
    assert isinstance(found.recipe.weights, OBS)
    assert found.ignore == ("4",)
    assert load_recipe(found.to_dict()) == (found,)


def test_axes_by_name() -> None:
    (found,) = load_recipe(
        {
            "pattern": "unstructured",
            "score": "Wanda",
            "allocation": {"kind": "Uniform", "sparsity": 0.5},
            "weights": {"kind": "OBS", "block_size": 32},
        }
    )
    assert found.recipe == Recipe(Unstructured(), Wanda(), Uniform(0.5), weights=OBS(block_size=32))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "sparsegptt", "pattern": "2:4"}, "unknown preset 'sparsegptt'"),
        ({"preset": "wanda", "pattern": "2:4", "speed": 1}, "unknown key 'speed'"),
        ({"preset": "wanda"}, "needs a pattern"),
        ({"preset": "wanda", "pattern": "2:4", "score": "Wanda"}, "cannot stand beside"),
        ({"pattern": "2:4", "scores": "Wanda"}, "unknown part 'scores'"),
        ({"pattern": "9:4"}, "n < m"),
        ({"pattern": "2:4", "targets": 3}, "must be a list of names"),
        ({"preset": "wanda", "pattern": "unstructured", "sparsity": "half"}, "fraction of zeros"),
        ({"preset": "wanda", "pattern": "unstructured", "sparsity": 1.5}, r"\[0, 1\)"),
        ([], "a mapping or a list"),
        (None, "a mapping or a list"),
    ],
)
def test_mistakes_are_named(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe(given)  # type: ignore[arg-type]


def test_damaged_files(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    with pytest.raises(FileNotFoundError, match="no file"):
        load_recipe(file)
    file.write_text("preset: [unclosed")
    with pytest.raises(ValueError, match="not readable as YAML"):
        load_recipe(file)
    file.write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(ValueError, match=r"recipe\.yaml"):
        load_recipe(file)
    file.write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(ValueError, match="not readable as YAML"):
        load_recipe(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- {preset: [alps], pattern: '2:4'}", "unknown preset"),
        ("- {preset: magnitude, pattern: [2, 4]}", "needs a pattern or its name, got list"),
        ("- {path}", "mapping or a list of mappings, got str"),
        ("{path}", "mapping or a list of mappings, got str"),
        ("[]", "mapping or a list of mappings, got list"),
    ],
)
def test_mistakes_in_a_file_name_it(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text.replace("{path}", str(path)))  # a file that names itself
    with pytest.raises(ValueError, match=message) as raised:
        load_recipe(path)
    assert str(raised.value).startswith(str(path))


def test_several_recipes_in_one_pass(tmp_path: Path) -> None:
    model = network()
    recipe = [
        {"preset": "alps", "pattern": "2:4", "targets": ["2"]},
        {"preset": "wanda", "pattern": "unstructured", "sparsity": 0.75, "ignore": ["4"]},
    ]
    assert [str(found.pattern) for found in assign(model, recipe).values()] == [
        "unstructured (any weight)",
        "2:4 (keeps 2 of every 4)",
    ]
    before = model[4].weight.clone()
    assert oneshot(model, recipe, data(), output_dir=tmp_path / "out", progress=False) is model
    assert model[0].pattern == Unstructured()
    assert model[0].weight.sparsity == pytest.approx(0.75)
    assert model[2].pattern == NM(2, 4)
    assert torch.equal(model[4].weight, before)
    again = sc.load(network(), tmp_path / "out" / "model.safetensors")
    assert torch.equal(again(data()[0]), model(data()[0]))


def test_one_recipe_for_all_equals_one_for_each() -> None:
    together, apart = network(), network()
    recipe = Recipe(NM(2, 4), Wanda(), weights=OBS(block_size=16))
    one = apply_recipe(together, recipe, data=data(), progress=False)
    each = apply_recipe(apart, dict.fromkeys(["0", "2", "4"], recipe), data=data(), progress=False)
    assert all(torch.equal(mask, each[name]) for name, mask in one.items())
    assert all(torch.equal(value, apart.state_dict()[name]) for name, value in together.state_dict().items())
    with pytest.raises(ValueError, match="has not: 7"):
        apply_recipe(network(), {"0": Recipe(NM(2, 4)), "7": Recipe(NM(2, 4))}, progress=False)


def test_layers_that_imitate_themselves_beside_layers_that_imitate_the_dense_model() -> None:
    """In a mixed pass the self-imitating rule sees what it would see alone."""
    recipes = {
        "0": Recipe(NM(2, 4), Wanda(), weights=OBS()),
        "4": Recipe(NM(2, 4), Wanda(), weights=OBS(follow="dense")),
    }
    mixed, alone = network(), network()
    apply_recipe(mixed, recipes, data=data(), progress=False)
    apply_recipe(alone, {"0": recipes["0"]}, data=data(), progress=False)
    assert torch.equal(mixed[0].weight, alone[0].weight)


def test_torch_ao_life_cycle() -> None:
    model, plain = network(), network()
    sparsifier = WeightNormSparsifier(1.0, (1, 4), 2)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "2.weight"}])
    sparsifier.step()
    masks = magnitude(plain, NM(2, 4), ignore=["4"], progress=False)
    assert all(torch.equal(mask, masks[name]) for name, mask in sparsifier.masks.items())
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        model(data()[0]).square().sum().backward()
        optimizer.step()
    x = data()[1]
    expected = model(x)
    assert sparsifier.squash_mask() is model
    assert type(model[0].weight) is nn.Parameter
    assert sc.check_pattern(model[0].weight, NM(2, 4)).ok
    torch.testing.assert_close(model(x), expected)
    sparsifier.convert(model)
    assert isinstance(model[0], sc.nn.SparseLinear)
    assert type(model[4]) is nn.Linear
    torch.testing.assert_close(model(x), expected)


def test_levels_may_rise() -> None:
    model = network()
    sparsifier = WeightNormSparsifier(0.5, (8, 1), 8)
    assert sparsifier.recipe.pattern == Group(8, 1)
    sparsifier.prepare(model)
    for level in (0.25, 0.5, 0.75):
        sparsifier.step(level)
        assert all(
            1 - mask.float().mean().item() == pytest.approx(level) for mask in sparsifier.masks.values()
        )


def test_wanda_of_torchao() -> None:
    model, plain = network(), network()
    sparsifier = WandaSparsifier(semi_structured_block_size=4)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    with pytest.raises(ValueError, match="has seen no data"):
        sparsifier.step()
    for batch in data():
        model(batch)
    sparsifier.step()
    masks = wanda(plain, NM(2, 4), data(), targets=["0"], progress=False)
    assert torch.equal(sparsifier.masks["0"], masks["0"])
    sparsifier.convert(model)
    assert isinstance(model[0], sc.nn.SparseLinear)


def test_life_cycle_mistakes() -> None:
    sparsifier = StepSparsifier(Recipe(NM(2, 4), Magnitude()))
    with pytest.raises(ValueError, match="Call prepare"):
        sparsifier.step()
    with pytest.raises(ValueError, match=r"no layer '9'"):
        sparsifier.prepare(network(), [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "9.weight"}])
    with pytest.raises(ValueError, match=r"layer\.weight"):
        sparsifier.prepare(network(), [{"tensor_fqn": "0.bias"}])
    sparsifier.prepare(network())
    with pytest.raises(ValueError, match="already prepared"):
        sparsifier.prepare(network())
    with pytest.raises(ValueError, match=r"calls sparsity_level=1\.0"):
        WeightNormSparsifier(0.5, (1, 4), 2)
    with pytest.raises(ValueError, match="no kernel for blocks"):
        WeightNormSparsifier(0.5, (4, 4))
    with pytest.raises(ValueError, match="one-shot recipe"):
        StepSparsifier(Recipe(NM(2, 4), sc.sparsify.OBSScore(), weights=OBS()))
