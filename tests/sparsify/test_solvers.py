"""The numerics of one layer, against brute force and against exact least squares."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from sparsecore.formats.select import mask_units
from sparsecore.patterns import NM, Group, Pattern, Unstructured
from sparsecore.sparsify import solvers
from sparsecore.sparsify.scores import Magnitude, OBSScore, Statistics, Wanda
from sparsecore.sparsify.selection import Selector


def correlated(tokens: int, width: int, seed: int = 0) -> Tensor:
    """Inputs with a few loud columns and correlations between neighbours."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=generator)
    mix = torch.eye(width) + 0.3 * torch.randn(width, width, generator=generator) / width**0.5
    x = x @ mix + 0.6 * torch.randn(tokens, 1, generator=generator)
    x[:, :: max(width // 6, 1)] *= 5.0
    return x


def problem(rows: int, width: int, seed: int = 0, dampening: float = 0.01) -> solvers.Problem:
    x = correlated(20 * width, width, seed)
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed + 1))
    second = (x.T @ x).double() / len(x)
    return solvers.Problem.build(weight, second, second, dampening)


def least_squares(given: solvers.Problem, mask: Tensor) -> Tensor:
    """The minimum of the objective on a support, row by row with a dense solver in float64."""
    best = torch.zeros(given.weight.shape, dtype=torch.float64)
    for row, kept in enumerate(mask):
        places = kept.nonzero().flatten()
        hessian = given.hessian[places][:, places]
        best[row, places] = torch.linalg.solve(hessian, given.target[row, places].double())
    return best


def removal(hessian: Tensor, weight: Tensor, column: int) -> Tensor:
    """What optimal brain surgeon makes of a row when a column goes and all later ones may change.

    Written from the formula ``dw = -w_j / [F^-1]_jj F^-1[:, j]`` with F the Hessian of the columns from j on.
    """
    inverse = torch.linalg.inv(hessian[column:, column:])
    changed = weight.clone()
    changed[column:] -= weight[column] / inverse[0, 0] * inverse[:, 0]
    changed[column] = 0.0
    return changed


@pytest.mark.parametrize("block_size", [1, 3, 8, 64])
def test_obs_is_the_sequential_brain_surgeon(block_size: int) -> None:
    """With the support given, blocks and lazy updates are only a schedule of the same arithmetic."""
    given = problem(rows=5, width=19)
    support = torch.rand(5, 19, generator=torch.Generator().manual_seed(3)) > 0.5

    class Given:
        """Scores that make a selector return the columns of ``support``."""

        def __init__(self) -> None:
            self.seen = 0

        def __call__(self, weight: Tensor, stats: Statistics) -> Tensor:
            return support.float()

    count = int(support.sum())
    selector = Selector(Unstructured(), 1.0 - count / support.numel(), "layer")
    pruned, mask = solvers.obs(given, selector, Given(), block_size)
    assert torch.equal(mask, support)
    for row in range(5):
        expected = given.weight[row].double()
        for column in range(19):
            if not support[row, column]:
                expected = removal(given.hessian, expected, column)
        torch.testing.assert_close(pruned[row].double(), expected, rtol=1e-4, atol=1e-5)


def test_inverse_factor_and_minimum() -> None:
    given = problem(rows=3, width=17)
    upper = solvers.inverse_factor(given.hessian)
    assert torch.equal(upper, upper.triu())
    torch.testing.assert_close(upper.T @ upper, torch.linalg.inv(given.hessian))
    torch.testing.assert_close(solvers.minimum(given), given.weight, rtol=1e-4, atol=1e-5)


def test_not_positive_definite_is_explained() -> None:
    with pytest.raises(ValueError, match="not positive definite"):
        solvers.inverse_factor(-torch.eye(3))


def test_identity_hessian_is_magnitude() -> None:
    """Independent inputs of equal size: nothing to make up for."""
    weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    eye = torch.eye(32, dtype=torch.float64)
    given = solvers.Problem.build(weight, eye, eye, 0.01)
    selector = Selector(NM(2, 4), 0.5, "row")
    expected = selector.mask(weight.square())
    for pruned, mask in (
        solvers.obs(given, selector, OBSScore(), 16),
        solvers.admm(given, selector, Wanda(), 60, 0.1, 1.1),
    ):
        assert torch.equal(mask, expected)
        pruned = solvers.refit(given, pruned, mask, 20)
        torch.testing.assert_close(pruned, weight * expected, rtol=1e-4, atol=1e-5)


def test_refit_reaches_least_squares() -> None:
    given = problem(rows=6, width=24)
    mask = Selector(NM(2, 4), 0.5, "row").mask(given.weight.square())
    refit = solvers.refit(given, given.weight * mask, mask, 60)
    torch.testing.assert_close(refit.double(), least_squares(given, mask), rtol=1e-3, atol=1e-4)
    assert not refit[~mask].any()


def test_against_every_support_of_a_small_layer() -> None:
    """Brute force over all masks of a row: ADMM finds (nearly) the best, OBS is not far, magnitude is."""
    width, keep, rows = 8, 4, 12
    given = problem(rows, width, seed=4)
    supports = [
        torch.zeros(width, dtype=torch.bool).index_fill(0, torch.tensor(c), True)
        for c in combinations(range(width), keep)
    ]
    excess = {"admm": 0.0, "obs": 0.0, "magnitude": 0.0}
    selector = Selector(Unstructured(), 1 - keep / width, "row")
    answers = {
        "admm": solvers.admm(given, selector, Wanda(), 60, 0.1, 1.1)[1],
        "obs": solvers.obs(given, selector, OBSScore(), width)[1],
        "magnitude": selector.mask(given.weight.square()),
    }
    floor = solvers.minimum(given).double()
    for row in range(rows):
        single = solvers.Problem(
            given.weight[row : row + 1], given.hessian, given.target[row : row + 1], given.norm, given.dead
        )
        zero = single.loss(floor[row : row + 1])
        best = min(single.loss(least_squares(single, support[None])) for support in supports) - zero
        for name, masks in answers.items():
            excess[name] += (single.loss(least_squares(single, masks[row : row + 1])) - zero) / best
    excess = {name: total / rows for name, total in excess.items()}
    assert 1.0 - 1e-6 <= excess["admm"] < 1.2, excess
    assert excess["admm"] <= excess["obs"] < 2.5, excess
    assert excess["obs"] < excess["magnitude"], excess


PATTERNS: list[tuple[Pattern, float, str]] = [
    (Unstructured(), 0.5, "row"),
    (Unstructured(), 0.5, "block"),
    (Unstructured(), 0.9, "layer"),
    (NM(2, 4), 0.5, "row"),
    (NM(1, 8), 0.875, "row"),
    (NM(2, 4, 16), 0.5, "row"),
    (NM(3, 5, 8), 0.4, "row"),
    (Group(4, 1), 0.5, "row"),
    (Group(8, 1), 0.75, "block"),
    (Group(4, 4), 0.5, "row"),
    (Group(2, 8), 0.5, "block"),
    (Group(1, 16), 0.5, "layer"),
]


@pytest.mark.parametrize(("pattern", "sparsity", "within"), PATTERNS, ids=str)
def test_obs_beats_magnitude_and_admm_beats_obs(pattern: Pattern, sparsity: float, within: str) -> None:
    """On correlated inputs, for every pattern, tails included (70 rows and 50 columns)."""
    given = problem(rows=70, width=50)
    selector = Selector(pattern, sparsity, within)  # type: ignore[arg-type]
    mask = selector.mask(Magnitude()(given.weight, Statistics()))
    losses = [given.loss(given.weight * mask)]
    obs, kept = solvers.obs(given, selector, OBSScore(), 16)
    losses.append(given.loss(obs))
    assert mask_units(kept, pattern).sum() == mask_units(mask, pattern).sum()
    if within != "block":
        admm, kept = solvers.admm(given, selector, Wanda(), 60, 0.1, 1.1)
        losses.append(given.loss(solvers.refit(given, admm, kept, 20)))
    floor = given.loss(solvers.minimum(given))
    errors = [loss - floor for loss in losses]
    assert errors == sorted(errors, reverse=True), errors
    assert errors[1] < 0.8 * errors[0], errors


def test_dead_inputs_are_pruned_first_and_harmless() -> None:
    x = correlated(400, 16)
    x[:, [3, 9]] = 0.0
    weight = 10 * torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    second = (x.T @ x).double() / len(x)
    given = solvers.Problem.build(weight, second, second, 0.01)
    assert given.dead.nonzero().flatten().tolist() == [3, 9]
    selector = Selector(Unstructured(), 0.5, "row")
    for pruned, mask in (
        solvers.obs(given, selector, OBSScore(), 8),
        solvers.admm(given, selector, Wanda(), 60, 0.1, 1.1),
    ):
        assert not pruned[:, [3, 9]].any()
        assert torch.isfinite(pruned).all()
        assert mask.sum() == 4 * 8
