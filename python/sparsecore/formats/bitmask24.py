"""compressed-tensors' ``sparse-24-bitmask`` weights: half of the values, and one bit per weight.

The format is that of ``compressed_tensors/compressors/sparse_compressors/sparse_24_bitmask.py`` in release 0.12.2.
A weight ``<name>.weight`` of ``rows x inputs`` is stored as three tensors:

- ``<name>.shape``, int64 ``(2, 1)``: rows and inputs;
- ``<name>.compressed``, ``(rows, inputs / 2)``: the kept values, in order;
- ``<name>.bitmask``, uint8 ``(rows, ceil(inputs / 8))``: bit ``j % 8`` of byte ``j / 8`` is 1 where input ``j`` is
  kept, exactly 2 of every 4.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sparsecore.formats.base import PackedWeight, require_tensor
from sparsecore.formats.check import mask_violations
from sparsecore.formats.pack import pack
from sparsecore.formats.select import nm_mask
from sparsecore.patterns import NM

PARTS = ("shape", "compressed", "bitmask")
_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_PATTERN = NM(2, 4)
#: Patterns whose masks the format holds.
HELD = (NM(2, 4), NM(2, 4, two_way=True))


def bitmask24_keys(name: str) -> dict[str, str]:
    """The key of each part of a weight, ``name`` being the layer's or the weight's (``<layer>.weight``)."""
    layer = "" if name == "weight" else name.removesuffix(".weight")
    return {part: f"{layer}.{part}" if layer else part for part in PARTS}


def read_bitmask24(tensors: Mapping[str, Tensor], name: str, *, layout: str = "auto") -> PackedWeight:
    """One weight of a ``sparse-24-bitmask`` checkpoint, packed.

    Every place that the bitmask names is stored, be its value zero or not.

    Args:
        tensors: The checkpoint, or the part of it with the three tensors of this weight.
        name: Of the layer or of its weight; ``""`` or ``"weight"`` where the keys have no prefix.
        layout: See :func:`sparsecore.pack`.

    Returns:
        The weight packed as ``NM(2, 4)``, in the dtype of its values: float32, bfloat16, float16 or float64.

    Raises:
        ValueError: A tensor is missing, has another dtype or size, or the bitmask does not keep 2 of every 4. Quantised
            values (float8, int8) are refused: their scales are no part of the format.
    """
    owner = f"read_bitmask24: {name or 'weight'}"
    keys = bitmask24_keys(name)
    missing = [key for key in keys.values() if key not in tensors]
    if missing:
        raise ValueError(
            f"{owner}: needs the tensors {', '.join(keys.values())}; missing: {', '.join(missing)}."
        )
    shape, values, bitmask = (tensors[keys[part]] for part in PARTS)
    rows, inputs = _read_shape(owner, shape)
    if not isinstance(values, Tensor) or values.dtype not in _DTYPES:
        raise ValueError(
            f"{owner}: compressed values must be float32, bfloat16, float16 or float64, "
            f"got {getattr(values, 'dtype', type(values))}. Decompress and dequantise the checkpoint first."
        )
    require_tensor(owner, "compressed", values, values.dtype, (rows, inputs // 2))
    require_tensor(owner, "bitmask", bitmask, torch.uint8, (rows, -(-inputs // 8)))
    bits = torch.arange(8, dtype=torch.uint8, device=bitmask.device)
    flags = (bitmask.unsqueeze(-1) >> bits & 1).flatten(1)
    if flags[:, inputs:].any():
        row = int(flags[:, inputs:].any(1).nonzero()[0])
        raise ValueError(
            f"{owner}: the bitmask of row {row} has bits beyond input {inputs}. The file is damaged."
        )
    mask = flags[:, :inputs].bool()
    wrong = mask.view(rows, inputs // 4, 4).sum(-1) != 2
    if wrong.any():
        row, group = (int(i) for i in wrong.nonzero()[0])
        raise ValueError(
            f"{owner}: the bitmask keeps {int(mask[row, 4 * group : 4 * group + 4].sum())} of 4 weights at row {row}, "
            f"columns {4 * group} to {4 * group + 3}, and not 2 in {int(wrong.sum())} groups. "
            "The file is damaged or of another format."
        )
    dense = values.new_zeros((rows, inputs)).masked_scatter_(mask, values.detach())
    return pack(dense, _PATTERN, mask, layout=layout)


def _read_shape(owner: str, shape: Tensor) -> tuple[int, int]:
    sizes = shape.flatten().tolist() if isinstance(shape, Tensor) and shape.numel() == 2 else []
    if not all(isinstance(size, int) and size >= 0 for size in sizes) or len(sizes) != 2 or sizes[1] % 4:
        raise ValueError(
            f"{owner}: shape must hold two sizes, the second a multiple of 4, "
            f"got {sizes or shape}. The file is damaged."
        )
    return sizes[0], sizes[1]


def write_bitmask24(packed: PackedWeight, name: str) -> dict[str, Tensor]:
    """A packed weight as the three tensors of a ``sparse-24-bitmask`` checkpoint.

    A group that keeps fewer than two weights is filled up with zeros, the lowest places first.

    Args:
        packed: Of any layout and pattern, as long as no four neighbouring inputs of a row keep more than two.
        name: Of the layer or of its weight; the keys are ``<layer>.shape``, ``.compressed`` and ``.bitmask``.

    Returns:
        The tensors by key; they own their memory.

    Raises:
        ValueError: Inputs that 4 does not divide, int8 values, or a group that keeps more than two.
    """
    rows, inputs = packed.shape
    if packed.dtype not in _DTYPES:
        raise ValueError(
            f"write_bitmask24: {name}: the format has no scales for {packed.dtype} values. "
            "Pack sc.pack(packed.to_dense(), ...) and write that."
        )
    if inputs % 4:
        raise ValueError(
            f"write_bitmask24: {name}: inputs must be a multiple of 4, got {inputs}. Pad the weight with zeros."
        )
    kept = packed.mask()
    broken, _ = mask_violations(kept, _PATTERN)
    if broken.any():
        row, group = (int(i) for i in broken.nonzero()[0])
        raise ValueError(
            f"write_bitmask24: {name}: {int(broken.sum())} groups keep more than 2 of 4, first at row {row}, "
            f"column {4 * group}. Pack the weight as NM(2, 4) first."
        )
    mask = nm_mask(kept.to(torch.uint8).float(), 2, 4)
    values = packed.to_dense().detach()[mask].view(rows, inputs // 2)
    flags = torch.nn.functional.pad(mask.to(torch.uint8), (0, -inputs % 8)).view(rows, -(-inputs // 8), 8)
    bitmask = (flags << torch.arange(8, dtype=torch.uint8)).sum(-1, dtype=torch.uint8)
    keys = bitmask24_keys(name)
    shape = torch.tensor([[rows], [inputs]], dtype=torch.int64)
    return {keys["shape"]: shape, keys["compressed"]: values, keys["bitmask"]: bitmask}
