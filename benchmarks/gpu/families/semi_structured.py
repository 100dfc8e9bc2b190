"""2:4 weights, and those with all but two of six or eight, which are packed as 2:4."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sparsecore import reference
from sparsecore.ops import (
    semi_structured_compress,
    semi_structured_decompress,
    semi_structured_gather,
    semi_structured_linear,
    semi_structured_masked_linear,
    semi_structured_sampled,
    semi_structured_straight_through,
    semi_structured_validate,
)

from .base import (
    FLOATS,
    Call,
    Check,
    Family,
    Layer,
    Prepared,
    Shape,
    Target,
    Task,
    Variant,
    every,
    relative_error,
)

LAYERS = ((4096, 4096), (14336, 4096), (4096, 14336), (8192, 8192), (28672, 8192))
KERNELS = ("matmul_small_sm80", "matmul_sm80", "matmul_sm90")
TOKENS = (1, 16, 4096, 256, 64, 8, 32, 1024, 16384)


def largest_of(weight: Tensor, group: int = 4) -> Tensor:
    """A mask by torch: the ``group - 2`` largest of ``group`` neighbouring inputs, of equal ones the earlier.

    Kept is what fewer of its group go before; sorting millions of groups of four takes torch far longer.
    """
    rows, inputs = weight.shape
    padded = torch.nn.functional.pad(weight.float().abs(), (0, -inputs % group), value=-1.0)
    groups = padded.reshape(rows, -1, group)
    before = torch.zeros_like(groups, dtype=torch.int8)
    for i in range(group):
        for j in range(group):
            if i != j:
                first, second = groups[..., j], groups[..., i]
                before[..., i] += first >= second if j < i else first > second
    return (before < group - 2).flatten(1)[:, :inputs].contiguous()


def masked(weight: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, weight.float(), torch.zeros((), device=weight.device)).to(weight.dtype)


def make_with(group: int) -> Callable[[Tensor], Layer]:
    """Layers that keep all but two of ``group`` inputs."""

    def make(weight: Tensor) -> Layer:
        mask, outputs = largest_of(weight, group), weight.shape[0]
        packed = semi_structured_compress(weight, mask, group=group)
        dtype = weight.dtype if weight.dtype in FLOATS else torch.bfloat16
        scale = None
        if weight.dtype == torch.int8:
            scale = torch.linspace(0.5, 1.5, outputs, device=weight.device) * 1e-4

        def linear(x: Tensor, bias: Tensor | None) -> Tensor:
            return semi_structured_linear(
                x, *packed, scale, bias, out_features=outputs, out_dtype=dtype, group=group
            )

        kept = masked(weight, mask)
        if group != 4 or weight.dtype not in FLOATS:
            return Layer(kept, linear, scale, dtype)
        values, metadata = packed
        return Layer(
            kept,
            linear,
            None,
            dtype,
            values=values,
            trained=lambda x, values: semi_structured_linear(x, values, metadata, out_features=outputs),
            spread=lambda values: semi_structured_decompress(
                values, metadata, out_features=outputs, in_features=weight.shape[1]
            ),
        )

    return make


def targets(shape: Shape) -> tuple[Target, ...]:
    if shape.tokens <= 32:
        return (Target("cuBLAS", 1.45, 1.65),)
    if min(shape.outputs, shape.inputs, shape.tokens) >= 4096:
        return Target("cuBLAS", 1.20, 1.45), Target("cuSPARSELt", 1.0, 1.0)
    return ()


def keeps_the_largest(device: str, small: bool) -> str:
    """Magnitudes of what by_row keeps; two_way against the plain torch unpacking, both directions."""
    rows, inputs = (64, 128) if small else (4096, 4096)
    weight = torch.randn(rows, inputs, device=device).to(torch.bfloat16)
    packed = semi_structured_compress(weight)
    dense = semi_structured_decompress(*packed, out_features=rows, in_features=inputs)
    largest = masked(weight, largest_of(weight))
    values, metadata, values_t, metadata_t = semi_structured_compress(
        weight, selection="two_way", transposed=True
    )
    both = semi_structured_decompress(values, metadata, out_features=rows, in_features=inputs)
    other = semi_structured_decompress(values_t, metadata_t, out_features=inputs, in_features=rows)
    unpacked = reference.semi_structured_unpack(values, metadata, rows, inputs)
    stored = both != 0
    semi_structured_validate(values, metadata, out_features=rows, in_features=inputs)
    return every(
        (
            (torch.equal(dense, largest), "by_row: not the two largest"),
            (torch.equal(both, unpacked), "two_way: decompression is not the layout"),
            (torch.equal(both, other.T), "two_way: the transposed packing is another matrix"),
            (int(stored.reshape(rows, -1, 4).sum(-1).max()) <= 2, "two_way: more than two of four inputs"),
            (
                int(stored.T.reshape(inputs, -1, 4).sum(-1).max()) <= 2,
                "two_way: more than two of four outputs",
            ),
            (torch.equal(torch.where(stored, weight, both), both), "two_way: values are changed"),
        )
    )


def damaged_is_refused(device: str, small: bool) -> str:
    rows, inputs = (64, 128) if small else (4096, 4096)
    values, metadata = semi_structured_compress(torch.randn(rows, inputs, device=device).to(torch.float16))
    metadata.view(-1)[metadata.numel() // 2] = 0  # both places of every group are the first
    try:
        semi_structured_validate(values, metadata, out_features=rows, in_features=inputs)
    except ValueError:
        return ""
    return "metadata whose places do not ascend is accepted"


def gradients(device: str, small: bool) -> str:
    """Of a layer with a transposed packing, against float64; of the weight by a masked and by a sampled product."""
    tokens, rows, inputs = (5, 64, 128) if small else (512, 4096, 4096)
    weight = torch.randn(rows, inputs, device=device).to(torch.bfloat16)
    values, metadata, *other = semi_structured_compress(weight, selection="two_way", transposed=True)
    dense = semi_structured_decompress(values, metadata, out_features=rows, in_features=inputs)
    x = torch.randn(tokens, inputs, device=device).to(torch.bfloat16).requires_grad_()
    values.requires_grad_()
    grad = torch.randn(tokens, rows, device=device).to(torch.bfloat16)
    # A group that keeps fewer than two stores zeros, which have a gradient as well.
    places = semi_structured_decompress(
        torch.ones_like(values), metadata, out_features=rows, in_features=inputs
    )
    of_weight = torch.where(places != 0, grad.double().T @ x.detach().double(), 0.0)
    wrong = []
    for way in ("masked", "sampled"):
        y = semi_structured_linear(
            x,
            values,
            metadata,
            out_features=rows,
            transposed=(other[0], other[1]),
            weight_gradient=way,
        )
        to_x, to_values = torch.autograd.grad(y, (x, values), grad)
        got = semi_structured_decompress(to_values, metadata, out_features=rows, in_features=inputs)
        x_error = relative_error(to_x, grad.double() @ dense.double())
        error = relative_error(got, of_weight)
        wrong += [
            (x_error <= 4e-3, f"the gradient of x is off by {x_error:.1e}"),
            (error <= 4e-3, f"the {way} gradient of the weight is off by {error:.1e}"),
        ]
    return every(wrong)


def training_step(device: str, small: bool) -> str:
    """SR-STE with the two-way selection: y, and the gradients of x and of the dense weight."""
    tokens, rows, inputs = (9, 64, 128) if small else (512, 4096, 4096)
    weight = torch.randn(rows, inputs, device=device).to(torch.bfloat16).requires_grad_()
    x = torch.randn(tokens, inputs, device=device).to(torch.bfloat16).requires_grad_()
    grad = torch.randn(tokens, rows, device=device).to(torch.bfloat16)
    decay = 0.5
    y = semi_structured_masked_linear(x, weight, selection="two_way", decay=decay)
    to_x, to_weight = torch.autograd.grad(y, (x, weight), grad)
    values, metadata = semi_structured_compress(weight.detach(), selection="two_way")
    kept = semi_structured_decompress(values, metadata, out_features=rows, in_features=inputs).double()
    expected = grad.double().T @ x.detach().double() + decay * (weight.detach().double() - kept)
    errors = {
        "y": relative_error(y.detach(), x.detach().double() @ kept.T),
        "the gradient of x": relative_error(to_x, grad.double() @ kept),
        "the gradient of the weight": relative_error(to_weight, expected),
    }
    return every((error <= 5e-3, f"{name} is off by {error:.1e}") for name, error in errors.items())


def training_task() -> Task:
    """Forward and backward of a layer whose weight stays dense: selected and packed in both directions each time."""

    def prepare(device: str, small: bool) -> Prepared:
        width, tokens = (64, 40) if small else (4096, 4096)
        weight = torch.randn(width, width, device=device).to(torch.bfloat16).requires_grad_()
        x = torch.randn(tokens, width, device=device).to(torch.bfloat16).requires_grad_()
        grad = torch.randn(tokens, width, device=device).to(torch.bfloat16)

        def step(product: Callable[[], Tensor]) -> Call:
            return lambda: torch.autograd.grad(product(), (x, weight), grad)

        return Prepared(
            {
                "ours": step(lambda: semi_structured_masked_linear(x, weight, selection="two_way")),
                "cuBLAS": step(lambda: torch.nn.functional.linear(x, weight)),
            },
            operations=6.0 * width * width * tokens,
        )

    return Task("training step two_way, bfloat16, 4096 cubed", 2, prepare)


def input_gradient_task() -> Task:
    """The gradient of the input: a product with the transposed packing, which the two-way selection makes possible."""

    def prepare(device: str, small: bool) -> Prepared:
        width, tokens = (64, 40) if small else (4096, 4096)
        weight = torch.randn(width, width, device=device).to(torch.bfloat16)
        values, metadata, *other = semi_structured_compress(weight, selection="two_way", transposed=True)
        dense = semi_structured_decompress(values, metadata, out_features=width, in_features=width)
        grad = torch.randn(tokens, width, device=device).to(torch.bfloat16)
        return Prepared(
            {
                "ours": lambda: semi_structured_linear(grad, *other, out_features=width),
                "cuBLAS": lambda: grad @ dense,
            },
            operations=2.0 * width * width * tokens,
            answers=(grad.float() @ dense.float(),),
        )

    return Task(
        "gradient of x by the transposed packing, bfloat16, 4096 cubed",
        1,
        prepare,
        (Target("cuBLAS", 1.2, 1.45),),
    )


def weight_gradient_task(tokens: int) -> Task:
    """Where sampled and masked gradients of kept weights meet, which decides what "auto" takes."""

    def prepare(device: str, small: bool) -> Prepared:
        width, count = (64, 40) if small else (4096, tokens)
        weight = torch.randn(width, width, device=device).to(torch.bfloat16)
        _, metadata = semi_structured_compress(weight)
        x = torch.randn(count, width, device=device).to(torch.bfloat16)
        grad = torch.randn(count, width, device=device).to(torch.bfloat16)
        return Prepared(
            {
                "ours": lambda: semi_structured_sampled(grad, x, metadata),
                "masked": lambda: semi_structured_gather(grad.T @ x, metadata),
            },
            operations=2.0 * width * width * count,
            facts={"sampled_tokens": count},
        )

    return Task(f"sampled gradient, bfloat16, 4096 x 4096, {tokens} tokens", 3, prepare)


def decay_task() -> Task:
    """SR-STE's decay beside torch's own operators, the mask at hand."""

    def prepare(device: str, small: bool) -> Prepared:
        size = 128 if small else 8192
        weight = torch.randn(size, size, device=device).to(torch.bfloat16)
        grad = torch.randn(size, size, device=device).to(torch.bfloat16)
        values, metadata = semi_structured_compress(weight)
        mask = semi_structured_decompress(values, metadata, out_features=size, in_features=size) != 0
        return Prepared(
            {
                "ours": lambda: semi_structured_straight_through(grad, weight, values, metadata, 2e-4),
                "torch": lambda: grad + 2e-4 * weight.masked_fill(mask, 0.0),
            },
            moved_bytes=7.125 * size * size,
        )

    return Task("decay of SR-STE, bfloat16, 8192 x 8192", 3, prepare)


def compress_task(selection: str) -> Task:
    """Compression beside a copy that moves as many bytes: the ratio is the share of the copy's bandwidth."""

    def prepare(device: str, small: bool) -> Prepared:
        size = 128 if small else 8192
        transposed = selection == "two_way"
        weight = torch.randn(size, size, device=device).to(torch.bfloat16)
        packed = semi_structured_compress(weight, selection=selection, transposed=transposed)
        moved = weight.nbytes + sum(tensor.nbytes for tensor in packed)
        source = torch.empty(moved // 2, dtype=torch.int8, device=device)
        copy = torch.empty_like(source)
        calls = {
            "ours": lambda: semi_structured_compress(weight, selection=selection, transposed=transposed),
            "copy": lambda: copy.copy_(source),
        }
        if device == "cuda":
            calls["torch CUTLASS tile"] = lambda: torch._sparse_semi_structured_tile(weight)
            if not transposed:
                sparse = masked(weight, largest_of(weight))
                calls["cuSPARSELt compress"] = lambda: torch._cslt_compress(sparse)
        return Prepared(calls, moved_bytes=moved)

    return Task(f"compress {selection}, bfloat16, 8192 x 8192", 1, prepare, (Target("copy", 0.75, 0.88),))


def variant(group: int, dtype: torch.dtype) -> Variant:
    """All but two of ``group``: 2:4, 4:6, 6:8."""
    whole = group == 4 and dtype == torch.bfloat16
    return Variant(
        name=f"{group - 2}:{group} {str(dtype).removeprefix('torch.')}",
        dtype=dtype,
        density=(group - 2) / group,
        make=make_with(group),
        peers=("cuBLAS", "cuSPARSELt", "CUTLASS 2:4") if group == 4 else ("cuBLAS",),
        targets=targets if group == 4 and dtype in FLOATS else lambda shape: (),
        layers=LAYERS if whole else LAYERS[:1],
        tokens=TOKENS if whole else TOKENS[:4],
        ragged=(1005, 1011),
        differentiable=dtype in FLOATS,
        values_are_trained=group == 4 and dtype in FLOATS,
        kernels=KERNELS,
        capability=89 if dtype == torch.float8_e4m3fn else 80,
        by_kernel=(1, 8, 16, 24, 32, 48, 64, 96, 128, 256)
        if whole
        else (8, 32, 64, 128)
        if group == 8
        else (),
        trained=((4096, 4096, 4096),) if whole else (),
    )


FAMILY = Family(
    name="2:4",
    operators=(
        "semi_structured_linear",
        "semi_structured_compress",
        "semi_structured_decompress",
        "semi_structured_validate",
        "semi_structured_sampled",
        "semi_structured_gather",
        "semi_structured_straight_through",
    ),
    variants=(
        *(variant(4, dtype) for dtype in (*FLOATS, torch.int8, torch.float8_e4m3fn)),
        variant(8, torch.bfloat16),
        variant(6, torch.float16),
        variant(8, torch.int8),
    ),
    checks=(
        Check("compress", keeps_the_largest),
        Check("damaged metadata", damaged_is_refused),
        Check("gradients", gradients),
        Check("training step", training_step),
    ),
    tasks=(
        compress_task("by_row"),
        compress_task("two_way"),
        input_gradient_task(),
        training_task(),
        *(weight_gradient_task(tokens) for tokens in (64, 256, 512, 1024)),
        decay_task(),
    ),
)
