"""Group lists in plain torch. The layout is specified in csrc/include/sparsecore/group_lists.h."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from sparsecore.reference.linear import activate, linear

Structure = tuple[Tensor, Tensor, Tensor]


def _tiles(matrix: Tensor, rows: int, cols: int) -> Tensor:
    """A matrix, filled up with zeros, as ``(groups, blocks, cols, rows)``."""
    padded = functional.pad(matrix, (0, -matrix.shape[1] % cols, 0, -matrix.shape[0] % rows))
    return padded.view(padded.shape[0] // rows, rows, padded.shape[1] // cols, cols).permute(0, 2, 3, 1)


def _with_padding(records: Tensor) -> Tensor:
    """Records followed by the one of zeros that pipelines may read."""
    return torch.cat([records, records.new_zeros((1, *records.shape[1:]))])


def _places(
    index: Tensor, order: Tensor, starts: Tensor, blocks: int, per_panel: int, window: int
) -> tuple[Tensor, Tensor]:
    """Group and block (counted from the first column) of every record.

    Does not wait for a device. Of damaged lists the nearest place that there is, so that nothing strays.
    """
    panels, groups = order.shape
    record = torch.arange(index.shape[0] - 1, dtype=torch.int32, device=index.device)
    place = torch.searchsorted(starts[:, 1:].flatten().contiguous(), record, right=True).clamp(
        max=panels * groups - 1
    )
    panel, place = place // max(groups, 1), place % max(groups, 1)
    group = place // window * window + order.long()[panel, place]
    block = panel * per_panel + (index[:-1].long() & 0xFFFF)
    return group.clamp(max=groups - 1), block.clamp(max=blocks - 1)


def _longest_first(lengths: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Order, and the group at each place, from the lengths of lists, ``(panels, groups)``."""
    panels, groups = lengths.shape
    windows = -(-groups // window)
    padded = functional.pad(lengths, (0, windows * window - groups), value=-1)
    by_length = padded.view(panels, windows, window).argsort(dim=-1, descending=True, stable=True)
    order = by_length.view(panels, windows * window)[:, :groups]
    return order, torch.arange(groups, device=lengths.device) // window * window + order


def _starts(lengths: Tensor) -> Tensor:
    """Where lists of these lengths, ``(panels, groups)`` by place, begin; each panel goes on where the last ended."""
    panels, groups = lengths.shape
    ends = functional.pad(lengths.flatten().cumsum(0), (1, 0))
    first = torch.arange(panels, device=lengths.device)[:, None] * groups
    return ends[first + torch.arange(groups + 1, device=lengths.device)].to(torch.int32)


def _narrow(index: Tensor, per_panel: int) -> Tensor:
    return _with_padding(index).to(torch.uint8 if per_panel <= 256 else torch.int16)


def _structure(mask: Tensor, per_panel: int, window: int) -> tuple[Structure, tuple[Tensor, Tensor]]:
    """Index, order and starts of a mask of blocks, ``(groups, blocks)``, and the places of its records."""
    groups, blocks = mask.shape
    panels = -(-blocks // per_panel)
    kept = (
        functional.pad(mask, (0, panels * per_panel - blocks))
        .view(groups, panels, per_panel)
        .permute(1, 0, 2)
    )
    order, group = _longest_first(kept.sum(-1), window)
    panel, place, block = kept.gather(1, group.unsqueeze(-1).expand(kept.shape)).nonzero().unbind(1)
    starts = _starts(kept.sum(-1).gather(1, group))
    structure = (_narrow(block, per_panel), order.to(torch.uint8), starts)
    return structure, (group[panel, place], panel * per_panel + block)


def group_lists_pack(
    weight: Tensor, mask: Tensor, rows: int, cols: int, depth: int, window: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values, index, order and starts of ``weight`` (``(n, k)``).

    ``mask`` is ``(ceil(n / rows), ceil(k / cols))`` bool, True where a block is kept.
    """
    structure, places = _structure(mask, depth // cols, window)
    return (_with_padding(_tiles(weight, rows, cols)[places]).contiguous(), *structure)


def group_lists_unpack(
    values: Tensor,
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    out_features: int,
    in_features: int,
    depth: int,
    window: int,
) -> Tensor:
    """The dense matrix; differentiable in ``values``."""
    cols, rows = values.shape[1:]
    groups, blocks = -(-out_features // rows), -(-in_features // cols)
    dense = values.new_zeros((groups, blocks, cols, rows))
    dense = dense.index_put(_places(index, order, starts, blocks, depth // cols, window), values[:-1])
    return dense.permute(0, 3, 1, 2).reshape(groups * rows, blocks * cols)[:out_features, :in_features]


def group_lists_linear(
    input: Tensor,
    values: Tensor,
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    out_features: int,
    depth: int,
    window: int,
    activation: str = "none",
) -> Tensor:
    """``activation(input @ W.T + bias)``; differentiable in everything that is floating point."""
    dense = group_lists_unpack(values, index, order, starts, out_features, input.shape[-1], depth, window)
    return linear(input, dense, scale, bias, activation)


def group_lists_conv2d(
    input: Tensor,
    values: Tensor,
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    scale: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out_channels: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    depth: int,
    window: int,
    activation: str = "none",
) -> Tensor:
    """``activation(conv2d(input, W) + bias + residual)``; differentiable in everything that is floating point.

    The columns of W are ``(kernel position, input channel)``; ``padding`` is ``(top, left, bottom, right)``.
    """
    channels, taps = input.shape[1], kernel_size[0] * kernel_size[1]
    dense = group_lists_unpack(values, index, order, starts, out_channels, taps * channels, depth, window)
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    dense = dense.to(wide) if scale is None else dense.to(wide) * scale.to(wide).unsqueeze(1)
    kernel = dense.reshape(out_channels, *kernel_size, channels).permute(0, 3, 1, 2)
    top, left, bottom, right = padding
    padded = functional.pad(input.to(wide), (left, right, top, bottom))
    sums = functional.conv2d(
        padded, kernel, None if bias is None else bias.to(wide), tuple(stride), 0, tuple(dilation)
    )
    if residual is not None:
        sums = sums + residual.to(wide)
    return activate(sums, activation).to(input.dtype)


def group_lists_weight_grad(
    grad_output: Tensor,
    input: Tensor,
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    rows: int,
    cols: int,
    depth: int,
    window: int,
) -> Tensor:
    """The gradient of the kept values, ``(records + 1, cols, rows)``; 0 for what belongs to no weight."""
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    full = grad_output.flatten(0, -2).to(wide).T @ input.flatten(0, -2).to(wide)
    tiles = _tiles(full, rows, cols)
    return _with_padding(tiles[_places(index, order, starts, tiles.shape[1], depth // cols, window)])


def group_lists_conv2d_weight_grad(
    grad_output: Tensor,
    input: Tensor,
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    rows: int,
    cols: int,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    depth: int,
    window: int,
) -> Tensor:
    """As :func:`group_lists_weight_grad`, of a convolution."""
    wide = torch.float64 if input.dtype == torch.float64 else torch.float32
    top, left, bottom, right = padding
    padded = functional.pad(input.to(wide), (left, right, top, bottom))
    shape = (grad_output.shape[1], input.shape[1], *kernel_size)
    full = conv2d_weight(padded, shape, grad_output.to(wide), tuple(stride), 0, tuple(dilation))
    matrix = full.permute(0, 2, 3, 1).reshape(shape[0], -1)
    tiles = _tiles(matrix, rows, cols)
    return _with_padding(tiles[_places(index, order, starts, tiles.shape[1], depth // cols, window)])


def group_lists_transpose(
    index: Tensor,
    order: Tensor,
    starts: Tensor,
    rows: int,
    cols: int,
    out_features: int,
    in_features: int,
    depth: int,
    window: int,
    depth_t: int,
    window_t: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Index, order and starts of the transposed matrix, and the record of the original that each of its records is.

    Records are sorted, first by list to count them, then by where each list stands: nothing waits for a device.
    """
    groups, blocks = -(-out_features // rows), -(-in_features // cols)
    group, block = _places(index, order, starts, blocks, depth // cols, window)
    per_panel = depth_t // rows
    panels = -(-groups // per_panel)
    lists = torch.arange(panels * blocks + 1, device=index.device)
    bounds = torch.searchsorted((group // per_panel * blocks + block).sort().values, lists)
    lengths = bounds.diff().view(panels, blocks)
    order_t, block_at = _longest_first(lengths, window_t)
    inside = group % per_panel
    place = block_at.argsort(dim=1)[group // per_panel, block]
    source = ((group // per_panel * blocks + place) * per_panel + inside).argsort(stable=True)
    return (
        _narrow(inside[source], per_panel),
        order_t.to(torch.uint8),
        _starts(lengths.gather(1, block_at)),
        source.to(torch.int32),
    )
