"""Convolutions over group lists: integers, so that every kernel must equal the dense masked convolution."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import sparsecore as sc
from sparsecore.formats.matrices import to_matrix
from sparsecore.ops import BoundConv2d
from sparsecore.ops.group_lists_conv import lies_as_pixels, output_size
from tests.cases import TOLERANCE, difference

GROUPS = [
    (1, 1),
    (2, 1),
    (4, 1),
    (8, 1),
    (16, 1),
    (32, 1),
    (1, 4),
    (1, 8),
    (1, 32),
    (4, 4),
    (16, 4),
    (16, 16),
]
# images, in, out, height, width, kernel, stride, padding (top, left, bottom, right), dilation
SHAPES = [
    (1, 16, 24, 14, 14, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    (2, 13, 33, 7, 5, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    (1, 20, 7, 9, 9, (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    (2, 5, 17, 8, 11, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (1, 19, 10, 9, 10, (3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
    (1, 6, 9, 12, 13, (3, 5), (1, 2), (2, 0, 1, 3), (2, 1)),
    (1, 3, 4, 5, 5, (5, 5), (1, 1), (0, 0, 0, 0), (1, 1)),
    (1, 300, 3, 1, 1, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    (0, 8, 4, 6, 6, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1)),
    (1, 8, 0, 6, 6, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    (
        1,
        300,
        70,
        7,
        7,
        (1, 1),
        (1, 1),
        (0, 0, 0, 0),
        (1, 1),
    ),  # sums of three panels, planes of no whole lines
    (1, 40, 70, 12, 17, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    (1, 40, 70, 12, 16, (1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),  # planes of whole lines
]
Shape = tuple[
    int, int, int, int, int, tuple[int, int], tuple[int, int], tuple[int, int, int, int], tuple[int, int]
]


def _pattern(group: tuple[int, int]) -> sc.Pattern:
    return sc.Unstructured() if group == (1, 1) else sc.Group(*group)


def _integers(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randint(-3, 4, size).to(dtype)


def _case(
    group: tuple[int, int], shape: Shape, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, sc.GroupLists, Tensor]:
    """Images, a packed weight, and the same weight dense."""
    images, channels, out, height, width, kernel, *_ = shape
    weight = _integers(out, channels, *kernel, dtype=dtype)
    packed = sc.pack(to_matrix(weight), _pattern(group), sparsity=0.6, layout="group_lists")
    assert isinstance(packed, sc.GroupLists)
    dense = packed.to_dense().view(out, *kernel, channels).permute(0, 3, 1, 2).contiguous()
    return _integers(images, channels, height, width, dtype=dtype), packed, dense


def _geometry(shape: Shape) -> dict[str, tuple[int, ...]]:
    return dict(zip(("kernel_size", "stride", "padding", "dilation"), shape[5:], strict=True))


def _dense(input: Tensor, weight: Tensor, shape: Shape, bias: Tensor | None = None) -> Tensor:
    top, left, bottom, right = shape[7]
    padded = functional.pad(input, (left, right, top, bottom))
    if 0 in (input.shape[0], weight.shape[0]):
        high, wide = output_size(input.shape[2:], shape[5], shape[6], shape[7], shape[8])
        return input.new_empty(input.shape[0], weight.shape[0], high, wide)
    return functional.conv2d(padded, weight, bias, shape[6], 0, shape[8])


@pytest.mark.parametrize("group", GROUPS, ids=str)
def test_integers_are_exact_in_both_layouts(isa: str, group: tuple[int, int]) -> None:
    for shape in SHAPES:
        input, packed, dense = _case(group, shape)
        bias = _integers(shape[2])
        exact = _dense(input, dense, shape, bias)
        for layout in (torch.contiguous_format, torch.channels_last):
            given = input.contiguous(memory_format=layout)
            got = packed.conv2d(given, bias, **_geometry(shape))
            assert torch.equal(got, exact), (shape, layout)
            pixels = lies_as_pixels(given)
            assert got.is_contiguous(memory_format=torch.channels_last if pixels else torch.contiguous_format)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("group", [(1, 1), (4, 1), (4, 4), (1, 8)], ids=str)
def test_sixteen_bit_images_and_weights(isa: str, group: tuple[int, int], dtype: torch.dtype) -> None:
    for shape in SHAPES[:6]:
        input, packed, dense = _case(group, shape, dtype)
        exact = _dense(input.float(), dense.float(), shape).to(dtype)
        for layout in (torch.contiguous_format, torch.channels_last):
            got = packed.conv2d(input.contiguous(memory_format=layout), **_geometry(shape))
            assert got.dtype == dtype
            assert torch.equal(got, exact), (shape, layout)
    wide = packed.to(torch.float32).conv2d(input, **_geometry(shape))  # 16-bit images under float32 weights
    assert torch.equal(wide, exact)


@pytest.mark.parametrize("activation", sc.reference.ACTIVATIONS)
def test_bias_residual_and_activation_are_fused(isa: str, activation: str) -> None:
    for shape in (SHAPES[1], SHAPES[3]):
        input, packed, dense = _case((4, 1), shape)
        bias, sums = torch.randn(shape[2]), _dense(input, dense, shape)
        residual = torch.randn_like(sums)
        exact = sc.reference.activate((sums.double() + bias.view(-1, 1, 1) + residual), activation)
        for layout in (torch.contiguous_format, torch.channels_last):
            for added in (residual, residual.contiguous(memory_format=torch.channels_last)):
                given = input.contiguous(memory_format=layout)
                got = packed.conv2d(given, bias, added, **_geometry(shape), activation=activation)
                assert difference(got, exact) < 5e-6


def _int8_case(shape: Shape) -> tuple[Tensor, sc.GroupLists, Tensor]:
    """Images of integers, the largest of each 127, so that its own scale is 1; an int8 weight; the same dense."""
    matrix = to_matrix(_integers(shape[2], shape[1], *shape[5]))
    packed = sc.pack(matrix, sc.Group(4, 1), sparsity=0.6, dtype=torch.int8, layout="group_lists")
    assert isinstance(packed, sc.GroupLists)
    dense = packed.to_dense().view(shape[2], *shape[5], shape[1]).permute(0, 3, 1, 2).contiguous()
    input = torch.randint(-126, 127, (shape[0], shape[1], *shape[3:5])).float()
    input[:, 0, 0, 0] = 127
    return input, packed, dense


def test_a_given_scale_replaces_that_of_the_image(isa: str) -> None:
    for shape in SHAPES[:8]:
        input, packed, dense = _int8_case(shape)
        bias = _integers(shape[2])
        run = partial(packed.conv2d, bias=bias, **_geometry(shape), compute="int8")
        for layout in (torch.contiguous_format, torch.channels_last):
            given = input.contiguous(memory_format=layout)
            got = run(given, input_scale=1.0)
            assert torch.equal(got, run(given))
            assert difference(got, _dense(input.double(), dense.double(), shape, bias.double())) < 1e-5
            wild = given.masked_fill(given == 127, torch.inf)
            assert torch.equal(run(wild, input_scale=1.0), got)
            cut = run(given, input_scale=0.5)
            assert difference(cut, run(given.clamp(-63.5, 63.5))) < 1e-6
            rounded = (given / 4).round() * 4
            exact = _dense(rounded.double(), dense.double(), shape, bias.double())
            assert difference(run(given, input_scale=4.0), exact) < 1e-5
        out = torch.empty_like(got)
        sizes = [list(size) for size in shape[5:]]
        parts = (packed.values, packed.index, packed.order, packed.starts, packed.scale, bias, None, shape[2])
        operator = torch.ops.sparsecore.group_lists_conv2d_out
        operator(given, *parts, *sizes, packed.depth, packed.window, 0, 2, out, 2.0)
        assert torch.equal(out, run(given, input_scale=2.0))


def test_wrong_scales_raise() -> None:
    shape = SHAPES[3]
    input, packed, _ = _int8_case(shape)
    structure, sizes = (packed.index, packed.order, packed.starts), [list(size) for size in shape[5:]]
    common = (input, packed.values, *structure, packed.scale, None, None, shape[2], *sizes)
    common += (packed.depth, packed.window, 0)
    operator, transposed = torch.ops.sparsecore.group_lists_conv2d, (None, None, None, None)
    for wrong in (0.0, -1.0, float("nan"), float("inf"), 1e-40, 1e30):
        with pytest.raises(ValueError, match=r"input_scale must be in 1e-29\.\.1e\+29, got"):
            packed.conv2d(input, **_geometry(shape), compute="int8", input_scale=wrong)
        if wrong:
            with pytest.raises(RuntimeError, match="x_scale must be 0"):
                operator(*common, 2, *transposed, wrong)
    with pytest.raises(ValueError, match="the products are float32"):
        packed.conv2d(input, **_geometry(shape), input_scale=1.0)
    with pytest.raises(RuntimeError, match="x_scale is the scale of int8 products"):
        operator(*common, 0, *transposed, 1.0)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(operator.default, (*common, 2, *transposed, 0.5), test_utils=checks)


def test_any_strides_give_the_same() -> None:
    shape = SHAPES[3]
    images, channels, _, height, width = shape[:5]
    _, packed, dense = _case((4, 1), shape)
    wide = _integers(2 * images, 2 * channels, height + 1, width)
    pixels = wide.contiguous(memory_format=torch.channels_last)
    for input, copied in (
        (wide[:images, 1 : channels + 1, :height], False),  # a slice of planes with a gap behind each
        (pixels[:images, 1 : channels + 1, :height], False),  # a slice of the channels of pixels
        (wide[::2, ::2, 1:], False),
        (wide[:images, :channels, :height].flip(3), True),
        (wide[:images, :channels, :height].mT.contiguous().mT, True),
        (wide[:1, :channels, :height].expand(images, -1, -1, -1), True),
        (wide[:images, :1, :height].expand(-1, channels, -1, -1), True),
    ):
        got = packed.conv2d(input, **_geometry(shape))
        assert torch.equal(got, _dense(input, dense, shape))
        assert copied or lies_as_pixels(input) == (input.stride(1) == 1)
        assert got.is_contiguous() or lies_as_pixels(input)


def test_same_bits_for_any_thread_count() -> None:
    for shape in (SHAPES[0], SHAPES[4]):
        _, packed, _ = _case((4, 1), shape)
        input = torch.randn(2, *shape[1:2], *shape[3:5])
        torch.set_num_threads(1)
        one = packed.conv2d(input, **_geometry(shape))
        torch.set_num_threads(2)
        assert torch.equal(packed.conv2d(input, **_geometry(shape)), one)


@pytest.mark.parametrize("group", [(1, 1), (4, 1), (32, 1), (1, 8), (4, 4), (16, 16)], ids=str)
def test_gradients_match_the_dense_convolution(isa: str, group: tuple[int, int]) -> None:
    for shape in SHAPES[:7]:
        input, packed, dense = _case(group, shape)
        direction = torch.randint_like(_dense(input, dense, shape), -3, 4)
        for layout in (torch.contiguous_format, torch.channels_last):
            x = input.clone(memory_format=layout).requires_grad_()
            values, bias = packed.values.clone().requires_grad_(), _integers(shape[2]).requires_grad_()
            residual = torch.zeros_like(direction, requires_grad=True)
            packed.with_values(values).conv2d(x, bias, residual, **_geometry(shape)).backward(direction)
            exact, weight = input.clone().requires_grad_(), dense.clone().requires_grad_()
            other = bias.detach().clone().requires_grad_()
            _dense(exact, weight, shape, other).backward(direction)
            assert torch.equal(x.grad, exact.grad), (shape, layout)
            assert torch.equal(bias.grad, other.grad)
            assert torch.equal(residual.grad, direction)
            assert torch.equal(
                packed.with_values(values.grad).to_dense(), to_matrix(weight.grad) * packed.mask()
            )
            assert not values.grad[-1].any()


@pytest.mark.parametrize("group", [(1, 1), (4, 1), (2, 4)], ids=str)
def test_reference_passes_gradcheck(group: tuple[int, int]) -> None:
    shape = (1, 3, 5, 5, 6, (3, 2), (2, 1), (1, 0, 1, 1), (1, 2))
    input, packed, _ = _case(group, shape, torch.float64)

    def run(input: Tensor, values: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
        return packed.with_values(values).conv2d(input, bias, residual, **_geometry(shape))

    residual = torch.randn_like(run(input, packed.values, torch.zeros(5).double(), torch.zeros(())))
    leaves = (input, packed.values.clone(), torch.randn(5, dtype=torch.float64), residual)
    assert torch.autograd.gradcheck(run, tuple(leaf.requires_grad_() for leaf in leaves))


@pytest.mark.parametrize("shape", [SHAPES[1], SHAPES[4]], ids=["1x1", "3x3"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_opcheck(shape: Shape, layout: torch.memory_format) -> None:
    input, packed, _ = _case((4, 1), shape)
    x = torch.randn_like(input).contiguous(memory_format=layout).requires_grad_()
    values, bias = packed.values.clone().requires_grad_(), torch.randn(shape[2], requires_grad=True)
    structure, sizes = (packed.index, packed.order, packed.starts), [list(size) for size in shape[5:]]
    arguments = (x, values, *structure, None, bias, None, shape[2], *sizes, packed.depth, packed.window, 0, 0)
    torch.library.opcheck(torch.ops.sparsecore.group_lists_conv2d.default, arguments)


def test_autocast_narrows_images_and_residual_only() -> None:
    shape = SHAPES[3]
    input, packed, dense = _case((4, 1), shape)
    residual = torch.zeros_like(_dense(input, dense, shape))
    x = input.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = packed.conv2d(x, None, residual, **_geometry(shape))
    assert got.dtype == torch.bfloat16
    got.float().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


def test_out_writes_in_place() -> None:
    shape = SHAPES[3]
    input, packed, dense = _case((4, 1), shape)
    exact = _dense(input, dense, shape)
    sizes = [list(size) for size in shape[5:]]
    arguments = (packed.values, packed.index, packed.order, packed.starts, None, None, None, shape[2], *sizes)
    arguments += (packed.depth, packed.window, 0, 0)
    run = torch.ops.sparsecore.group_lists_conv2d_out
    for layout in (torch.contiguous_format, torch.channels_last):
        out = torch.full_like(exact, float("nan"), memory_format=layout)
        run(input, *arguments, out)
        assert torch.equal(out, exact)
    with pytest.raises(RuntimeError, match="out must be a CPU tensor"):
        run(input, *arguments, exact[..., :-1].clone())
    with pytest.raises(RuntimeError, match="out must be contiguous or channels_last"):
        run(input, *arguments, exact.mT.contiguous().mT)


def test_a_bound_call_computes_what_the_tensors_hold_by_then(isa: str) -> None:
    for shape in (SHAPES[0], SHAPES[3], SHAPES[4]):
        input, packed, dense = _case((4, 1), shape)
        bias, exact = _integers(shape[2]), _dense(input, dense, shape)
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.zeros_like(input, memory_format=layout)
            out = torch.full_like(exact, float("nan"), memory_format=layout)
            parts = (packed.values, packed.index, packed.order, packed.starts, None, bias, out)
            options = {
                "depth": packed.depth,
                "window": packed.window,
                "activation": "relu",
                **_geometry(shape),
            }
            bound = BoundConv2d(x, *parts, out=out, **options)
            for images in (input, -input):
                x.copy_(images)
                residual = _integers(*exact.shape)
                out.copy_(residual)
                assert bound() is out
                assert torch.equal(out, (_dense(images, dense, shape, bias) + residual).relu())


def test_what_cannot_be_bound_raises() -> None:
    shape = SHAPES[3]
    input, packed, dense = _case((4, 1), shape)
    out = torch.empty_like(_dense(input, dense, shape))
    parts = (packed.values, packed.index, packed.order, packed.starts.clone())
    options = {"depth": packed.depth, "window": packed.window, **_geometry(shape)}
    for x, residual in ((input.flip(3).mT.contiguous().mT, None), (input, out.mT.contiguous().mT)):
        with pytest.raises(RuntimeError, match="must be contiguous or channels_last"):
            BoundConv2d(x, *parts, None, None, residual, out=out, **options)
    with pytest.raises(RuntimeError, match="out must be a CPU tensor"):
        BoundConv2d(input, *parts, out=out[..., :-1].clone(), **options)
    with pytest.raises(ValueError, match="the products are float32"):
        BoundConv2d(input, *parts, out=out, input_scale=1.0, **options)
    bound = BoundConv2d(input, *parts, out=out, **options)
    assert torch.equal(bound(), _dense(input, dense, shape))
    parts[3][0, 1] = -1
    with pytest.raises(RuntimeError, match="group_lists_conv2d_out: "):
        bound()
    input.set_(torch.zeros_like(input))
    with pytest.raises(RuntimeError, match="has moved"):
        bound()


@pytest.mark.parametrize("moved", range(5), ids=["input", "values", "index", "order", "starts"])
def test_a_bound_tensor_that_moved_raises(moved: int) -> None:
    shape = SHAPES[3]
    input, packed, dense = _case((4, 1), shape)
    out = torch.empty_like(_dense(input, dense, shape))
    tensors = (input, *(t.clone() for t in (packed.values, packed.index, packed.order, packed.starts)))
    bound = BoundConv2d(*tensors, out=out, depth=packed.depth, window=packed.window, **_geometry(shape))
    tensors[moved].set_(tensors[moved].clone())
    with pytest.raises(RuntimeError, match="has moved"):
        bound()


def test_errors_say_what_was_wrong() -> None:
    shape = SHAPES[3]
    input, packed, _ = _case((4, 1), shape)
    geometry = _geometry(shape)
    with pytest.raises(RuntimeError, match=r"order must be|starts"):
        packed.conv2d(torch.randn(1, 200, 8, 8), **geometry)  # other channels
    with pytest.raises(RuntimeError, match=r"must be \(images, channels, height, width\), got 3"):
        packed.conv2d(input[0], **geometry)
    with pytest.raises(RuntimeError, match="smaller than the kernel"):
        packed.conv2d(input[:, :, :1, :1], **(geometry | {"padding": (0, 0, 0, 0)}))
    with pytest.raises(RuntimeError, match="stride"):
        packed.conv2d(input, **(geometry | {"stride": (0, 1)}))
    with pytest.raises(RuntimeError, match="padding must be"):
        packed.conv2d(input, **(geometry | {"padding": (1, 1)}))
    with pytest.raises(RuntimeError, match=r"too many|smaller"):
        packed.conv2d(input, **(geometry | {"kernel_size": (2**31 - 1, 2**31 - 1)}))
    with pytest.raises(RuntimeError, match="residual must be"):
        packed.conv2d(input, None, torch.zeros(1, 1, 1, 1), **geometry)
    with pytest.raises(RuntimeError, match="bias must have 17 entries"):
        packed.conv2d(input, torch.zeros(16), **geometry)
    with pytest.raises(RuntimeError, match="input is int64"):
        packed.conv2d(input.long(), **geometry)
    with pytest.raises(RuntimeError, match="fused activation"):
        packed.conv2d(input.requires_grad_(), activation="relu", **geometry)


@pytest.mark.parametrize("group", [(1, 1), (4, 1), (1, 16)], ids=str)
def test_damaged_indices_raise_and_never_crash(group: tuple[int, int]) -> None:
    for shape in SHAPES[:6]:
        input, packed, dense = _case(group, shape)
        for name in packed.index_names:
            tensor = getattr(packed, name)
            for place in (0, tensor.numel() // 2, tensor.numel() - 1):
                for value in (torch.iinfo(tensor.dtype).max, torch.iinfo(tensor.dtype).min, 1):
                    other = tensor.clone()
                    other.view(-1)[place] = value
                    broken = sc.GroupLists(**{**vars(packed), name: other})
                    try:
                        broken.validate()
                    except ValueError:
                        try:  # whoever runs it all the same gets an error or numbers, and no crash
                            broken.conv2d(input, **_geometry(shape))
                        except RuntimeError:
                            continue
                    else:
                        assert (
                            broken.conv2d(input, **_geometry(shape)).shape
                            == _dense(input, dense, shape).shape
                        )


def test_depths_of_wide_panels_use_sixteen_bits() -> None:
    weight, mask = _integers(20, 1500), torch.rand(20, 1500) < 0.3
    for depth, kind in ((256, torch.uint8), (512, torch.int16)):
        parts = torch.ops.sparsecore.group_lists_pack(weight, mask, 1, 1, depth, 8)
        packed = sc.GroupLists((20, 1500), sc.Unstructured(), parts[0], None, *parts[1:], depth, 8).validate()
        assert packed.index.dtype == kind
        input = _integers(9, 1500)
        assert torch.equal(packed.linear(input), input @ (weight * mask).T)
        assert torch.equal(packed.to_dense(), weight * mask)
        double = sc.reference.group_lists_pack(weight.double(), mask, 1, 1, depth, 8)
        assert torch.equal(double[1], packed.index)
        layer = sc.nn.SparseLinear.from_packed(packed)
        again = sc.nn.SparseLinear(1500, 20, bias=False, pattern="4x4", sparsity=0.5)
        again.load_state_dict(layer.state_dict())
        assert torch.equal(again.weight.to_dense(), weight * mask)


def test_differences_of_random_numbers_are_small(isa: str) -> None:
    shape = (2, 40, 48, 14, 14, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
    _, packed, dense = _case((8, 1), shape)
    packed, input = packed.with_values(torch.randn_like(packed.values)), torch.randn(2, 40, 14, 14)
    dense = packed.to_dense().view(48, 3, 3, 40).permute(0, 3, 1, 2)
    exact = _dense(input.double(), dense.double(), shape)
    assert difference(packed.conv2d(input, **_geometry(shape)), exact) < 2 * TOLERANCE[torch.float32]
