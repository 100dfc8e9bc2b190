"""compressed-tensors' sparse-24-bitmask weights: exact both ways, and refusal of everything malformed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsecore as sc
from sparsecore.formats import read_bitmask24, write_bitmask24

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def test_a_weight_worked_out_by_hand() -> None:
    """Row 0 keeps inputs 0, 3, 5, 6, 10, 11; row 1 keeps 1, 2, 4, 5, 8, 11. Made with compressed-tensors 0.12.2."""
    dense = torch.tensor(
        [[1.0, 0, 0, 2, 0, 3, 4, 0, 0, 0, 5, 6], [0, -1, -2, 0, -3, -4, 0, 0, -5, 0, 0, -6]],
        dtype=torch.float16,
    )
    stored = {
        "up.shape": torch.tensor([[2], [12]]),
        "up.compressed": torch.tensor([[1.0, 2, 3, 4, 5, 6], [-1, -2, -3, -4, -5, -6]], dtype=torch.float16),
        "up.bitmask": torch.tensor([[0b0110_1001, 0b1100], [0b0011_0110, 0b1001]], dtype=torch.uint8),
    }
    packed = read_bitmask24(stored, "up")
    assert torch.equal(packed.to_dense(), dense)
    written = write_bitmask24(packed, "up.weight")
    assert written.keys() == stored.keys()
    for key, tensor in stored.items():
        assert written[key].dtype == tensor.dtype
        assert torch.equal(written[key], tensor), key


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 40),
    groups=st.integers(0, 40),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(["auto", "nm_decode"]),
    seed=st.integers(0, 2**31),
)
def test_round_trip(rows: int, groups: int, dtype: torch.dtype, layout: str, seed: int) -> None:
    torch.manual_seed(seed)
    packed = sc.pack(torch.randn(rows, 4 * groups, dtype=dtype), "2:4", layout=layout)
    stored = write_bitmask24(packed, "layer")
    assert stored["layer.bitmask"].shape == (rows, -(-groups // 2))
    again = read_bitmask24(stored, "layer", layout=layout)
    assert (again.pattern, again.layout, again.dtype) == (sc.NM(2, 4), packed.layout, dtype)
    assert torch.equal(again.mask(), packed.mask())
    assert torch.equal(again.to_dense(), packed.to_dense())


def test_names() -> None:
    packed = sc.pack(torch.randn(4, 8), "2:4")
    assert list(write_bitmask24(packed, "a.b.weight")) == ["a.b.shape", "a.b.compressed", "a.b.bitmask"]
    for name in ("", "weight"):
        stored = write_bitmask24(packed, name)
        assert list(stored) == ["shape", "compressed", "bitmask"]
        assert torch.equal(read_bitmask24(stored, name).to_dense(), packed.to_dense())
    assert next(iter(write_bitmask24(packed, "a.myweight"))) == "a.myweight.shape"


def test_groups_that_keep_less_are_filled_up() -> None:
    dense = torch.randn(16, 32) * (torch.rand(16, 32) < 0.1)
    dense[:, 2::4] = dense[:, 3::4] = 0
    dense[0] = 0
    for packed in (
        sc.pack(dense, "unstructured"),
        sc.pack(dense, "unstructured", layout="bitmap_decode"),
        sc.pack(dense, "1:4"),
        sc.pack(dense, "2:4/16"),
    ):
        stored = write_bitmask24(packed, "layer")
        assert torch.equal(read_bitmask24(stored, "layer").to_dense(), packed.to_dense())


def test_the_layer_computes_what_the_dense_one_does() -> None:
    dense = sc.pack(torch.randn(48, 64), "2:4").to_dense()
    layer = sc.nn.SparseLinear.from_packed(read_bitmask24(write_bitmask24(sc.pack(dense, "2:4"), "x"), "x"))
    input = torch.randn(5, 64)
    assert torch.allclose(layer(input), input @ dense.T, atol=1e-5)


def _bits(stored: dict[str, torch.Tensor], value: int) -> torch.Tensor:
    bitmask = stored["layer.bitmask"].clone()
    bitmask[3, 1] = value
    return bitmask


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (
            "bitmask",
            lambda stored: _bits(stored, 0b0111_0011),
            "keeps 3 of 4 weights at row 3, columns 12 to 15",
        ),
        (
            "bitmask",
            lambda stored: _bits(stored, 0b0011_0001),
            "keeps 1 of 4 weights at row 3, columns 8 to 11",
        ),
        ("bitmask", lambda stored: _bits(stored, 0), "keeps 0 of 4"),
        ("bitmask", lambda stored: stored["layer.bitmask"] | 0xF0, "row 0 has bits beyond input 20"),
        ("bitmask", lambda stored: stored["layer.bitmask"][:, :-1].contiguous(), r"shape \(8, 3\)"),
        ("bitmask", lambda stored: stored["layer.bitmask"][:-1], r"shape \(8, 3\)"),
        ("bitmask", lambda stored: stored["layer.bitmask"].int(), r"must be torch\.uint8"),
        ("compressed", lambda stored: stored["layer.compressed"][:, :-1].contiguous(), r"shape \(8, 10\)"),
        ("compressed", lambda stored: stored["layer.compressed"].flatten(), r"shape \(8, 10\)"),
        ("compressed", lambda stored: stored["layer.compressed"].to(torch.float8_e4m3fn), "float8_e4m3fn"),
        ("compressed", lambda stored: stored["layer.compressed"].char(), "dequantise the checkpoint first"),
        ("shape", lambda stored: torch.tensor([[8], [18]]), "a multiple of 4"),
        ("shape", lambda stored: torch.tensor([[8], [-4]]), "two sizes"),
        ("shape", lambda stored: torch.tensor([8, 20, 1]), "two sizes"),
        ("shape", lambda stored: torch.tensor([8.0, 20.0]), "two sizes"),
        ("shape", lambda stored: torch.tensor([[2**60], [20]]), r"must be torch.float32 of shape"),
    ],
)
def test_damage_is_refused(part: str, change: object, message: str) -> None:
    stored = write_bitmask24(sc.pack(torch.randn(8, 20), "2:4"), "layer")
    if part == "bitmask" and "beyond" in message:
        assert stored["layer.bitmask"][:, -1].max() < 16
    with pytest.raises(ValueError, match=message):
        read_bitmask24({**stored, f"layer.{part}": change(stored)}, "layer")  # type: ignore[operator]


@pytest.mark.parametrize("part", ["shape", "compressed", "bitmask"])
def test_missing_tensors_are_named(part: str) -> None:
    stored = write_bitmask24(sc.pack(torch.randn(8, 20), "2:4"), "layer")
    del stored[f"layer.{part}"]
    with pytest.raises(ValueError, match=rf"read_bitmask24: layer: .* missing: layer\.{part}\."):
        read_bitmask24(stored, "layer")


def test_what_cannot_go_out_is_refused() -> None:
    weight = torch.randn(8, 18)
    with pytest.raises(ValueError, match="multiple of 4, got 18"):
        write_bitmask24(sc.pack(weight, "2:4"), "layer")
    with pytest.raises(ValueError, match="the format has no scales"):
        write_bitmask24(sc.pack(torch.randn(8, 20), "2:4", dtype=torch.int8), "layer")
    with pytest.raises(ValueError, match="40 groups keep more than 2 of 4, first at row 0, column 0"):
        write_bitmask24(sc.pack(torch.ones(8, 20), "unstructured"), "layer")
