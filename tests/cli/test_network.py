"""Commands on models and batches of the user's own code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from tests.cli.test_cli import call

HERE = "tests.cli.test_network"


class Pointwise(nn.Module):
    """Not a transformer: convolutions, and linear layers over pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.expand = nn.Linear(16, 64)
        self.contract = nn.Linear(64, 16)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image).permute(0, 2, 3, 1)
        y: Tensor = x + self.contract(torch.relu(self.expand(x)))
        return y


def network() -> nn.Module:
    torch.manual_seed(0)
    return Pointwise()


def batches() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [{"image": torch.randn(2, 3, 16, 16, generator=generator)} for _ in range(2)]


def nothing() -> list[Tensor]:
    return []


READY = network()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    model = network()
    with torch.no_grad():
        model.expand.weight *= 2.0  # type: ignore[operator]
    sc.save(model, path)
    return path


def test_prune_calibrates_any_network(file: Path, tmp_path: Path) -> None:
    common = ("--network", f"{HERE}:network", "--pattern", "2:4", "--json")
    out, plain, dense = (tmp_path / f"{name}.safetensors" for name in ("out", "plain", "dense"))
    found = call("prune", file, *common, "--method", "alps", "--data", f"{HERE}:batches", "--output", out)
    assert [layer["name"] for layer in json.loads(found)["layers"]] == ["expand", "contract"]
    call("prune", file, *common, "--output", plain)
    call(
        "prune",
        file,
        *common,
        "--method",
        "alps",
        "--data",
        f"{HERE}:batches",
        "--format",
        "dense",
        "--output",
        dense,
    )
    given = batches()[0]
    whole = sc.load(network(), file)(**given)
    results = [sc.load(network(), path)(**given) for path in (out, plain, dense)]
    torch.testing.assert_close(results[0], results[2], rtol=1e-4, atol=1e-5)
    errors = [(result - whole).square().mean().item() for result in results]
    assert errors[0] < 0.7 * errors[1]  # calibration is worth something, and the file's weights were used
    assert type(sc.load(network(), dense).expand) is nn.Linear


def test_advise_judges_quality(file: Path) -> None:
    options = ("--seconds", "0.1", "--pattern", "2:4", "--json", "--network", f"{HERE}:network")
    advice = json.loads(call("advise", file, *options, "--data", f"{HERE}:batches", "--quality", "1.0"))
    assert advice["estimate"] == "calibration"
    assert [layer["tokens"] for layer in advice["layers"]] == [128, 128]
    assert json.loads(call("advise", file, *options))["estimate"] == "weights"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "network"], 'is "module:name"'),
        (["--network", "no_such_module:network"], "No module named 'no_such_module'"),
        (["--network", f"{HERE}:missing"], "has no 'missing'"),
        (["--network", f"{HERE}:batches"], "gave a list, not an nn.Module"),
        (["--network", f"{HERE}:READY", "--method", "wanda", "--data", f"{HERE}:nothing"], "holds no batch"),
        (["--network", f"{HERE}:READY", "--method", "wanda", "--data", "texts.txt"], 'is "module:name"'),
        (["--network", f"{HERE}:READY", "--format", "sparse-24-bitmask"], "sparsecore or dense"),
        (["--method", "wanda", "--data", "texts.txt"], "--network any model"),
    ],
)
def test_mistakes(file: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    out = tmp_path / "out.safetensors"
    assert message in call("prune", file, "--pattern", "2:4", *arguments, "--output", out, code=2)
    assert not out.exists()


def test_mistakes_of_advise(file: Path, tmp_path: Path) -> None:
    assert "needs --network" in call("advise", file, "--data", f"{HERE}:batches", code=2)
    assert "is none" in call("advise", tmp_path, "--network", f"{HERE}:network", code=2)
