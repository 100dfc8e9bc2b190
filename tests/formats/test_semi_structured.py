"""2:4 and (2N-2):2N for sparse tensor cores without a GPU: packing, files, damage, and coming back to the CPU."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore.formats import layouts_for, placed
from sparsecore.formats.layouts import ORDER

DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.int8)
SIZES = [(64, 128), (1, 1), (70, 130), (17, 36), (0, 8), (8, 0), (130, 262)]
LIFTED = ("4:6", "6:8", "30:32")
PATTERNS = ("2:4", *LIFTED)


def _packed(
    n: int, k: int, dtype: torch.dtype, pattern: str = "2:4"
) -> tuple[sc.PackedWeight, Tensor, Tensor]:
    weight = torch.randn(n, k)
    weight = weight if dtype == torch.int8 else weight.to(dtype)
    mask = sc.formats.select_mask(torch.rand(n, k), sc.pattern(pattern))
    stored = torch.int8 if dtype == torch.int8 else None
    return sc.pack(weight, pattern, mask, layout="semi_structured", dtype=stored), weight, mask


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_what_is_packed_comes_back(size: tuple[int, int], dtype: torch.dtype, pattern: str) -> None:
    packed, weight, mask = _packed(*size, dtype, pattern)
    packed.validate()
    assert packed.dtype == dtype
    if dtype == torch.int8:
        other = sc.pack(weight, pattern, mask, dtype=torch.int8)
        assert torch.equal(packed.to_dense(), other.to_dense())
        assert torch.equal(packed.integers(), other.integers())
    else:
        assert torch.equal(packed.to_dense(), weight * mask)
    assert torch.equal(packed.mask(), mask)
    assert packed.stored == int(mask.sum())


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 53, 64, 127])
def test_a_mask_that_keeps_fewer_is_filled_up(k: int, pattern: str) -> None:
    weight = torch.randn(40, k)
    weight[0] = torch.nan
    mask = sc.formats.select_mask(torch.rand(40, k), sc.pattern(pattern)) & (torch.rand(40, k) < 0.5)
    mask[0] = False
    packed = sc.pack(weight, pattern, mask, layout="semi_structured").validate()
    assert torch.equal(packed.to_dense(), torch.where(mask, weight, 0))
    assert bool((packed.mask() | ~mask).all())
    assert packed.stored == int(packed.mask().sum())
    assert packed.stored == sc.pack(weight, pattern, layout="semi_structured").stored
    # each of them has one slot: what is put into all slots comes back once
    ones = packed.with_values(torch.ones_like(packed.values))
    assert torch.equal(ones.to_dense(), packed.mask().float())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_without_a_mask_the_largest_stay(pattern: str) -> None:
    weight = torch.randn(20, 52)
    packed = sc.pack(weight, pattern, layout="semi_structured")
    assert torch.equal(packed.to_dense(), sc.pack(weight, pattern).to_dense())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_slot_too_many_is_refused(dtype: torch.dtype) -> None:
    """Input 2 of 6 in both of its windows, and one that stands past the last input."""
    lifted = torch.zeros(3, 8, dtype=torch.bool)
    lifted[:, :4] = torch.tensor([1, 1, 0, 0], dtype=torch.bool)
    lifted[:, 4:] = torch.tensor([1, 1, 0, 0], dtype=torch.bool)
    good, bad = lifted.clone(), lifted.clone()
    bad[2] = torch.tensor([1, 0, 1, 0, 1, 0, 1, 0], dtype=torch.bool)
    scale = torch.ones(3) if dtype == torch.int8 else None

    def weight(mask: Tensor, k: int, value: int) -> sc.formats.SemiStructured:
        values, metadata = sc.reference.semi_structured_pack((mask * value).to(dtype), mask)
        return sc.formats.SemiStructured((3, k), sc.NM(4, 6), values, scale, metadata)

    good_weight = weight(good, 6, 1).validate()
    assert good_weight.mask().tolist() == [[True] * 4 + [False] * 2] * 3
    with pytest.raises(ValueError, match="input 2 of channel 2 has a weight in two windows"):
        weight(bad, 6, 1).validate()
    with pytest.raises(ValueError, match="channel 2 must store 4 different inputs, got 3"):
        weight(bad, 6, 0).validate()
    with pytest.raises(ValueError, match="input 3 of channel 0 is past the last"):
        weight(good, 3, 1).validate()
    assert weight(good, 3, 0).validate().stored == 9


def test_patterns_it_does_not_hold() -> None:
    packed, _, _ = _packed(8, 24, torch.bfloat16, "6:8")
    for pattern in (sc.NM(5, 8), sc.NM(3, 5), sc.NM(6, 8, vector=4), sc.Unstructured()):
        with pytest.raises(ValueError, match="the pattern must be NM"):
            replace(packed, pattern=pattern).validate()
        with pytest.raises(ValueError, match="not as 'semi_structured'"):
            sc.pack(torch.randn(8, 24), pattern, layout="semi_structured")
    with pytest.raises(ValueError, match=r"values must be torch.bfloat16 of shape \(1, 3, 2048\)"):
        replace(packed, pattern=sc.NM(2, 4), shape=(8, 130)).validate()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_damage_is_refused(dtype: torch.dtype) -> None:
    packed, _, _ = _packed(70, 130, dtype)
    damaged = copy.deepcopy(packed)
    damaged.metadata.view(-1)[3] = 0  # both places of every group are the first
    with pytest.raises(
        ValueError, match=r"metadata of channel \d+, inputs \d+\.\.\d+ does not name two ascending"
    ):
        damaged.validate()
    outside = copy.deepcopy(packed)
    outside.values[1, :].fill_(1)  # channels past 70 are stored too
    with pytest.raises(ValueError, match=r"metadata of channel 64, inputs 132\.\.135 .* inside the matrix"):
        outside.validate()
    with pytest.raises(ValueError, match=r"metadata must be torch\.int32"):
        sc.formats.from_tensors(
            "semi_structured",
            (70, 130),
            sc.NM(2, 4),
            packed.tensors() | {"metadata": packed.metadata[:, :1].contiguous()},
            {},
        )


def test_the_first_offence_is_where_it_was_made() -> None:
    packed, _, _mask = _packed(130, 262, torch.bfloat16)
    rows, columns = sc.reference.semi_structured_places(packed.metadata)
    at = (1, 2, 700)  # a word of the metadata is of four groups in two rows; break one group of it
    row, column = int(rows[at]), int(columns[at]) // 4 * 4
    for lane in range(packed.metadata.shape[2]):
        for shift in range(0, 32, 4):
            trial = packed.metadata.clone()
            trial[1, 2, lane] &= ~torch.tensor(0xF << shift, dtype=torch.int64).to(torch.int32)
            where = int(sc.reference.semi_structured_damage(packed.values, trial, 130, 262))
            if where == row * 5 * 64 + column:
                return
    raise AssertionError("no change of metadata was reported there")


def test_the_dispatcher_and_the_order_decide_where_it_goes() -> None:
    here = "semi_structured" in layouts_for(sc.NM(2, 4))
    assert not here  # the CPU has no kernels for it
    assert layouts_for(sc.NM(2, 4), None)[0] == "row_lists"
    assert "semi_structured" in layouts_for(sc.NM(2, 4), None)
    for pattern in PATTERNS:
        assert layouts_for(sc.pattern(pattern), "meta") == ("semi_structured",)
        assert [row.layout for row in ORDER["cuda"] if row.holds(sc.pattern(pattern))] == (
            ["semi_structured"] + ["bitmap_decode"] * (pattern != "2:4") + ["group_lists"]
        )
    assert all(row.layout in sc.formats.layouts.LAYOUTS for rows in ORDER.values() for row in rows)
    with pytest.raises(ValueError, match=r"no kernels for NM\(1, 3\) on cuda; this installation has there: "):
        placed(sc.pack(torch.randn(4, 6), "1:3"), "cuda")


@pytest.mark.parametrize("pattern", ["2:4", "6:8"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_on_the_cpu_it_becomes_what_runs_there(dtype: torch.dtype, pattern: str) -> None:
    packed, _, _ = _packed(48, 75, dtype, pattern)
    other = placed(packed, "cpu")
    assert other.layout == "row_lists"
    assert other.dtype == dtype
    assert torch.equal(other.to_dense(), packed.to_dense())
    assert torch.equal(other.mask(), packed.mask())


@pytest.mark.parametrize("pattern", ["2:4", "6:8"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_file_made_for_a_gpu_runs_here(dtype: torch.dtype, pattern: str, tmp_path: Path) -> None:
    packed, _, _ = _packed(48, 72, dtype, pattern)
    source = sc.nn.SparseLinear.from_packed(packed, torch.randn(48), activation="relu")
    sc.save(nn.Sequential(source), tmp_path / "model.safetensors")
    dense = nn.Sequential(nn.Linear(72, 48))
    already = nn.Sequential(sc.nn.SparseLinear.from_dense(nn.Linear(72, 48), "1:4"))
    input = torch.randn(3, 72)
    want = torch.relu(input @ packed.to_dense().float().T + source.bias)
    for model in (
        sc.load(dense, tmp_path / "model.safetensors"),
        sc.load(already, tmp_path / "model.safetensors"),
    ):
        layer = model[0]
        assert isinstance(layer, sc.nn.SparseLinear)
        assert layer.layout == "row_lists"
        with torch.no_grad():
            got = layer(input)
        got = got if layer.activation == "relu" else torch.relu(got)
        assert torch.allclose(got.float(), want, atol=2e-2)


@pytest.mark.parametrize("pattern", ["2:4", "4:6"])
def test_damage_in_a_file_is_refused(pattern: str, tmp_path: Path) -> None:
    packed, _, _ = _packed(48, 72, torch.bfloat16, pattern)
    layer = sc.nn.SparseLinear.from_packed(packed)
    layer.weight_metadata.view(-1)[0] = 0
    sc.save(nn.Sequential(layer), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="does not name two ascending places"):
        sc.load(nn.Sequential(nn.Linear(72, 48, bias=False)), tmp_path / "model.safetensors")


def test_without_kernels_the_layer_says_what_to_do() -> None:
    packed, _, _ = _packed(48, 72, torch.bfloat16)
    layer = sc.nn.SparseLinear.from_packed(packed)
    with (
        torch.no_grad(),
        pytest.raises(RuntimeError, match=r"needs a CUDA tensor .*SparseLinear.*packs one made"),
    ):
        layer(torch.randn(2, 72, dtype=torch.bfloat16))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_meta_layers_take_a_file(dtype: torch.dtype, pattern: str, tmp_path: Path) -> None:
    layer = sc.nn.SparseLinear(75, 48, pattern=pattern, device="meta", dtype=dtype)
    assert layer.layout == "semi_structured"
    assert all(parameter.is_meta for parameter in layer.parameters())
    packed, _, _ = _packed(48, 75, dtype, pattern)
    source = sc.nn.SparseLinear.from_packed(packed, torch.ones(48, dtype=dtype))
    assert {k: v.shape for k, v in layer.state_dict().items()} == {
        k: v.shape for k, v in source.state_dict().items()
    }
    layer.load_state_dict(source.state_dict(), assign=True)
    assert torch.equal(layer.weight.to_dense(), packed.to_dense())
    empty = sc.nn.SparseLinear(75, 48, pattern=pattern, device="meta", dtype=dtype).to_empty(device="cpu")
    empty.load_state_dict(source.state_dict())
    assert torch.equal(empty.weight.to_dense(), packed.to_dense())
    with pytest.raises(ValueError, match="on meta"):
        sc.nn.SparseLinear(72, 48, pattern="1:4", device="meta")


def test_a_move_to_another_kind_of_device_packs_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is played: the layer is told it came from one, and everything stays in the CPU's memory."""
    packed, _, _ = _packed(48, 72, torch.float32)
    layer = sc.nn.SparseLinear.from_packed(packed, torch.ones(48))
    parameter, dense = layer.weight_values, layer.weight.to_dense()
    parameter.grad = torch.ones_like(parameter)
    arrived: list[torch.device] = []

    def arrive(weight: sc.PackedWeight, device: torch.device) -> sc.PackedWeight:
        arrived.append(device)
        return placed(weight, "cpu")

    class Elsewhere:
        device = torch.device("cuda", 0)

    monkeypatch.setattr("sparsecore.nn.linear.placed", arrive)
    layer._apply(lambda tensor: tensor if tensor.numel() else Elsewhere())  # type: ignore[arg-type, return-value]
    assert arrived == [torch.device("cuda", 0)]
    assert layer.layout == "row_lists"
    assert layer.weight_values is parameter
    assert parameter.grad is None
    assert torch.equal(layer.weight.to_dense(), dense)
    layer(torch.randn(3, 72)).sum().backward()
    assert parameter.grad is not None
    arrived.clear()
    layer.to(torch.bfloat16)
    assert not arrived


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_to_cuda_and_back(pattern: str) -> None:
    layer = sc.nn.SparseLinear.from_dense(nn.Linear(75, 48), pattern, dtype=torch.bfloat16)
    dense = layer.weight.to_dense()
    layer.cuda()
    assert layer.layout == "semi_structured"
    assert torch.equal(layer.weight.to_dense().cpu(), dense)
    layer.cpu()
    assert layer.layout == "row_lists"
    assert torch.equal(layer.weight.to_dense(), dense)
