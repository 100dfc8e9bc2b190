"""The installed package in one minute: every pattern packs, runs, and survives a file.

    python -I smoke.py [--torch VERSION] [--without-introspection] [--cuda {absent,unused,loaded}]

Runs under any torch that the package promises to work with, with nothing but its dependencies; so it is no
pytest module: the wheel and stable-ABI parts of the test suite run it in environments of their own.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path

import torch

import sparsecore as sc

PATTERNS = (sc.NM(2, 4), sc.NM(1, 8), sc.NM(2, 4, vector=16), sc.Group(16, 1), sc.Unstructured())


def check_pattern(pattern: object) -> None:
    """One layer: against the dense product of its own weights, with a gradient, and through a file."""
    torch.manual_seed(0)
    sparsity = None if isinstance(pattern, sc.NM) else 0.75
    linear = torch.nn.Linear(100, 72)
    layer = sc.nn.SparseLinear.from_dense(linear, pattern=pattern, sparsity=sparsity)
    dense = layer.to_dense()
    zeros = (dense.weight == 0).float().mean().item()
    assert zeros > 0.45, f"{pattern}: only {zeros:.0%} zeros"

    for tokens in (1, 3, 40):
        x = torch.randn(tokens, 100, requires_grad=True)
        y, expected = layer(x), dense(x)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
        (grad,) = torch.autograd.grad(y.sum(), x)
        (expected_grad,) = torch.autograd.grad(expected.sum(), x)
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-4)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.safetensors"
        sc.save(torch.nn.Sequential(layer), path)
        restored = torch.nn.Sequential(torch.nn.Linear(100, 72))
        sc.load(restored, path)
        x = torch.randn(5, 100)
        assert torch.equal(restored(x), layer(x)), f"{pattern}: another result after save and load"


def check_packed(pattern: object) -> None:
    """A container: exact round trip, and smaller than what went in."""
    torch.manual_seed(1)
    weight = torch.randn(64, 128)
    packed = sc.pack(weight, pattern, sparsity=None if isinstance(pattern, sc.NM) else 0.75)
    packed.validate()
    kept = packed.mask()
    assert torch.equal(packed.to_dense(), weight * kept)
    assert packed.nbytes < weight.nbytes, f"{pattern}: {packed.nbytes} bytes packed, {weight.nbytes} dense"


def check_cuda(expected: str) -> None:
    """Whether the CUDA operators are installed, and loaded, which needs a torch that was built with CUDA; no GPU."""
    installed = (Path(sc.__file__).parent / "lib" / "libsparsecore_torch_cuda.so").exists()
    assert installed == (expected != "absent"), f"the CUDA operators are installed: {installed}"
    assert (torch.version.cuda is not None) == (expected == "loaded") or not installed
    operators = ("semi_structured_linear", "vnm_linear", "block_sparse_linear", "shared_lists_linear")
    for name in operators:
        loaded = torch._C._dispatch_has_kernel_for_dispatch_key(f"sparsecore::{name}", "CUDA")
        assert loaded == (expected == "loaded"), f"{name} has a CUDA kernel: {loaded}"
    if expected != "loaded":
        try:
            sc.cuda.use("matmul_sm80")
        except RuntimeError as error:
            assert "there are no CUDA kernels here" in str(error)
        else:
            raise AssertionError("a kernel was chosen where there is none")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", default="", help="the release that must be running")
    parser.add_argument("--without-introspection", action="store_true", help="_C must be absent")
    parser.add_argument("--cuda", choices=("absent", "unused", "loaded"), default="absent")
    arguments = parser.parse_args()

    assert torch.__version__.startswith(arguments.torch), f"running under torch {torch.__version__}"
    introspection = importlib.util.find_spec("sparsecore._C") is not None
    assert introspection != arguments.without_introspection, f"_C present: {introspection}"
    check_cuda(arguments.cuda)
    for pattern in PATTERNS:
        check_packed(pattern)
        check_pattern(pattern)
    operators = [name for name in dir(torch.ops.sparsecore) if name.endswith("_linear")]
    assert operators, "no operator of sparsecore is registered with torch"
    with_c = "with" if introspection else "without"
    print(f"smoke: {len(PATTERNS)} patterns under torch {torch.__version__}, {with_c} _C")


if __name__ == "__main__":
    main()
