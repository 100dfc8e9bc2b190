"""torch's semi-structured CUTLASS layout, both ways, held against torch's own conversions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.sparse._semi_structured_conversions import (
    sparse_semi_structured_from_dense_cutlass,
    sparse_semi_structured_to_dense_cutlass,
)
from torch.sparse.semi_structured import (
    SparseSemiStructuredTensorCUSPARSELT,
    SparseSemiStructuredTensorCUTLASS,
)

import sparsecore as sc
from sparsecore.formats import (
    from_semi_structured,
    from_torch_semi_structured,
    to_semi_structured,
    to_torch_semi_structured,
)

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of SparseSemiStructuredTensor:UserWarning")

# dtype: pattern, rows and inputs are multiples of
KINDS = {
    torch.float16: (sc.NM(2, 4), 32, 32),
    torch.bfloat16: (sc.NM(2, 4), 32, 32),
    torch.float32: (sc.NM(1, 2), 32, 16),
    torch.int8: (sc.NM(2, 4), 16, 64),
}
kinds = pytest.mark.parametrize("dtype", KINDS, ids=str)


def _sparse(dtype: torch.dtype, rows: int, inputs: int, zeros: float = 0.3) -> Tensor:
    """A weight of the dtype's pattern; ``zeros`` of what it keeps is zero as well."""
    mask = sc.formats.select_mask(torch.rand(rows, inputs), KINDS[dtype][0])
    weight = torch.randint(-127, 128, (rows, inputs)) if dtype == torch.int8 else torch.randn(rows, inputs)
    return (weight * mask * (torch.rand(rows, inputs) >= zeros)).to(dtype)


def _scale(dtype: torch.dtype, rows: int) -> Tensor | None:
    return torch.rand(rows) + 0.5 if dtype == torch.int8 else None


@kinds
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_both_ways_as_torch_does(dtype: torch.dtype, data: st.DataObject) -> None:
    pattern, rows, inputs = KINDS[dtype]
    torch.manual_seed(data.draw(st.integers(0, 2**31)))
    rows, inputs = rows * data.draw(st.integers(1, 4)), inputs * data.draw(st.integers(1, 5))
    weight = _sparse(dtype, rows, inputs, data.draw(st.sampled_from([0.0, 0.3, 0.9, 1.0])))
    values, meta = sparse_semi_structured_from_dense_cutlass(weight)
    ours = to_semi_structured(weight)
    for got, wanted in zip(ours, (values, meta), strict=True):
        assert got.dtype == wanted.dtype
        assert torch.equal(got, wanted)
    # torch moves the halves of a float32 as float16, where copies of some nans change: only short ones are exact there
    short = weight.bfloat16().to(dtype) if dtype == torch.float32 else weight
    assert torch.equal(sparse_semi_structured_to_dense_cutlass(*to_semi_structured(short)), short)

    scale = _scale(dtype, rows)
    packed = from_semi_structured(values, meta, scale=scale)
    assert (packed.pattern, packed.dtype) == (pattern, dtype)
    assert torch.equal(packed.to_dense(), weight if scale is None else weight * scale[:, None])
    assert int(packed.mask().sum()) == rows * inputs // 2
    for got, wanted in zip(to_semi_structured(packed), (values, meta), strict=True):
        assert torch.equal(got, wanted)


@kinds
@pytest.mark.parametrize("layout", ["auto", "nm_decode"])
def test_the_layer_computes_what_the_dense_one_does(dtype: torch.dtype, layout: str) -> None:
    weight, scale = _sparse(dtype, 64, 128, zeros=0.0), _scale(dtype, 64)
    packed = from_semi_structured(*to_semi_structured(weight), scale=scale, layout=layout)
    assert packed.layout == ("row_lists" if layout == "auto" else layout)
    dense = weight.float() if scale is None else weight * scale[:, None]
    layer, input = sc.nn.SparseLinear.from_packed(packed, torch.ones(64)), torch.randn(7, 128)
    with torch.no_grad():
        want = input @ dense.T + 1
        assert (layer(input) - want).abs().max() <= 2e-6 * want.abs().max()


def test_a_mask_decides_what_is_kept() -> None:
    weight = torch.randn(32, 64, dtype=torch.float16)
    mask = sc.formats.select_mask(torch.rand(32, 64), sc.NM(2, 4))
    packed = from_semi_structured(*to_semi_structured(weight, mask))
    assert torch.equal(packed.mask(), mask)
    assert torch.equal(packed.to_dense(), weight * mask)
    assert torch.equal(to_semi_structured(packed)[0], to_semi_structured(weight, mask)[0])


def test_layouts_and_patterns_that_keep_less_go_out_too() -> None:
    dense = torch.randn(32, 64, dtype=torch.bfloat16)
    for packed in (
        sc.pack(dense, "2:4/16"),
        sc.pack(dense, "1:4", layout="nm_decode"),
        sc.pack(sc.pack(dense, "2:4").to_dense(), "unstructured", layout="bitmap_decode"),
    ):
        assert torch.equal(
            sparse_semi_structured_to_dense_cutlass(*to_semi_structured(packed)), packed.to_dense()
        )


@kinds
def test_invalid_codes_are_named(dtype: torch.dtype) -> None:
    """Every code but torch's own, at the first place of row 0, which the reordering leaves in place."""
    values, meta = to_semi_structured(_sparse(dtype, 64, 128))
    valid = {0x4, 0xE} if dtype == torch.float32 else {0x4, 0x8, 0x9, 0xC, 0xD, 0xE}
    for code in range(16):
        changed = meta.clone()
        changed[0, 0] = (int(meta[0, 0]) & ~0xF) | code
        if code in valid:
            from_semi_structured(values, changed, scale=_scale(dtype, 64))
        else:
            with pytest.raises(ValueError, match=rf"1 codes .*{code:#06b} at row 0, columns 0 to [13]\."):
                from_semi_structured(values, changed, scale=_scale(dtype, 64))


def test_an_invalid_code_is_found_where_torch_would_read_it() -> None:
    """Damage one element anywhere; the row and the columns named are those whose weights torch reads there."""
    weight = torch.ones(64, 128, dtype=torch.float16) * sc.formats.select_mask(
        torch.rand(64, 128), sc.NM(2, 4)
    )
    values, meta = to_semi_structured(weight)
    for place in (1, 5, 130, 511):
        changed = meta.clone()
        changed.view(-1)[place] ^= 0x7000  # the last of the four codes in this element
        before, after = (sparse_semi_structured_to_dense_cutlass(values, m) for m in (meta, changed))
        row, column = (before != after).nonzero()[0].tolist()
        code = int(changed.view(-1)[place]) >> 12 & 0xF
        if code & 3 < code >> 2:
            continue
        with pytest.raises(ValueError, match=rf"at row {row}, columns {column // 4 * 4} to "):
            from_semi_structured(values, changed)


@pytest.mark.parametrize(
    ("values", "meta", "scale", "message"),
    [
        (torch.zeros(32, 32, dtype=torch.float64), torch.zeros(32, 4, dtype=torch.int16), None, "float64"),
        (torch.zeros(32, 32), torch.zeros(32, 4, dtype=torch.int16), None, r"shape \(32, 8\)"),
        (torch.zeros(32, 32).half(), torch.zeros(32, 4, dtype=torch.int32), None, r"must be torch\.int16"),
        (torch.zeros(32, 32).half(), torch.zeros(31, 4, dtype=torch.int16), None, r"shape \(32, 4\)"),
        (
            torch.zeros(32, 32).half(),
            torch.zeros(128, dtype=torch.int16),
            None,
            "meta must be a tensor of two",
        ),
        (torch.zeros(24, 32).half(), torch.zeros(24, 4, dtype=torch.int16), None, "multiples of 32"),
        (torch.zeros(32, 24).half(), torch.zeros(32, 3, dtype=torch.int16), None, "multiples of 32"),
        (torch.zeros(0, 32).half(), torch.zeros(0, 4, dtype=torch.int16), None, "got 0 x 64"),
        (torch.zeros(32), torch.zeros(32, 4, dtype=torch.int16), None, "values must be a tensor of two"),
        (
            torch.zeros(32, 32).half(),
            torch.zeros(32, 4, dtype=torch.int16),
            torch.ones(32),
            "no others take one",
        ),
        (torch.zeros(16, 32).char(), torch.zeros(16, 2, dtype=torch.int32), None, "without a scale"),
        (torch.zeros(32, 32).half(), None, None, "got NoneType"),
    ],
)
def test_misfits_are_refused(values: Tensor, meta: Tensor, scale: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_semi_structured(values, meta, scale=scale)


def test_a_scale_that_does_not_fit_is_refused() -> None:
    values, meta = to_semi_structured(_sparse(torch.int8, 16, 64))
    for scale in (torch.ones(15), torch.ones(16).double(), torch.full((16,), torch.nan)):
        with pytest.raises(ValueError, match="scale"):
            from_semi_structured(values, meta, scale=scale)


def test_what_cannot_go_out_is_refused() -> None:
    half = torch.ones(32, 64, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"512 groups break 2:4 .* first at row 0, columns 0 to 3"):
        to_semi_structured(half)
    with pytest.raises(ValueError, match=r"break 1:2 .* of torch\.float32 weights"):
        to_semi_structured(sc.pack(torch.ones(32, 64), "2:4"))
    with pytest.raises(ValueError, match="multiples of 32"):
        to_semi_structured(half[:31])
    with pytest.raises(ValueError, match="leave mask out"):
        to_semi_structured(sc.pack(half, "2:4"), half != 0)
    with pytest.raises(ValueError, match="mask must be bool"):
        to_semi_structured(half, half)
    with pytest.raises(ValueError, match="float64"):
        to_semi_structured(half.double())
    with pytest.raises(ValueError, match="needs a packed weight or a tensor"):
        to_semi_structured(half[0])


@kinds
@pytest.mark.parametrize("layout", ["auto", "semi_structured"])
def test_torchs_own_tensors(dtype: torch.dtype, layout: str) -> None:
    """Made and read by torch's plain functions, on the CPU."""
    if dtype == torch.float32 and layout == "semi_structured":
        pytest.skip("float32 is 1:2 in torch, which that layout does not hold")
    weight, scale = _sparse(dtype, 64, 128, zeros=0.0), _scale(dtype, 64)
    values, meta = sparse_semi_structured_from_dense_cutlass(weight)
    tensor = SparseSemiStructuredTensorCUTLASS(weight.shape, values, meta, None, None, None)
    packed = from_torch_semi_structured(tensor, scale=scale, layout=layout)
    assert layout == "auto" or packed.layout == layout
    assert torch.equal(packed.to_dense(), weight if scale is None else weight * scale[:, None])
    again = to_torch_semi_structured(packed)
    assert torch.equal(again.packed, values)
    assert torch.equal(again.meta, meta)
    if dtype != torch.float32:  # of which torch moves the halves, where copies of some nans change
        assert torch.equal(again.to_dense(), weight)
    assert again.shape == weight.shape


class OpaqueTensor(SparseSemiStructuredTensorCUSPARSELT):
    """Its buffer cannot be read here; what it gives is the dense matrix."""

    dense: Tensor

    def to_dense(self) -> Tensor:
        return OpaqueTensor.dense


@pytest.mark.parametrize("dtype", [torch.float16, torch.int8], ids=str)
def test_cusparselt_goes_through_the_dense_matrix(dtype: torch.dtype) -> None:
    OpaqueTensor.dense, scale = _sparse(dtype, 64, 128), _scale(dtype, 64)
    buffer = torch.empty(64 * 128 * 9 // 16, dtype=dtype)
    tensor = OpaqueTensor(torch.Size((64, 128)), buffer, None, None, None, None)
    packed = from_torch_semi_structured(tensor, scale=scale, layout="semi_structured")
    dense = OpaqueTensor.dense
    assert torch.equal(packed.to_dense(), dense if scale is None else dense * scale[:, None])
    if scale is not None:
        with pytest.raises(ValueError, match="int8 values need a scale"):
            from_torch_semi_structured(tensor)
    with pytest.raises(RuntimeError, match="Only CUDA tensors"):  # torch's own
        to_torch_semi_structured(packed, backend="cusparselt")


def test_other_tensors_are_refused() -> None:
    with pytest.raises(TypeError, match=r"needs a torch\.sparse\.SparseSemiStructuredTensor, got Tensor"):
        from_torch_semi_structured(torch.ones(32, 64))
    with pytest.raises(ValueError, match="backend must be 'cutlass' or 'cusparselt'"):
        to_torch_semi_structured(sc.pack(torch.randn(32, 64).half(), "2:4"), backend="marlin")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("backend", ["cutlass", "cusparselt"])
def test_both_backends_on_a_gpu(backend: str) -> None:
    packed = sc.pack(torch.randn(128, 256, dtype=torch.float16, device="cuda"), "2:4")
    tensor = to_torch_semi_structured(packed, backend=backend)
    assert torch.equal(from_torch_semi_structured(tensor).to_dense(), packed.to_dense())


@pytest.mark.parametrize("backend", ["cutlass", "cusparselt"])
def test_lifted_weights_are_no_2_of_4(backend: str) -> None:
    lifted = sc.pack(torch.randn(64, 64, dtype=torch.bfloat16), "6:8", layout="semi_structured")
    with pytest.raises(
        ValueError, match=r"to_torch_semi_structured: torch's layout is 2:4, got a weight of 6:8"
    ):
        sc.formats.to_torch_semi_structured(lifted, backend=backend)
    with pytest.raises(ValueError, match=r"to_semi_structured: torch's layout is 2:4, got a weight of 6:8"):
        sc.formats.to_semi_structured(lifted)
