"""Published ways to prune networks for images while they train: a sparsifier with its layers already chosen.

Both leave the first convolution and the last layer dense, as the papers do: pruning these small layers costs most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from sparsecore.patterns import Group, Unstructured
from sparsecore.sparsify.allocation import Allocation, Global, Uniform
from sparsecore.sparsify.calibration import Batch
from sparsecore.sparsify.kinds import AnyPattern, ByWidth, Kernels, PerKind
from sparsecore.sparsify.rearrange import rearrange_
from sparsecore.sparsify.recipe import Recipe
from sparsecore.sparsify.schedules import Cubic, OneShot, Schedule
from sparsecore.sparsify.scores import Absolute, Magnitude
from sparsecore.sparsify.sparsifier import Sparsifier
from sparsecore.sparsify.targets import matches

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def inner_layers(model: nn.Module, ignore: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Linear layers and convolutions but the first and the last, as the modules are listed.

    Args:
        model: Any module.
        ignore: More layers to leave out, as for :class:`~sparsecore.sparsify.Sparsifier`.
    """
    layers = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, *_CONVOLUTIONS))
    ]
    return {name: module for name, module in layers[1:-1] if not matches(name, module, ignore)}


def _is_pointwise(layer: nn.Module) -> bool:
    return isinstance(layer, _CONVOLUTIONS) and layer.groups == 1 and set(layer.kernel_size) == {1}


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, _CONVOLUTIONS) and layer.groups > 1


def fast_sparse_convnets(
    model: nn.Module,
    sparsity: float = 0.9,
    *,
    start: int,
    stop: int,
    every: int = 100,
    block: int = 1,
    wide: int = 0,
    ignore: Sequence[str] = (),
) -> Sparsifier:
    """Gradual magnitude pruning of the 1x1 convolutions (Elsen et al. 2020, Fast Sparse ConvNets).

    The published networks have 70 to 95 % zeros; MobileNetV1 uses ``block=4, wide=1024`` (its last block), MobileNetV2
    ``block=2, wide=576`` (from its eleventh block on), EfficientNet single weights throughout.

    Args:
        model: A network with 1x1 convolutions, changed in place as it trains.
        sparsity: Final fraction of zeros of each layer.
        start: Step of the first update of the cubic ramp.
        stop: Step of the last.
        every: Steps between.
        block: Neighbouring output channels that are kept together.
        wide: Only in layers with at least as many inputs or outputs; the others keep single weights.
        ignore: Layers to leave dense as well.

    Returns:
        A sparsifier; call its ``attach(optimizer)``.
    """
    blocks = Group(block, 1) if block > 1 else Unstructured()
    pattern: AnyPattern = ByWidth(Unstructured(), blocks, wide) if wide and block > 1 else blocks
    recipe = Recipe(pattern, Magnitude(), Uniform(sparsity, "layer"), Cubic(start, stop, every))
    targets = [name for name, layer in inner_layers(model, ignore).items() if _is_pointwise(layer)]
    return Sparsifier(model, recipe, targets=targets)


def sparse_byte_nn(
    model: nn.Module,
    sparsity: float = 0.3,
    *,
    n: int = 16,
    taps: Literal["each", "all"] = "each",
    depthwise: int | None = None,
    budget: Literal["layer", "network", "balanced"] = "layer",
    example: Batch | None = None,
    start: int = 0,
    stop: int | None = None,
    every: int = 100,
    ignore: Sequence[str] = (),
    seconds: float = 30.0,
) -> Sparsifier:
    """Groups of N outputs by L1 norm, in an order of the channels that suits them (SparseByteNN, Xu et al. 2023).

    Args:
        model: Changed in place: rearranged now if there is an ``example``, pruned now or as it trains.
        sparsity: Fraction of groups that go.
        n: Neighbouring outputs of a group of linear layers and convolutions.
        taps: Of k x k convolutions, ``"each"`` tap has groups of its own, or ``"all"`` taps go together.
        depthwise: Channels that drop a tap together in depthwise convolutions; None leaves these dense, since they hold
            few weights.
        budget: ``"layer"``: each loses the same share; ``"network"``: one threshold on the mean score of a group;
            ``"balanced"``: every run of N outputs keeps the same number of groups.
        example: An input of the model, for :func:`~sparsecore.sparsify.rearrange_`.
        start: Step of the first update of a cubic ramp.
        stop: Step of the last; None prunes at once.
        every: Steps between.
        ignore: Layers to leave dense as well.
        seconds: For the search for an order.

    Returns:
        A sparsifier; call its ``attach(optimizer)``.
    """
    group = Group(n, 1)
    schema = PerKind(group, group, Kernels(n) if taps == "all" else group, Group(depthwise or n, 1))
    split: Allocation = Uniform(sparsity, "row" if budget == "balanced" else "layer")
    if budget == "network":
        split = Global(sparsity)
    layers = inner_layers(model, ignore)
    targets = [name for name, layer in layers.items() if depthwise is not None or not _is_depthwise(layer)]
    if example is not None:
        rearrange_(model, example, schema, sparsity, targets=targets, seconds=seconds, progress=False)
    schedule: Schedule = OneShot() if stop is None else Cubic(start, stop, every)
    return Sparsifier(model, Recipe(schema, Absolute(), split, schedule), targets=targets)
