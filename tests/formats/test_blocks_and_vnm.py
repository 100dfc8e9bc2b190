"""Square blocks and V:N:M without a GPU: patterns, packing, damage, files, layers on a CPU, pruning to them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.formats import layouts_for, placed, select_mask

BLOCKS = ("16x16", "32x32", "64x64", "128x128")
PICKED = ("16:2:8", "32:2:5", "64:2:16", "128:2:64")
PATTERNS = (*BLOCKS, *PICKED)
SIZES = [(256, 256), (1, 1), (70, 130), (17, 36), (200, 3), (0, 8), (8, 0)]
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def _layout(pattern: str) -> str:
    return "vnm" if ":" in pattern else "block_sparse"


def _packed(n: int, k: int, dtype: torch.dtype, pattern: str) -> tuple[sc.PackedWeight, Tensor, Tensor]:
    weight = torch.randn(n, k).to(dtype)
    mask = select_mask(torch.rand(n, k), sc.pattern(pattern), None if ":" in pattern else 0.5)
    return sc.pack(weight, pattern, mask, layout=_layout(pattern)), weight, mask


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_what_is_packed_comes_back(size: tuple[int, int], dtype: torch.dtype, pattern: str) -> None:
    packed, weight, mask = _packed(*size, dtype, pattern)
    assert packed.validate().dtype == dtype
    assert torch.equal(packed.to_dense(), weight * mask)
    assert torch.equal(packed.mask(), mask)
    assert packed.stored == int(mask.sum())
    assert sc.check_pattern(packed.to_dense(), pattern).ok


def test_names_and_values_of_patterns() -> None:
    assert sc.pattern("64:2:8") == sc.VNM(64, 2, 8)
    assert sc.pattern("128x128") == sc.Group(128, 128)
    for name in PATTERNS:
        assert sc.patterns.pattern_name(sc.pattern(name)) == name
        assert eval(repr(sc.pattern(name)), {"VNM": sc.VNM, "Group": sc.Group}) == sc.pattern(name)
    assert sc.patterns.fixed_sparsity(sc.VNM(64, 2, 8)) == 0.75
    assert sc.patterns.fixed_sparsity(sc.Group(64, 64)) is None
    for wrong, message in (
        ("24:2:8", "vector must be 16, 32, 64 or 128, got 24"),
        ("64:1:8", "n must be 2, got 1"),
        ("64:2:4", "m must be between 5 and 64, got 4"),
        ("64x32", "rows must be .* or 64 or 128 of a square block, got 64"),
        ("128x1", "rows must be .*, got 128"),
    ):
        with pytest.raises(ValueError, match=message):
            sc.pattern(wrong)


@pytest.mark.parametrize(("vector", "m"), [(16, 8), (64, 5), (128, 16)])
@pytest.mark.parametrize("size", [(150, 83), (64, 64), (3, 200)])
def test_vnm_keeps_the_best_two_of_the_best_four(size: tuple[int, int], vector: int, m: int) -> None:
    score = torch.rand(size)
    mask = select_mask(score, sc.VNM(vector, 2, m))
    n, k = size
    for first in range(0, n, vector):
        for start in range(0, k, m):
            part = score[first : first + vector, start : start + m]
            picked = part.sum(0).argsort(descending=True)[:4]
            for row in range(part.shape[0]):
                best = picked[part[row, picked].argsort(descending=True)[:2]]
                kept = mask[first + row, start : start + m].nonzero().flatten()
                assert sorted(best.tolist()) == kept.tolist()


def test_where_a_pattern_is_broken() -> None:
    mask = select_mask(torch.rand(70, 40), sc.VNM(16, 2, 8))
    weight = torch.ones(70, 40) * mask
    assert sc.check_pattern(weight, "16:2:8").ok
    free = (~mask[16:32, 8:16].any(0)).nonzero().flatten()
    five = weight.clone()
    five[20, 8:16] = 0
    five[20, 8 + free[0]] = 1  # a fifth input of the run, though one weight of its row
    report = sc.check_pattern(five, "16:2:8")
    assert (report.violations, report.first) == (1, (16, 8))
    three = weight.clone()
    used = mask[16:32, 8:16].any(0).nonzero().flatten()
    three[20, 8 + used[:3]] = 1
    report = sc.check_pattern(three, "16:2:8")
    assert (report.violations, report.first) == (1, (16, 8))
    with pytest.raises(ValueError, match=r"the mask breaks 16:2:8 .* first at row 16, column 8"):
        sc.pack(three, "16:2:8", three != 0)
    with pytest.raises(ValueError, match=r"fixes the sparsity to 0\.75"):
        select_mask(torch.rand(16, 16), sc.VNM(16, 2, 8), 0.5)


@pytest.mark.parametrize("pattern", PICKED)
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 53, 64])
def test_a_mask_that_keeps_fewer_is_filled_up(k: int, pattern: str) -> None:
    weight = torch.randn(40, k)
    mask = select_mask(torch.rand(40, k), sc.pattern(pattern)) & (torch.rand(40, k) < 0.5)
    mask[0] = False
    packed = sc.pack(weight, pattern, mask, layout="vnm").validate()
    assert torch.equal(packed.to_dense(), torch.where(mask, weight, 0))
    assert bool((packed.mask() | ~mask).all())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_on_the_cpu_it_becomes_what_runs_there(pattern: str) -> None:
    packed, _, mask = _packed(150, 140, torch.float32, pattern)
    assert packed.layout not in layouts_for(packed.pattern, "cpu")
    assert packed.layout in layouts_for(packed.pattern, None)
    other = placed(packed, "cpu").validate()
    assert (
        other.layout
        == layouts_for(packed.pattern, "cpu")[0]
        == ("row_lists" if ":" in pattern else "group_lists")
    )
    assert torch.equal(other.to_dense(), packed.to_dense())
    assert torch.equal(other.mask(), mask)
    input = torch.randn(3, 140)
    assert torch.allclose(other.linear(input), input @ packed.to_dense().T, atol=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_files_of_a_gpu_load_into_layers_of_the_cpu(pattern: str, tmp_path: Path) -> None:
    packed, _, _ = _packed(150, 140, torch.float32, pattern)
    made = sc.nn.SparseLinear.from_packed(packed, torch.randn(150))
    assert made.layout == _layout(pattern)
    sc.save(nn.Sequential(made), tmp_path / "model.safetensors")
    layer = sc.load(nn.Sequential(nn.Linear(140, 150)), tmp_path / "model.safetensors")[0]
    assert layer.layout in layouts_for(packed.pattern, "cpu")
    assert torch.equal(layer.weight.to_dense(), packed.to_dense())
    other = sc.nn.SparseLinear(140, 150, pattern="unstructured", sparsity=0.9)
    other.load_state_dict(made.state_dict())
    input = torch.randn(4, 140, requires_grad=True)
    for read in (layer, other):
        assert torch.allclose(read(input), input @ packed.to_dense().T + made.bias, atol=1e-4)
        read(input).sum().backward()
        assert read.weight_values.grad is not None
    clone = copy.deepcopy(made)
    assert torch.equal(clone.weight.to_dense(), packed.to_dense())


@pytest.mark.parametrize("pattern", PICKED)
def test_sizes_of_vnm_follow_from_the_shape(pattern: str) -> None:
    packed, _, _ = _packed(70, 130, torch.float32, pattern)
    layer = sc.nn.SparseLinear(130, 70, pattern=pattern, device="meta")
    assert layer.layout == "vnm"
    assert {name: tensor.shape for name, tensor in layer.weight.tensors().items()} == {
        name: tensor.shape for name, tensor in packed.tensors().items()
    }


def test_damaged_columns_are_refused() -> None:
    packed, _, _ = _packed(70, 130, torch.bfloat16, "16:2:8")
    layer = sc.nn.SparseLinear.from_packed(packed)
    state = layer.state_dict()
    for place, column in (((0, 0), 200), ((2, 5), 8), ((1, 4), 3), ((4, 7), 16)):
        crafted = packed.columns.clone()
        crafted[place] = column
        with pytest.raises(RuntimeError, match=r"vnm_validate: column \d+ at place \d+ of run \d"):
            layer.load_state_dict(state | {"weight_columns": crafted.view(torch.uint8)})
    with pytest.raises(RuntimeError, match=r"columns must be torch\.int16"):
        layer.load_state_dict(state | {"weight_columns": packed.columns[1:].contiguous().view(torch.uint8)})
    crafted = packed.metadata.clone()
    crafted.view(-1)[5] = 0
    with pytest.raises(RuntimeError, match="does not name two ascending places"):
        layer.load_state_dict(state | {"weight_metadata": crafted})


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("crow_indices", 0, 1, "crow_indices do not ascend.* at row of blocks 0"),
        ("crow_indices", 5, 10**6, "crow_indices do not ascend"),
        ("crow_indices", 2, -4, "crow_indices do not ascend"),
        ("col_indices", 3, 99, "col_indices are outside .* at entry 3"),
        ("col_indices", 3, -1, "col_indices are outside .* at entry 3"),
        ("order", 0, 5000, "order is not the rows"),
        ("order", 1, -1, "order is not the rows"),
    ],
)
def test_damaged_blocks_are_refused(name: str, place: int, value: int, message: str) -> None:
    torch.manual_seed(3)
    packed, _, _ = _packed(150, 300, torch.float32, "16x16")
    layer = sc.nn.SparseLinear.from_packed(packed)
    crafted = getattr(packed, name).clone()
    crafted[place] = value
    with pytest.raises(RuntimeError, match=message):
        layer.load_state_dict(layer.state_dict() | {f"weight_{name}": crafted})


def test_weights_outside_of_the_matrix_are_refused() -> None:
    mask = torch.ones(20, 40, dtype=torch.bool)
    packed = sc.pack(torch.ones(20, 40), "16x16", mask, layout="block_sparse")
    for at in ((3, 4, 0), (2, 0, 8)):
        crafted = packed.values.clone()
        crafted[at] = 1
        with pytest.raises(ValueError, match="what lies outside of the 20 x 40 matrix must be zero"):
            packed.with_values(crafted).validate()


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", [torch.int8, torch.float64], ids=str)
def test_types_that_are_not_stored(dtype: torch.dtype, pattern: str) -> None:
    weight = torch.randn(32, 32, dtype=torch.float32 if dtype == torch.int8 else dtype)
    with pytest.raises(
        ValueError, match=f"the layout {_layout(pattern)} stores float32, bfloat16 and float16"
    ):
        sc.pack(weight, pattern, dtype=dtype, layout=_layout(pattern))


@pytest.mark.parametrize("pattern", ["64x64", "64:2:8"])
def test_pruning_training_and_recipes(pattern: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(140, 150), nn.ReLU(), nn.Linear(150, 20))
    fixed = sc.patterns.fixed_sparsity(sc.pattern(pattern))
    data = [torch.randn(8, 140) for _ in range(2)]
    masks = sc.sparsify.wanda(
        copy.deepcopy(model), sc.pattern(pattern), data, sparsity=None if fixed else 0.5
    )
    for name, mask in masks.items():
        assert sc.check_pattern(mask.float(), pattern).ok, name
    solved = copy.deepcopy(model)
    masks = sc.sparsify.sparsegpt(solved, sc.pattern(pattern), data, sparsity=None if fixed else 0.5)
    assert all(sc.check_pattern(mask.float(), pattern).ok for mask in masks.values())
    if fixed is None:
        recipe = sc.sparsify.gmp(0.5, start=0, stop=4, every=2, pattern=pattern)
    else:
        recipe = sc.sparsify.sr_ste(pattern)
    assert sc.sparsify.Recipe.from_dict(recipe.to_dict()) == recipe
    sparsifier = sc.sparsify.Sparsifier(model, recipe)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    sparsifier.attach(optimizer)
    for _ in range(6):
        optimizer.zero_grad()
        model(torch.randn(8, 140)).square().mean().backward()
        optimizer.step()
    sparsifier.finalize()
    assert str(model[0].pattern) == str(sc.pattern(pattern))
    assert sc.check_pattern(model[0].weight.to_dense(), pattern).ok
