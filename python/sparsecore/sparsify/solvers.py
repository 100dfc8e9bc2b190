"""The numerics: prune one weight matrix so that its output changes least.

Objective, for weights ``W`` ``(rows, in)`` that become ``V`` with a given pattern of zeros:

    f(V) = tr(V H V^T) - 2 tr(V G^T),      G = W C

with the moments H and C of :mod:`~sparsecore.sparsify.calibration`. Damping adds ``delta |V - W|^2``, that is
``H + delta I`` and ``G + delta W``: directions in which the data says nothing keep their weights.

Two ways down:

* ``obs``: columns from left to right; each removed weight is made up for by the columns after it (optimal
  brain surgeon on a Cholesky factor, as SparseGPT does it). Chooses as it goes; never looks back.
* ``admm``: alternates the exact minimum with a pull towards the nearest matrix with the pattern, and raises
  the pull until the support stops changing (as ALPS does it). The choice and the weights settle together.

Conjugate gradients on the chosen support (``refit``) end either of them at the least-squares solution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecore.sparsify.scores import Score, Statistics
from sparsecore.sparsify.selection import Selector


@dataclass
class Problem:
    """One layer's objective, damped, in float32.

    Attributes:
        weight: ``(rows, in)``, the dense weights.
        hessian: ``(in, in)``, H + delta I.
        target: ``(rows, in)``, G + delta W.
        norm: ``(in,)``, root mean square of the inputs.
        dead: ``(in,)``, inputs that are always zero.
    """

    weight: Tensor
    hessian: Tensor
    target: Tensor
    norm: Tensor
    dead: Tensor

    @staticmethod
    def build(weight: Tensor, second: Tensor, cross: Tensor, dampening: float) -> Problem:
        """Damps by ``dampening`` times the mean of the diagonal of ``second``."""
        diagonal = second.diagonal()
        dead = diagonal == 0
        delta = dampening * diagonal.mean()
        hessian = second.clone()
        hessian.diagonal().add_(delta)
        hessian.diagonal()[dead] = 1.0
        dense = weight.double()
        target = (dense @ cross).add_(dense, alpha=delta.item()).masked_fill_(dead, 0.0)
        return Problem(weight.float(), hessian, target.float(), diagonal.sqrt().float(), dead)

    def loss(self, weight: Tensor) -> float:
        """F of a weight, up to the constant."""
        value = weight.double()
        return ((value @ self.hessian) * value).sum().item() - 2.0 * (
            value * self.target.double()
        ).sum().item()


def inverse_factor(hessian: Tensor) -> Tensor:
    """Upper triangular U with ``H^-1 = U^T U``, in float64.

    ``H = R R^T`` with R upper triangular is a Cholesky factorisation with rows and columns reversed; U is
    then ``R^-1``, and H is never inverted.

    Raises:
        ValueError: H is not positive definite.
    """
    reversed_factor, info = torch.linalg.cholesky_ex(hessian.double().flip(0, 1))
    if info.item() != 0:
        raise ValueError(
            "inverse_factor: the second moment is not positive definite. Use more data or more dampening."
        )
    upper = reversed_factor.flip(0, 1)
    eye = torch.eye(upper.shape[0], dtype=upper.dtype, device=upper.device)
    inverse: Tensor = torch.linalg.solve_triangular(upper, eye, upper=True)
    return inverse


def minimum(problem: Problem) -> Tensor:
    """The minimum of f without zeros, ``G H^-1``: W itself while the inputs are those of the dense model."""
    factor = torch.linalg.cholesky(problem.hessian)
    return torch.cholesky_solve(problem.target.double().T, factor).T.float()


def obs(problem: Problem, selector: Selector, score: Score, block_size: int) -> tuple[Tensor, Tensor]:
    """Optimal brain surgeon, column by column with lazy updates of the columns after a block.

    Returns:
        The pruned weight ``(rows, in)`` and its mask.
    """
    upper = inverse_factor(problem.hessian).float()
    pivot = upper.diagonal()
    weight = minimum(problem)
    weight[:, problem.dead] = 0.0
    width = weight.shape[1]
    mask = torch.zeros_like(weight, dtype=torch.bool)
    block_size = max(selector.align, block_size // selector.align * selector.align)
    whole = selector.whole
    if whole:
        mask = selector.mask(score(weight, Statistics(problem.norm, pivot)))
    for start in range(0, width, block_size):
        stop = min(start + block_size, width)
        block = weight[:, start:stop].clone()
        errors = torch.zeros_like(block)
        step = selector.step or stop - start
        for column in range(stop - start):
            if column % step == 0 and not whole:
                run = slice(start + column, min(start + column + step, stop))
                local = slice(column, run.stop - start)
                values = score(block[:, local], Statistics(problem.norm[run], pivot[run]))
                mask[:, run] = selector.mask(values, run.start)
            here = start + column
            removed = block[:, column].masked_fill(mask[:, here], 0.0)
            errors[:, column] = removed / pivot[here]
            block[:, column:].addr_(errors[:, column], upper[here, here:stop], alpha=-1.0)
        weight[:, start:stop] = block
        weight[:, stop:].addmm_(errors, upper[start:stop, stop:], alpha=-1.0)
    return weight.masked_fill_(~mask, 0.0), mask


def admm(
    problem: Problem, selector: Selector, score: Score, steps: int, pull: float, growth: float
) -> tuple[Tensor, Tensor]:
    """Alternating directions with a growing pull towards the pattern.

    The inputs are first scaled to unit second moment, so that one pull suits every column. With the
    eigenvectors of the scaled H each exact minimum costs two products.

    Returns:
        The pruned weight ``(rows, in)`` and its mask. Follow it by :func:`refit`.
    """
    scale = problem.hessian.diagonal().sqrt().float()
    scaled = (problem.hessian / torch.outer(scale, scale).double()).float()
    eigenvalues, basis = torch.linalg.eigh(scaled)
    target = problem.target / scale @ basis
    stats = Statistics(problem.norm)
    # Projected weights, and the dual of "equal to the minimum"; both in the scaled coordinates.
    projected = problem.weight * scale
    dual = torch.zeros_like(projected)
    mask = torch.zeros_like(projected, dtype=torch.bool)
    for _ in range(steps):
        free = ((target + (pull * projected - dual) @ basis) / (eigenvalues + pull)) @ basis.T
        wanted = free + dual / pull
        previous, mask = mask, selector.mask(score(wanted / scale, stats))
        projected = wanted.masked_fill(~mask, 0.0)
        dual += pull * (free - projected)
        pull *= growth
        if torch.equal(previous, mask):
            break
    return projected / scale, mask


def refit(problem: Problem, weight: Tensor, mask: Tensor, steps: int) -> Tensor:
    """Least squares on a fixed support by ``steps`` conjugate gradients, preconditioned by the diagonal."""
    scale = problem.hessian.diagonal().sqrt().float()
    scaled = (problem.hessian / torch.outer(scale, scale).double()).float()
    weight = weight * scale
    residual = (problem.target / scale - weight @ scaled).masked_fill_(~mask, 0.0)
    direction = residual.clone()
    energy = residual.square().sum(1, keepdim=True)
    for _ in range(steps):
        image = (direction @ scaled).masked_fill_(~mask, 0.0)
        length = energy / (direction * image).sum(1, keepdim=True).clamp_min(1e-30)
        weight += length * direction
        residual -= length * image
        old, energy = energy, residual.square().sum(1, keepdim=True)
        direction = residual + energy / old.clamp_min(1e-30) * direction
    return weight / scale
