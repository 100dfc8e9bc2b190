"""Every axis and every preset has a page: formula, source, when to use it, figure; the navigation leads to it."""

import inspect
import re
from pathlib import Path

import pytest

from sparsecore import sparsify
from sparsecore.sparsify import networks, presets, training

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
AXES = {
    part: f"axes/{part}.md"
    for part in ("target", "pattern", "score", "schedule", "grow", "gradient", "weights")
}
AXES |= {"allocation": "allocations.md", "penalty": "axes/penalty.md", "driver": "axes/driver.md"}
PRESETS = {
    name
    for module in (presets, training, networks)
    for name, found in vars(module).items()
    if inspect.isfunction(found) and found.__module__ == module.__name__ and name in sparsify.__all__
} | {"asp", "imp", "snip", "grasp", "synflow"}
NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def figures(text: str) -> list[str]:
    return re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets(name: str) -> None:
    page = DOCS / "presets" / f"{name}.md"
    text = page.read_text(encoding="utf-8")
    for part in ("**Formula.**", "**Source.**", "**When.**", "| axis | value |"):
        assert part in text
    assert figures(text) == [f"../figures/presets/{name}.png"]
    assert f"presets/{name}.md" in NAVIGATION
    assert f"({name}.md)" in (DOCS / "presets" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("axis", sorted(AXES))
def test_axes(axis: str) -> None:
    text = (DOCS / AXES[axis]).read_text(encoding="utf-8")
    assert any(name.endswith(f"figures/axes/{axis}.png") for name in figures(text))
    assert axis == "target" or "| source |" in text or "**Source.**" in text
    assert "**When.**" in text or "| when |" in text
    assert AXES[axis] in NAVIGATION


def test_recipes_have_no_axis_without_a_page() -> None:
    assert set(inspect.signature(sparsify.Recipe).parameters) <= {*AXES, "start"}


@pytest.mark.parametrize(
    "axis", ["score", "allocation", "schedule", "grow", "gradient", "weights", "penalty"]
)
def test_every_value_of_an_axis_is_on_its_page(axis: str) -> None:
    from sparsecore.sparsify import allocation as allocations
    from sparsecore.sparsify import gradients, grow, penalties, schedules, scores, weights

    module = {
        "score": scores, "allocation": allocations, "schedule": schedules, "grow": grow, "gradient": gradients,
        "weights": weights, "penalty": penalties,
    }[axis]  # fmt: skip
    values = [
        name
        for name, found in vars(module).items()
        if inspect.isclass(found) and found.__module__ == module.__name__ and name in sparsify.__all__
    ]
    text = (DOCS / AXES[axis]).read_text(encoding="utf-8")
    assert values
    assert not [name for name in values if f"`{name}(" not in text]


def test_every_figure_can_be_drawn_again() -> None:
    text = (ROOT / "benchmarks" / "figures.py").read_text(encoding="utf-8")
    for folder, names in (("axes", AXES), ("presets", PRESETS)):
        drawn = {path.stem for path in (DOCS / "figures" / folder).glob("*.png")}
        assert drawn == set(names)
    assert all(f'"{name}"' in text or f"/{name}" in text for name in PRESETS)
