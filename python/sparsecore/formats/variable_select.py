"""Which N each 16 x 16 block of a matrix gets, and which weights it then keeps."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 16
CODES = (0, 2, 4, 8, 16)


def block_bytes(code: int, value_bytes: int) -> int:
    """Bytes of a block: its code, N values of 16 outputs, and four bits of index for each unless the block is dense."""
    return 1 + BLOCK * code * value_bytes + (BLOCK * code // 2 if code < BLOCK else 0)


def variable_nbytes(codes: Tensor, value_bytes: int) -> int:
    """Bytes of a matrix with these codes."""
    return sum(int((codes == code).sum()) * block_bytes(code, value_bytes) for code in CODES)


def _blocks(score: Tensor) -> Tensor:
    """A view ``(n / 16, k / 16, 16, 16)``: rows and inputs of a block last."""
    if score.dim() != 2 or score.shape[0] % BLOCK or score.shape[1] % BLOCK:
        raise ValueError(
            f"VariableNM: needs multiples of 16 outputs and inputs, got shape {tuple(score.shape)}. Pad with zeros."
        )
    return score.view(score.shape[0] // BLOCK, BLOCK, score.shape[1] // BLOCK, BLOCK).transpose(1, 2)


def choose_codes(
    score: Tensor,
    *,
    nbytes: int | None = None,
    sparsity: float | None = None,
    value_bytes: int = 4,
    empty: bool = False,
) -> Tensor:
    """An N for each block by greedy doubling: what gains most score for its bytes doubles next, while they last.

    Args:
        score: ``(out, in)``, not negative, higher is better; both multiples of 16.
        nbytes: What the packed weight may take, codes included.
        sparsity: Instead: the fraction of weights that may not be stored.
        value_bytes: Of a stored value, 1 for int8.
        empty: Whether blocks start with nothing; otherwise with two weights of every 16.

    Returns:
        ``(out / 16, in / 16)`` uint8.

    Raises:
        ValueError: A shape that 16 does not divide, a budget below what the start takes, or both or no budgets.
    """
    if (nbytes is None) == (sparsity is None):
        raise ValueError("choose_codes: give nbytes or sparsity.")
    blocks = _blocks(score.float())
    grid = blocks.shape[:2]
    levels = list(CODES if empty else CODES[1:])
    sums = torch.nn.functional.pad(blocks.sort(-1, descending=True).values.double().cumsum(-1), (1, 0))
    kept = sums.sum(2).flatten(0, 1)[:, levels]  # (blocks, levels)
    if nbytes is not None:
        cost = [block_bytes(code, value_bytes) for code in levels]
        budget = nbytes
    else:
        cost = [BLOCK * code for code in levels]
        budget = round((1.0 - (sparsity or 0.0)) * score.numel())
    spent = cost[0] * len(kept)
    if spent > budget:
        raise ValueError(
            f"choose_codes: the budget {budget} is below the {spent} that N={levels[0]} in every block takes. "
            f"Raise it or pass empty=True."
        )
    step = torch.tensor(cost, device=score.device).diff()
    # A later doubling waits for the earlier ones, so it never comes with a higher priority than they.
    priority = (kept.diff(dim=1) / step).cummin(1).values
    order = priority.flatten().argsort(dim=0, descending=True, stable=True)
    taken = order[step.repeat(len(kept))[order].cumsum(0) <= budget - spent]
    doublings = torch.bincount(taken // len(step), minlength=len(kept))
    return torch.tensor(levels, dtype=torch.uint8, device=score.device)[doublings].view(grid)


def codes_of_mask(mask: Tensor) -> Tensor:
    """The least N that holds what a mask keeps, by block."""
    most = _blocks(mask).sum(-1).amax(-1)
    codes = torch.tensor(CODES, device=mask.device)
    return codes[torch.searchsorted(codes, most.contiguous())].to(torch.uint8)


def variable_mask(score: Tensor, codes: Tensor) -> Tensor:
    """True at the N best of every 16 inputs of a row; of equal ones the first are taken."""
    blocks = _blocks(score.float())
    order = blocks.argsort(dim=-1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(-1, order, torch.arange(BLOCK, device=score.device).expand(blocks.shape))
    kept = rank < codes.to(torch.int64)[:, :, None, None]
    return kept.transpose(1, 2).reshape(score.shape)
