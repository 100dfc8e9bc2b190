"""Where every operator runs when it is given CUDA tensors, and what those without kernels do instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.fx.experimental._config as fx_config
from torch import Tensor

import sparsecore as sc
from sparsecore import reference
from sparsecore._library import has_kernel
from sparsecore.formats.check import mask_violations
from sparsecore.formats.layouts import ORDER
from sparsecore.formats.variable_select import codes_of_mask, variable_mask
from sparsecore.ops import _on_cuda
from sparsecore.ops._on_cuda import COMPOSED, REFUSED, refusal

ROOT = Path(__file__).parents[2]

# Where an operator runs for CUDA tensors, by what it is called without its family: "kernel", "composed" of other
# operators or plain torch on the device, "refused" with the way out; "host": it takes no tensors.
TABLE: dict[str, dict[str, str]] = {
    "row_lists": {
        "block": "host",
        "linear linear_out weight_grad pack unpack validate transpose": "refused",
    },
    "shared_lists": {
        "linear weight_grad unpack fault": "kernel",
        "validate": "composed",
        "linear_out pack transpose": "refused",
    },
    "group_lists": {
        "depth window": "host",
        "linear weight_grad fault": "kernel",
        "unpack validate transpose": "composed",
        "linear_out pack conv2d conv2d_out conv2d_bind conv2d_weight_grad": "refused",
    },
    "nm_decode": {"linear linear_out pack unpack validate": "refused"},
    "bitmap_decode": {
        "linear unpack gather fault": "kernel",
        "validate": "composed",
        "linear_out pack": "refused",
    },
    "variable_nm": {"linear linear_out pack unpack validate": "refused"},
    "block_sparse": {"linear input_grad weight_grad validate": "kernel"},
    "semi_structured": {
        "compress decompress validate linear masked_linear gather sampled straight_through": "kernel"
    },
    "vnm": {"linear": "kernel"},
    "depthwise": {"conv2d": "refused"},
    "stem": {"conv2d": "refused"},
    "squeeze": {"excite": "refused"},
    "cuda": {"use_kernel": "host"},
}
WHERE = {
    f"{family}_{name}": where
    for family, rows in TABLE.items()
    for names, where in rows.items()
    for name in names.split()
}


def _operators() -> set[str]:
    names = torch._C._dispatch_get_all_op_names()
    return {name.split("::")[1].split(".")[0] for name in names if name.startswith("sparsecore::")}


def _that(where: str) -> set[str]:
    return {name for name, found in WHERE.items() if found == where}


def _cuda_sources() -> set[str]:
    """Operators of the CUDA library, which this build may not have, by its sources."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "csrc/torch/cuda").glob("*_ops.cpp"))
    return set(re.findall(r'm\.impl\("(\w+)"', text))


def test_the_table_holds_every_operator() -> None:
    assert set(WHERE) == _operators()
    without = {name for name in WHERE if not _takes_tensors(name)}
    assert _that("host") == without
    assert _that("kernel") == _cuda_sources() - without
    assert _that("composed") == set(COMPOSED)
    assert _that("refused") == set(REFUSED)


def _takes_tensors(name: str) -> bool:
    schema = getattr(torch.ops.sparsecore, name).default._schema
    return any("Tensor" in str(argument.type) for argument in schema.arguments)


@pytest.mark.parametrize("name", sorted(_that("composed") | _that("refused")))
def test_nothing_else_answers_for_cuda_tensors(name: str) -> None:
    """The dispatcher has what Python registered."""
    assert has_kernel(name, "cuda")
    registered = torch._C._dispatch_dump(f"sparsecore::{name}")
    here = [line for line in registered.splitlines() if line.startswith("CUDA")]
    assert len(here) == 1 and "sparsecore/ops/_common.py" in here[0], registered


def test_nothing_goes_through_the_host() -> None:
    source = Path(_on_cuda.__file__).read_text(encoding="utf-8")
    code = re.sub(r'"[^"]*"', "", source)  # what messages advise
    assert ".cpu(" not in code and ".to(" not in code


def test_layouts_of_cuda_have_operators_there() -> None:
    layouts = {row.layout for row in ORDER["cuda"]} - {"channels"}
    assert {f"{layout}_linear" for layout in layouts} <= _cuda_sources()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refusals_name_the_operator_and_the_way_out(name: str) -> None:
    with pytest.raises(RuntimeError, match=rf"^{name}: has no kernel for CUDA tensors\. \w.*[^.]\.$"):
        refusal(name, REFUSED[name])()


@pytest.mark.parametrize("family", ["shared_lists", "group_lists", "bitmap_decode"])
def test_validating_is_the_kernels_verdict(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    validate = COMPOSED[f"{family}_validate"]
    if not has_kernel(f"{family}_fault", "cuda"):
        with pytest.raises(
            RuntimeError, match=rf"^{family}_validate: .* without CUDA kernels\. Move .*\.cpu\(\)"
        ):
            validate(torch.zeros(1))
    asked = []

    def fault(*arguments: object) -> Tensor:
        asked.append(arguments)
        return torch.tensor([5, 17])

    monkeypatch.setattr(
        _on_cuda, "has_kernel", lambda name, device: (name, device) == (f"{family}_fault", "cuda")
    )
    monkeypatch.setattr(torch.ops.sparsecore, f"{family}_fault", fault)
    assert validate("arrays", 3) == (5 if family == "bitmap_decode" else (5, 17))
    assert asked == [("arrays", 3)]


def test_no_layout_is_taken_for_one_of_cuda_because_it_refuses_there() -> None:
    for pattern in ("1:4", "unstructured", "2:4", "n:16", "16x1"):
        found = sc.formats.layouts_for(sc.pattern(pattern), "cuda")
        assert not {f"{layout}_linear" for layout in found} & set(REFUSED)


@pytest.mark.parametrize("family", ["row_lists", "shared_lists", "group_lists", "bitmap_decode"])
def test_packing_on_a_device_stays_there(family: str) -> None:
    """On ``meta``, where a tensor of the host among those of the device is refused as on CUDA."""

    def packed(device: str) -> tuple[Tensor, ...]:
        mask = torch.ones(64, 128, device=device, dtype=torch.bool)
        arguments = {
            "row_lists": (mask, 64),
            "shared_lists": (mask[::16], 16),
            "group_lists": (mask[::4], 4, 1, 64, 8),
            "bitmap_decode": (mask,),
        }[family]
        found: tuple[Tensor, ...] = getattr(reference, f"{family}_pack")(mask.float(), *arguments)
        return found

    with fx_config.patch(meta_nonzero_assume_all_nonzero=True):
        nowhere = packed("meta")
    for mine, theirs in zip(nowhere, packed("cpu"), strict=True):
        assert mine.is_meta and (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)


@pytest.mark.parametrize(
    "pattern", ["2:4", "2:4/16", "2:4-two-way", "16:2:8", "4x4", "unstructured", "channels"]
)
def test_choosing_on_a_device_stays_there(pattern: str) -> None:
    free = sc.patterns.fixed_sparsity(sc.pattern(pattern)) is None
    score = torch.empty(64, 128, device="meta")
    mask = sc.formats.select_mask(score, sc.pattern(pattern), 0.5 if free else None)
    assert mask.is_meta and mask.shape == score.shape
    assert mask_violations(mask, sc.pattern(pattern))[0].is_meta


def test_choosing_among_blocks_stays_on_a_device() -> None:
    codes = codes_of_mask(torch.empty(64, 128, device="meta", dtype=torch.bool))
    assert codes.is_meta and codes.shape == (4, 8)
    assert variable_mask(torch.empty(64, 128, device="meta"), codes).is_meta


def test_the_transposed_structure_of_groups_is_made_without_waiting() -> None:
    """On ``meta`` there is nothing to wait for: sizes follow from shapes alone, and no number is read."""
    packed = sc.pack(torch.randn(40, 200), "4x2", sparsity=0.6, layout="group_lists")
    sizes = (packed.rows, packed.cols, 40, 200, packed.depth, packed.window, 128, 64)
    arrays = (packed.index, packed.order, packed.starts)
    expected = torch.ops.sparsecore.group_lists_transpose(*arrays, *sizes)
    found = COMPOSED["group_lists_transpose"](*arrays, *sizes)
    nowhere = COMPOSED["group_lists_transpose"](*(array.to("meta") for array in arrays), *sizes)
    for one, other, shape in zip(expected, found, nowhere, strict=True):
        assert torch.equal(one, other) and one.dtype == other.dtype
        assert shape.is_meta and (shape.shape, shape.dtype) == (one.shape, one.dtype)
    dense = COMPOSED["group_lists_unpack"](packed.values, *arrays, 40, 200, packed.depth, packed.window)
    assert torch.equal(dense, packed.to_dense())


@pytest.mark.parametrize("pattern", ["4x2", "unstructured", "1x16", "32x32"])
@pytest.mark.parametrize(("n", "k"), [(40, 200), (7, 333), (0, 48), (65, 0), (300, 31)])
def test_both_transposed_structures_are_one(pattern: str, n: int, k: int) -> None:
    torch.manual_seed(n)
    packed = sc.pack(torch.randn(n, k), pattern, sparsity=0.7, layout="group_lists")
    arguments = (packed.index, packed.order, packed.starts, packed.rows, packed.cols, n, k)
    arguments = (*arguments, packed.depth, packed.window, 128, 64)
    expected = torch.ops.sparsecore.group_lists_transpose(*arguments)
    for one, other in zip(expected, COMPOSED["group_lists_transpose"](*arguments), strict=True):
        assert torch.equal(one, other) and one.dtype == other.dtype


def test_damaged_groups_do_not_stray() -> None:
    """What no kernel has validated gives wrong numbers, and no access outside of the matrix."""
    packed = sc.pack(torch.randn(40, 200), "4x2", sparsity=0.6, layout="group_lists")
    sizes = (40, 200, packed.depth, packed.window)
    for damage in (
        {"index": torch.full_like(packed.index, -1)},
        {"order": torch.full_like(packed.order, 255)},
        {"starts": torch.full_like(packed.starts, 2**31 - 1)},
        {"starts": torch.full_like(packed.starts, -5)},
    ):
        arrays = [damage.get(name, getattr(packed, name)) for name in ("index", "order", "starts")]
        assert COMPOSED["group_lists_unpack"](packed.values, *arrays, *sizes).shape == (40, 200)
        found = COMPOSED["group_lists_transpose"](*arrays, packed.rows, packed.cols, *sizes, 128, 64)
        assert found[3].sort().values.tolist() == list(range(packed.records))
