"""Every operator of the CPU has a kernel for CUDA, or says what to do instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import sparsecore as sc
from sparsecore._library import has_kernel
from sparsecore.formats.layouts import ORDER
from sparsecore.ops._host import CPU_ONLY, refusal

ROOT = Path(__file__).parents[2]


def _operators() -> set[str]:
    names = torch._C._dispatch_get_all_op_names()
    return {name.split("::")[1].split(".")[0] for name in names if name.startswith("sparsecore::")}


def _cuda_sources() -> set[str]:
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "csrc/torch/cuda").glob("*.cpp"))
    return set(re.findall(r'm\.impl\("(\w+)"', text))


def test_what_cuda_lacks_is_listed_with_the_way_out() -> None:
    """This build may have no CUDA library: its operators are those of the sources."""
    on_cpu = {name for name in _operators() if has_kernel(name, "cpu")}
    through_host = {name for name in on_cpu if has_kernel(name, "cuda")} - set(CPU_ONLY)
    assert on_cpu - _cuda_sources() - through_host == set(CPU_ONLY)
    assert not set(CPU_ONLY) & _cuda_sources()


def test_layouts_of_cuda_have_operators_there() -> None:
    layouts = {row.layout for row in ORDER["cuda"]} - {"channels"}
    assert {f"{layout}_linear" for layout in layouts} <= _cuda_sources()


@pytest.mark.parametrize("name", sorted(CPU_ONLY))
def test_refusals_name_the_operator_and_the_way_out(name: str) -> None:
    assert has_kernel(name, "cuda")
    with pytest.raises(RuntimeError, match=rf"^{name}: has no kernel for CUDA tensors\. \w.*\.$"):
        refusal(name, CPU_ONLY[name])()


def test_no_layout_is_taken_for_one_of_cuda_because_it_refuses_there() -> None:
    for pattern in ("1:4", "unstructured", "2:4", "n:16", "16x1"):
        found = sc.formats.layouts_for(sc.pattern(pattern), "cuda")
        assert not {f"{layout}_linear" for layout in found} & set(CPU_ONLY)
