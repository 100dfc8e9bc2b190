"""Penalties that pull a sparse model towards the dense one it came from.

With hidden states ``s_l`` of the sparse and ``t_l`` of the dense model after layer l, over the tokens that are not
padding:

    LayerDistillation   mean over l of  mean (s_l - t_l)^2
    SquareHead          mean over l of  sum (s_l - t_l)^2 / sum t_l^2        (Kurtic et al. 2023, sparse fine-tuning)
    Distillation        T^2 KL(softmax(t / T) || softmax(s / T)) of logits   (Hinton et al. 2015)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


def _check(owner: str, weight: float) -> None:
    if not 0.0 <= weight < float("inf"):
        raise ValueError(f"{owner}: weight must be finite and not negative, got {weight}.")


def _tokens(state: Tensor, mask: Tensor | None) -> Tensor:
    """``(tokens, hidden)`` without padding; ``mask`` is ``(batch, tokens)`` bool or None."""
    if mask is None or state.dim() != 3 or state.shape[:2] != mask.shape:
        return state.reshape(-1, state.shape[-1])
    return state[mask]


def _pairs(
    owner: str, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None
) -> Iterator[tuple[Tensor, Tensor]]:
    if len(student) != len(teacher) or not student:
        raise ValueError(
            f"{owner}: needs as many hidden states of both models, got {len(student)} and {len(teacher)}."
        )
    for s, t in zip(student, teacher, strict=True):
        if s.shape != t.shape:
            raise ValueError(
                f"{owner}: hidden states of shapes {tuple(s.shape)} and {tuple(t.shape)} do not compare."
            )
        yield _tokens(s, mask).float(), _tokens(t, mask).float()


@dataclass(frozen=True)
class LayerDistillation:
    """Mean squared error of every hidden state."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        _check("LayerDistillation", self.weight)

    def __call__(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """The penalty, a scalar; the teacher gets no gradient."""
        errors = [
            (s - t.detach()).square().mean() for s, t in _pairs("LayerDistillation", student, teacher, mask)
        ]
        return self.weight * torch.stack(errors).mean()


@dataclass(frozen=True)
class SquareHead:
    """Squared error of every hidden state relative to its energy in the dense model."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        _check("SquareHead", self.weight)

    def __call__(
        self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """The penalty, a scalar; the teacher gets no gradient."""
        errors = [
            (s - t.detach()).square().sum() / t.detach().square().sum().clamp_min(1e-12)
            for s, t in _pairs("SquareHead", student, teacher, mask)
        ]
        return self.weight * torch.stack(errors).mean()


@dataclass(frozen=True)
class Distillation:
    """Divergence of softened class probabilities, ``(..., classes)`` logits."""

    weight: float = 1.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        _check("Distillation", self.weight)
        if not self.temperature > 0.0:
            raise ValueError(f"Distillation: temperature must be positive, got {self.temperature}.")

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The penalty, a scalar; the teacher gets no gradient."""
        if student.shape != teacher.shape:
            raise ValueError(
                f"Distillation: logits of shapes {tuple(student.shape)} and {tuple(teacher.shape)} do not compare."
            )
        s = torch.log_softmax(student.float().reshape(-1, student.shape[-1]) / self.temperature, -1)
        t = torch.log_softmax(teacher.detach().float().reshape(-1, teacher.shape[-1]) / self.temperature, -1)
        divergence = nn.functional.kl_div(s, t, reduction="batchmean", log_target=True)
        return self.weight * self.temperature**2 * divergence


@contextmanager
def hidden_states(model: nn.Module, names: Sequence[str]) -> Iterator[list[Tensor]]:
    """Collects the first tensor that each named module returns, in order of the calls; clear the list between calls.

    Raises:
        AttributeError: The model has no such module.
    """
    found: list[Tensor] = []

    def hook(_: nn.Module, __: Any, output: Any) -> None:
        while not isinstance(output, Tensor):
            output = output[0]
        found.append(output)

    handles = [model.get_submodule(name).register_forward_hook(hook) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
