"""Penalties by hand, and recovery: better, sparse, reproducible, resumable, and safe when it diverges."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.sparsify import (
    Distillation,
    LayerDistillation,
    Recovery,
    SquareHead,
    magnitude,
    recover,
)
from sparsecore.sparsify.penalties import hidden_states


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x + self.down(torch.relu(self.up(x))),)


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)[0]
        return x


def data() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(8):
        mask = torch.ones(6, 10, dtype=torch.long)
        mask[0, 6:] = 0
        found.append({"ids": torch.randint(0, 50, (6, 10), generator=generator), "attention_mask": mask})
    return found


def pair() -> tuple[Tower, Tower]:
    torch.manual_seed(0)
    teacher = Tower()
    model = copy.deepcopy(teacher)
    magnitude(model, sc.Unstructured(), sparsity=0.7, progress=False)
    return model, teacher


def error(model: nn.Module, teacher: nn.Module) -> float:
    with torch.no_grad():
        return sum((model(**b) - teacher(**b)).square().mean().item() for b in data())


def test_penalties_by_hand() -> None:
    s = torch.tensor([[[1.0, 2.0], [3.0, 9.0]]])
    t = torch.tensor([[[1.0, 1.0], [2.0, 0.0]]])
    mask = torch.tensor([[True, False]])
    assert LayerDistillation()([s], [t]).item() == pytest.approx((0 + 1 + 1 + 81) / 4)
    assert LayerDistillation(2.0)([s], [t], mask).item() == pytest.approx(2 * 0.5)
    assert SquareHead()([s, s], [t, t]).item() == pytest.approx(83 / 6)
    assert SquareHead()([s], [t], mask).item() == pytest.approx(0.5)
    logits = torch.randn(4, 5, dtype=torch.float64)
    assert Distillation()(logits, logits).item() == pytest.approx(0.0, abs=1e-6)
    soft = torch.softmax(torch.tensor([0.0, 1.0]), 0)
    expected = sum(p * math.log(p / 0.5) for p in soft.tolist()) * 4
    assert Distillation(1.0, 2.0)(torch.zeros(1, 2), torch.tensor([[0.0, 2.0]])).item() == pytest.approx(
        expected
    )
    for make in (LayerDistillation, SquareHead, Distillation):
        with pytest.raises(ValueError, match="not negative"):
            make(-1.0)
    with pytest.raises(ValueError, match="do not compare"):
        SquareHead()([s], [t[:, :1]])
    with pytest.raises(ValueError, match="as many hidden states"):
        SquareHead()([s], [])


def test_hooks_are_gone_afterwards() -> None:
    model, _ = pair()
    with hidden_states(model, ["blocks.0", "blocks.2"]) as found:
        model(**data()[0])
        assert [state.shape for state in found] == [(6, 10, 16)] * 2
    assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("packed", [False, True])
def test_recovers_and_stays_sparse(packed: bool) -> None:
    model, teacher = pair()
    if packed:
        sc.sparsify_(model, "unstructured", lambda _, name: "blocks" in name)
    zeros = [parameter.detach() == 0 for parameter in model.parameters() if parameter.dim() > 1]
    embedding = model.embed.weight.clone()
    frozen = copy.deepcopy(teacher.state_dict())
    before = error(model, teacher)
    found = recover(model, teacher, data(), steps=60, lr=5e-3, progress=False)
    assert isinstance(found, Recovery)
    assert found.steps == 60
    assert found.losses[-1] < 0.5 * found.losses[0]
    assert error(model, teacher) < 0.5 * before
    after = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    assert all(not parameter[gone].any() for parameter, gone in zip(after, zeros, strict=True))
    assert torch.equal(model.embed.weight, embedding)
    assert all(torch.equal(value, frozen[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert model.training


def test_output_term_and_choice_of_parameters() -> None:
    model, teacher = pair()
    before = copy.deepcopy(model.state_dict())
    recover(
        model,
        teacher,
        data(),
        steps=5,
        layers=["blocks.1"],
        output=lambda result, batch: result.mean(1),
        train=lambda name, _: name == "blocks.0.up.bias",
        progress=False,
    )
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"blocks.0.up.bias"}


class Interrupt(Exception):
    pass


def test_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, teacher = pair()
    recover(whole, teacher, data(), steps=30, lr=1e-3, progress=False)

    broken, _ = pair()
    calls = 0

    def output(result: Tensor, batch: object) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 2 * 17:
            raise Interrupt
        return result.new_zeros(1, 1)

    file = tmp_path / "run.checkpoint"
    options = {"steps": 30, "lr": 1e-3, "checkpoint": file, "checkpoint_every": 10, "progress": False}
    with pytest.raises(Interrupt):
        recover(broken, teacher, data(), output=output, **options)
    assert file.exists()
    fresh, _ = pair()
    recover(fresh, teacher, data(), **options)
    assert not file.exists()
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in whole.state_dict().items())


def test_checkpoints_of_other_runs_and_damaged_ones(tmp_path: Path) -> None:
    model, teacher = pair()
    file = tmp_path / "run.checkpoint"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        recover(model, teacher, data(), steps=5, checkpoint=file, progress=False)
    torch.save({"run": {"version": 1}, "step": 3}, file)
    with pytest.raises(ValueError, match="of another run"):
        recover(model, teacher, data(), steps=5, checkpoint=file, progress=False)


def test_divergence_is_named_and_undone() -> None:
    model, teacher = pair()
    before = copy.deepcopy(model.state_dict())
    calls = 0

    def output(result: Tensor, batch: object) -> Tensor:
        nonlocal calls
        calls += 1
        return result.mean(1) * (float("nan") if calls > 8 else 1.0)

    with pytest.raises(ValueError, match="loss is nan at step 4"):
        recover(model, teacher, data(), steps=10, output=output, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_mistakes() -> None:
    model, teacher = pair()
    for options, message in (
        ({"data": []}, "holds no batch"),
        ({"steps": 0}, "steps >= 1"),
        ({"lr": 0.0}, "lr > 0"),
        ({"layers": ["nowhere"]}, "no module 'nowhere'"),
        ({"train": lambda *_: False}, "no parameter to learn"),
    ):
        arguments = {"data": data(), "steps": 3, "progress": False} | options
        with pytest.raises(ValueError, match=message):
            recover(model, teacher, arguments.pop("data"), **arguments)
