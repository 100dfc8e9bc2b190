"""2:4 weights as sparse tensor cores take them, in plain torch.

The layout is that of ``csrc/include/sparsecore/semi_structured.h``: blocks of 64 channels by 128 bytes of inputs, and
in a block the order in which the lanes of a warp hold the first operand of a sparse product. How many bytes a weight
has there, ``e`` = 2 or 1, is seen from the metadata, whose blocks have ``256 / e`` words. float32 values, which no
sparse product takes, stand in the layout of 16 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecore.reference.linear import activate

# One unit is eight bytes of a dense row: a register of stored weights, and their places. In the order of the values:
# slice, step, g and t of the lane, and of the register b and half.
_UNITS = (4, 2, 8, 4, 2, 2)
_AT_ONCE = 1 << 22  # places, of 16 bytes
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32}


def semi_structured_bytes(dtype: torch.dtype) -> int:
    """Bytes of a weight in the layout: 1 for int8 and 8-bit floats, else 2."""
    return 1 if dtype.itemsize == 1 else 2


def _blocks(rows: int, columns: int, size: int) -> tuple[int, int]:
    return -(-rows // 64), -(-columns // (128 // size))


def _bits(values: Tensor) -> Tensor:
    """Torch moves few things of eight-bit floats."""
    return values.view(_INTEGERS[values.element_size()])


def semi_structured_places(metadata: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column, in the matrix filled up to whole blocks, of every stored weight.

    Args:
        metadata: ``(n blocks, k blocks, 256 / e)`` int32.

    Returns:
        Two int64 tensors ``(n blocks, k blocks, 4096 / e)``.
    """
    size = 256 // metadata.shape[-1]
    blocks = metadata.shape[:2]
    units = torch.cartesian_prod(*(torch.arange(n, device=metadata.device) for n in _UNITS))
    part, step, g, t, b, half = units.unbind(1)
    words = metadata.reshape(*blocks, 4, 32, 2 // size).long() & 0xFFFFFFFF
    if size == 2:
        bits = words[:, :, part, 4 * g + 2 * step + b, 0] >> (16 * half + 4 * t)
    else:
        bits = words[:, :, part, 4 * g + half + 2 * b, step] >> (8 * t)
    slot = torch.arange(4 // size, device=metadata.device)
    inside = 4 * (slot // 2) + ((bits[..., None] >> (2 * slot)) & 3)
    first_row = 64 * torch.arange(blocks[0], device=metadata.device)
    first_column = 128 // size * torch.arange(blocks[1], device=metadata.device)
    rows = first_row[:, None, None, None] + (16 * part + g + 8 * half)[:, None]
    columns = (
        first_column[None, :, None, None] + ((8 * step + 4 * b + t) * (8 // size))[:, None] + inside
    ).flatten(2)
    return rows.expand(*blocks, 1024, 4 // size).reshape(columns.shape), columns


def _padded(matrix: Tensor, metadata: Tensor) -> Tensor:
    """A matrix filled up with zeros to whole blocks."""
    depth = metadata.shape[-1] // 2
    missing = (
        metadata.shape[0] * 64 - matrix.shape[0],
        metadata.shape[1] * depth - matrix.shape[1],
    )
    return torch.nn.functional.pad(matrix, (0, missing[1], 0, missing[0]))


def semi_structured_unpack(values: Tensor, metadata: Tensor, out_features: int, in_features: int) -> Tensor:
    """The dense weight.

    Args:
        values: ``(n blocks, k blocks, 4096 / e)`` of the weight's dtype.
        metadata: ``(n blocks, k blocks, 256 / e)`` int32.
        out_features: Rows, at most ``64 * n blocks``.
        in_features: Columns, at most ``128 / e * k blocks``.

    Returns:
        ``(out_features, in_features)`` in the dtype of ``values``.
    """
    stored = _bits(values.detach())
    dense = _padded(stored.new_zeros(0, 0), metadata)
    step = max(1, _AT_ONCE // max(values[:1].numel(), 1))
    for first in range(0, metadata.shape[0], step):
        rows, columns = semi_structured_places(metadata[first : first + step])
        dense[rows + 64 * first, columns] = stored[first : first + step]
    return dense[:out_features, :in_features].contiguous().view(values.dtype)


def window_lift_unpack(
    values: Tensor, metadata: Tensor, out_features: int, in_features: int, group: int
) -> Tensor:
    """The dense weight of a ``(group-2):group`` packing in float64; group 4 is 2:4.

    Lifted input ``4 W + p`` is input ``2 (W + W // (group / 2 - 1)) + p``: four inputs for each window, of which there
    are ``group / 2 - 1`` in a group.
    """
    windows = -(-in_features // group) * (group // 2 - 1)
    lifted = semi_structured_unpack(values, metadata, out_features, 4 * windows).double()
    window = torch.arange(windows, device=values.device)
    first = 2 * (window + window // (group // 2 - 1))
    source = (first[:, None] + torch.arange(4, device=values.device)).flatten()
    padded = lifted.new_zeros(out_features, -(-in_features // group) * group)
    return padded.index_add_(1, source, lifted)[:, :in_features].contiguous()


def semi_structured_gather(dense: Tensor, metadata: Tensor) -> Tensor:
    """What a dense matrix holds at the places of a packing, zero outside of the matrix.

    Args:
        dense: ``(out_features, in_features)``.
        metadata: ``(n blocks, k blocks, 256 / e)`` int32.

    Returns:
        ``(n blocks, k blocks, 4096 / e)`` in the dtype of ``dense``.
    """
    return _padded(_bits(dense.detach().contiguous()), metadata)[semi_structured_places(metadata)].view(
        dense.dtype
    )


def semi_structured_pack(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Packs what a mask keeps.

    Args:
        weight: ``(out_features, in_features)``.
        mask: Of the same shape, bool, at most two of four neighbouring inputs True. A group that keeps fewer stores
            zeros at its smallest free places.

    Returns:
        ``values`` in the dtype of ``weight`` and ``metadata``, int32; see :func:`semi_structured_unpack`.
    """
    size = semi_structured_bytes(weight.dtype)
    rows, columns = _blocks(weight.shape[0], weight.shape[1], size)
    like = torch.empty(rows, columns, 256 // size, device="meta")
    kept = _padded(mask, like).reshape(rows * 64, columns * (32 // size), 4)
    groups = torch.where(kept, _padded(_bits(weight.detach().contiguous()), like).reshape(kept.shape), 0)
    free = ~kept
    chosen = kept | (free & (free.cumsum(-1) <= 2 - kept.sum(-1, keepdim=True)))
    # The places of the two, ascending: the first True and the last.
    places = torch.stack(
        (chosen.to(torch.uint8).argmax(-1), 3 - chosen.flip(-1).to(torch.uint8).argmax(-1)), -1
    )
    unit = (rows, 4, 2, 8, columns, 2, 2, 4)  # row, slice, half, g; column, step, b, t
    values = (
        groups.gather(-1, places)
        .reshape(*unit, 4 // size)
        .permute(0, 4, 1, 5, 3, 7, 6, 2, 8)
        .reshape(rows, columns, 4096 // size)
    )
    pairs = (places[..., 0] | places[..., 1] << 2).reshape(*unit, 2 // size)
    t = torch.arange(4, device=weight.device)
    if size == 2:
        half = torch.arange(2, device=weight.device)
        words = (pairs[..., 0] << (4 * t)).sum(-1).permute(0, 4, 1, 3, 5, 6, 2)  # ... g, step, b, half
        words = (words << (16 * half)).sum(-1)
    else:
        codes = pairs[..., 0] | pairs[..., 1] << 4
        words = (codes << (8 * t)).sum(-1).permute(0, 4, 1, 3, 6, 2, 5)  # ... g, b, half, step
    words = torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)
    return values.contiguous().view(weight.dtype), words.reshape(like.shape)


def semi_structured_straight_through(grad: Tensor, weight: Tensor, kept: Tensor, decay: float) -> Tensor:
    """``grad + decay * (1 - mask) * weight``, SR-STE's gradient (Zhou et al. 2021), in float64.

    Args:
        grad: ``(out_features, in_features)``, of the weight that was multiplied.
        weight: The dense weight.
        kept: What of it was packed, zeros elsewhere.
        decay: Of what was not.
    """
    return grad.double() + decay * (weight.double() - kept.double())


def two_way_mask(score: Tensor) -> Tensor:
    """At most two of four neighbours kept along both directions of each 4 x 4 tile, from the largest score on.

    A weight stays if its row and its column of the tile hold fewer than two so far. Equal scores: the earlier row
    first, then the earlier column; a NaN counts as the largest. What lies past the edges counts as zero.

    Args:
        score: ``(out_features, in_features)``, not negative.
    """
    rows, columns = score.shape
    filled = score.detach().nan_to_num(nan=torch.inf)
    padded = torch.nn.functional.pad(filled, (0, -columns % 4, 0, -rows % 4))
    high, wide = padded.shape[0] // 4, padded.shape[1] // 4
    tiles = padded.reshape(high, 4, wide, 4).transpose(1, 2).reshape(high * wide, 16)
    order = tiles.argsort(dim=1, descending=True, stable=True)
    kept = torch.zeros_like(tiles, dtype=torch.bool)
    room = torch.full((high * wide, 8), 2, device=score.device)  # of the four rows, then of the four columns
    for place in order.unbind(1):
        row, column = (place // 4)[:, None], (place % 4 + 4)[:, None]
        keep = (room.gather(1, row) > 0) & (room.gather(1, column) > 0)
        kept.scatter_(1, place[:, None], keep)
        room.scatter_add_(1, row, -keep.long()).scatter_add_(1, column, -keep.long())
    return kept.reshape(high, wide, 4, 4).transpose(1, 2).reshape(padded.shape)[:rows, :columns].contiguous()


def semi_structured_damage(values: Tensor, metadata: Tensor, out_features: int, in_features: int) -> Tensor:
    """Where a packing is not valid: places that do not ascend, or something stored outside of the matrix.

    Returns:
        int64 ``(1,)``: ``channel * columns + input`` of the first group that offends, in the matrix filled up to
        whole blocks, or -1.
    """
    depth, columns_of_blocks = metadata.shape[-1] // 2, metadata.shape[1]
    # Of eight places at once, two bits each: whether the second of a pair is above the first.
    words = metadata.long() & 0xFFFFFFFF
    low, high = words & 0x33333333, words >> 2 & 0x33333333
    suspect = ((high + 0x44444444 - low - 0x11111111) >> 2 & 0x11111111 != 0x11111111).any(-1)
    suspect[out_features // 64 :] = True
    suspect[:, in_features // depth :] = True
    n_block, k_block = suspect.nonzero().unbind(1)
    found = [2**62]
    for one in range(0, len(n_block), _AT_ONCE // 4096):
        some = slice(one, one + _AT_ONCE // 4096)
        n, k = n_block[some, None, None], k_block[some, None, None]
        rows, columns = semi_structured_places(metadata[n_block[some], k_block[some]].unsqueeze(1))
        rows, columns = rows % 64 + 64 * n, columns + depth * k
        outside = (rows >= out_features) | (columns >= in_features)
        wrong = outside & (_bits(values[n_block[some], k_block[some]].unsqueeze(1)) != 0)
        pairs = columns.unflatten(-1, (-1, 2))
        offends = (pairs[..., 0] >= pairs[..., 1]) | wrong.unflatten(-1, (-1, 2)).any(-1)
        places = rows[..., ::2] * (columns_of_blocks * depth) + pairs[..., 0] // 4 * 4
        found.append(int(torch.where(offends, places, 2**62).min()))
    first = min(found)
    return torch.tensor([first if first < 2**62 else -1], device=metadata.device)


def semi_structured_linear(
    input: Tensor,
    values: Tensor,
    metadata: Tensor,
    scale: Tensor | None,
    token_scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out_features: int,
    activation: str,
    out_dtype: torch.dtype,
    group: int = 4,
) -> Tensor:
    """``activation(scale * token_scale * (input @ W.T) + bias) + residual``, in float64."""
    output = input.double() @ window_lift_unpack(values, metadata, out_features, input.shape[-1], group).T
    if scale is not None:
        output = output * scale
    if token_scale is not None:
        output = output * token_scale.reshape(*input.shape[:-1], 1)
    output = activate(output if bias is None else output + bias.double(), activation)
    return (output if residual is None else output + residual.double()).to(out_dtype)
