"""2:4 training steps on CUDA: the gradients of kept weights, SR-STE, the two-way selection."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore import reference, sparsify
from sparsecore.ops import (
    semi_structured_compress,
    semi_structured_gather,
    semi_structured_linear,
    semi_structured_masked_linear,
    semi_structured_sampled,
    semi_structured_straight_through,
)

HALVES = (torch.bfloat16, torch.float16)
SIZES = [(64, 64), (1, 1), (70, 130), (130, 200), (0, 8), (8, 0)]
dtypes = pytest.mark.parametrize("dtype", HALVES, ids=str)


def whole_numbers(
    *shape: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu", most: int = 3
) -> Tensor:
    return torch.randint(-most, most + 1, shape).to(device, dtype)


def effective(weight: Tensor, selection: str) -> Tensor:
    """The packed part of a dense weight, by the reference's own selection."""
    score = weight.abs().float()
    mask = (
        reference.two_way_mask(score)
        if selection == "two_way"
        else sc.formats.select_mask(score, sc.NM(2, 4))
    )
    return weight * mask


@dtypes
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gather(size: tuple[int, int], dtype: torch.dtype, device: str) -> None:
    _, metadata = semi_structured_compress(whole_numbers(*size, dtype=dtype, device=device))
    wide = torch.randn(size[0], 2 * size[1] + 3, device=device).to(dtype)
    for dense in (wide[:, : size[1]].contiguous(), wide[:, 1 : size[1] + 1], wide[:, 4 : size[1] + 4]):
        got = semi_structured_gather(dense, metadata)
        assert torch.equal(got, reference.semi_structured_gather(dense, metadata))


@dtypes
@pytest.mark.parametrize("tokens", [0, 1, 31, 100])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_sampled(size: tuple[int, int], tokens: int, dtype: torch.dtype, device: str) -> None:
    n, k = size
    _, metadata = semi_structured_compress(whole_numbers(n, k, dtype=dtype, device=device))
    grad = whole_numbers(tokens, n, dtype=dtype, device=device, most=1)
    wide = whole_numbers(tokens, 2 * k + 3, dtype=dtype, device=device, most=1)
    for input in (wide[:, :k].contiguous(), wide[:, 1 : k + 1], wide[:, : 2 * k : 2]):
        got = semi_structured_sampled(grad, input, metadata)
        dense = (grad.double().T @ input.double()).to(dtype)
        assert torch.equal(got, reference.semi_structured_gather(dense, metadata))


@dtypes
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("selection", ["by_row", "two_way"])
def test_straight_through(size: tuple[int, int], selection: str, dtype: torch.dtype, device: str) -> None:
    weight = torch.randn(size, device=device).to(dtype)
    values, metadata = semi_structured_compress(weight, selection=selection)
    grad = torch.randn(size, device=device).to(dtype)
    got = semi_structured_straight_through(grad, weight, values, metadata, 0.3)
    want = reference.semi_structured_straight_through(grad, weight, effective(weight, selection), 0.3)
    torch.testing.assert_close(got.double(), want.to(dtype).double(), rtol=1e-2, atol=1e-2)
    kept = effective(weight, selection) == weight
    assert torch.equal(got[kept], grad[kept])


@pytest.mark.parametrize("weight_gradient", ["auto", "sampled", "masked"])
def test_every_way_to_the_gradient_of_values(weight_gradient: str, device: str) -> None:
    n, k = 72, 136
    weight = whole_numbers(n, k, device=device)
    values, metadata = semi_structured_compress(weight)
    values.requires_grad_()
    input = whole_numbers(2, 5, k, device=device, most=1)
    output = semi_structured_linear(input, values, metadata, out_features=n, weight_gradient=weight_gradient)
    grad = whole_numbers(2, 5, n, device=device, most=1)
    (got,) = torch.autograd.grad(output, values, grad)
    dense = (grad.flatten(0, 1).double().T @ input.flatten(0, 1).double()).to(torch.bfloat16)
    assert torch.equal(got, reference.semi_structured_gather(dense, metadata))
    with pytest.raises(ValueError, match="weight_gradient must be one of auto, sampled, masked"):
        semi_structured_linear(input, values, metadata, out_features=n, weight_gradient="dense")


@dtypes
@pytest.mark.parametrize("decay", [0.0, 0.25])
@pytest.mark.parametrize("selection", ["by_row", "two_way"])
def test_a_step_is_that_of_the_dense_formulas(
    selection: str, decay: float, dtype: torch.dtype, device: str
) -> None:
    n, k = 72, 136
    weight = (whole_numbers(n, k, dtype=dtype, device=device) / 2).requires_grad_()
    input = whole_numbers(2, 5, k, dtype=dtype, device=device, most=1).requires_grad_()
    bias = whole_numbers(n, dtype=dtype, device=device).requires_grad_()
    output = semi_structured_masked_linear(input, weight, bias, selection=selection, decay=decay)
    grad = whole_numbers(2, 5, n, dtype=dtype, device=device, most=1)
    got = torch.autograd.grad(output, (input, weight, bias), grad)

    exact = [tensor.detach().double().requires_grad_() for tensor in (input, weight, bias)]
    mask = effective(weight.detach(), selection) == weight.detach()
    kept = sparsify.gradients.straight_through(exact[1], mask, decay)
    want_output = exact[0] @ kept.T + exact[2]
    want = torch.autograd.grad(want_output, exact, grad.double())
    assert torch.equal(output.double(), want_output.detach().to(dtype).double())
    for mine, theirs in zip(got, want, strict=True):
        assert mine.dtype == dtype
        assert torch.equal(mine.double(), theirs.to(dtype).double())


def test_a_mask_that_serves_both_directions(device: str) -> None:
    weight = torch.randn(64, 72, device=device, dtype=torch.float16)
    mask = reference.two_way_mask(torch.rand(64, 72, device=device))
    input = torch.randn(4, 72, device=device, dtype=torch.float16, requires_grad=True)
    output = semi_structured_masked_linear(input, weight, mask=mask, transposed=True)
    torch.testing.assert_close(output, input @ (weight * mask).T, rtol=1e-2, atol=1e-2)
    grad = torch.randn_like(output)
    output.backward(grad)
    torch.testing.assert_close(input.grad, grad @ (weight * mask), rtol=1e-2, atol=1e-2)
    with pytest.raises(ValueError, match="not 2:4 along outputs"):
        semi_structured_masked_linear(input, weight, transposed=True)


def test_numerical_gradients(device: str) -> None:
    """Differences of the packed function itself, where the mask does not move: steps of a power of two are exact."""
    n, k, step = 8, 8, 2.0**-4
    weight = torch.randint(-4, 5, (n, k)).to(device, torch.bfloat16)
    weight[:, ::4] += 16  # the two largest of each four are far ahead
    weight[:, 1::4] -= 16
    input = whole_numbers(3, k, device=device).requires_grad_()
    leaf = weight.clone().requires_grad_()
    probe = whole_numbers(3, n, device=device, most=1)

    def loss(w: Tensor) -> Tensor:
        return (semi_structured_masked_linear(input, w).double() * probe.double()).sum()

    loss(leaf).backward()
    mask = effective(weight, "by_row") != 0
    for row, column in ((0, 0), (3, 1), (7, 4), (5, 5)):
        assert mask[row, column]
        moved = weight.double()
        moved[row, column] += step * 16
        up = moved.to(torch.bfloat16)
        difference = float((loss(up) - loss(weight)).detach()) / (step * 16)
        assert difference == pytest.approx(float(leaf.grad[row, column]), abs=0.51)


@pytest.mark.parametrize("selection", ["by_row", "two_way"])
def test_layers_train(selection: str, device: str) -> None:
    model = nn.Sequential(nn.Linear(72, 64), nn.ReLU(), nn.Linear(64, 40)).to(device)
    model = sparsify.train_masked_(model, selection=selection, gradient=sparsify.SRSTE(1e-3))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    losses = []
    input, target = torch.randn(16, 72, device=device), torch.randn(16, 40, device=device)
    for _ in range(8):
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16):
            loss = (model(input).float() - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert model[0].weight.grad.dtype == torch.float32
    with torch.no_grad(), torch.autocast(device, torch.bfloat16):
        want = model(input)
    packed = sparsify.pack_masked_(copy.deepcopy(model))
    with torch.no_grad():
        got = packed(input)
    assert (
        float((got - want).norm() / want.norm()) < 0.1
    )  # of weights that bfloat16 makes equal, others may stay


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(64, 64), (70, 131), (3, 5), (0, 8)], ids=str)
def test_the_kernel_chooses_two_way_masks(shape: tuple[int, int], dtype: torch.dtype, device: str) -> None:
    """Of 16 bits those of the plain form, zeros and ties among them; of float32 nearly."""
    torch.manual_seed(0)
    for scale in (1e-8, 1.0, 1e4):
        weight = (scale * torch.randn(shape)).to(device, torch.float32 if scale == 1e-8 else dtype)
        weight = weight.to(torch.bfloat16) if scale == 1e-8 and dtype != torch.float32 else weight
        weight[:, ::3] = weight[:, :1]
        weight[::5] = 0
        score = weight.float().square()
        mask, want = sc.formats.select.two_way_mask(score), reference.two_way_mask(score)
        assert not sc.formats.check.mask_violations(mask, sc.NM(2, 4, two_way=True))[0].any()
        if weight.dtype == torch.float32:
            assert float((score * mask).sum()) >= 0.999 * float((score * want).sum())
        else:
            assert torch.equal(mask, want)
        gone = torch.rand(shape, device=device) < 0.3
        left = sc.formats.select.two_way_mask(score.masked_fill(gone, -1.0))
        assert not (left & gone).any()
        if weight.dtype != torch.float32:
            assert torch.equal(left, reference.two_way_mask(score.masked_fill(gone, -1.0)) & ~gone)


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("selection", ["by_row", "two_way", "a sparsifier's"])
def test_float32_weights_decay_in_float32(selection: str, autocast: torch.dtype, device: str) -> None:
    """A gradient of 16 bits has no place for 2e-4 beside what it is here."""
    torch.manual_seed(0)
    decay, grads = 2e-4, []
    linear = nn.Linear(72, 40, device=device)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(40, 72, device=device))
    input = torch.randn(64, 72, device=device)
    for rule in (sparsify.SRSTE(decay), sparsify.STE()):
        if selection in sparsify.masked_linear.SELECTIONS:
            layer = sparsify.MaskedLinear.from_dense(
                copy.deepcopy(linear), selection=selection, gradient=rule
            )
            weight = layer.weight
            mask = effective(weight.detach().to(autocast), selection) != 0
        else:
            layer = nn.Sequential(copy.deepcopy(linear))
            sparsifier = sparsify.Sparsifier(layer, replace(sparsify.sr_ste("2:4"), gradient=rule))
            weight, mask = layer[0].parametrizations.weight.original, sparsifier.masks["0"]
        with torch.autocast(device, autocast):
            (layer(input) * (1 + input[:, :40])).sum().backward()
        assert weight.grad.dtype == torch.float32
        grads.append(weight.grad)
    fading = decay * weight.detach() * ~mask
    assert grads[1].abs().median() > 4.0
    assert fading.abs().max() > 1e-4
    torch.testing.assert_close(grads[0] - grads[1], fading, rtol=0.0, atol=8e-6)


@pytest.fixture
def sparse_products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.dtype, bool]]:
    """Of every 2:4 product that a sparsifier's layers make: the input's dtype, and whether its gradient is one too."""
    seen: list[tuple[torch.dtype, bool]] = []

    def counted(input: Tensor, *arguments: object, **options: object) -> Tensor:
        seen.append((input.dtype, bool(options["transposed"])))
        return semi_structured_masked_linear(input, *arguments, **options)

    monkeypatch.setattr(sparsify.sparse_products, "semi_structured_masked_linear", counted)
    return seen


def masked_model(
    device: str, dtype: torch.dtype, recipe: sparsify.Recipe
) -> tuple[nn.Module, sparsify.Sparsifier, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(70, 64), nn.SiLU(), nn.Linear(64, 40)).to(device, dtype)
    sparsifier = sparsify.Sparsifier(model, recipe)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparsifier.attach(optimizer)
    return model, sparsifier, optimizer


@pytest.mark.parametrize("pattern", ["2:4", "2:4-two-way"])
@pytest.mark.parametrize("rule", [sparsify.SRSTE(0.05), sparsify.STE()], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_a_sparsifier_multiplies_sparsely_what_it_would_densely(
    dtype: torch.dtype,
    rule: sparsify.SRSTE | sparsify.STE,
    pattern: str,
    sparse_products: list[tuple[torch.dtype, bool]],
    device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = replace(sparsify.sr_ste(pattern), gradient=rule)
    made = [masked_model(device, dtype, recipe) for _ in range(2)]
    input, target = torch.randn(2, 8, 70, device=device), torch.randn(2, 8, 40, device=device)
    for step in range(3):
        found = []
        for (model, _, optimizer), serves in zip(made, (True, False), strict=True):
            with monkeypatch.context() as patch:
                if not serves:
                    patch.setattr(sparsify.sparse_products, "serves", lambda tensor: False)
                leaf = input.to(dtype).requires_grad_()
                optimizer.zero_grad()
                with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.float32):
                    output = model(leaf)
                (output.float() - target).square().mean().backward()
            found.append([output.detach(), leaf.grad, *(parameter.grad for parameter in model.parameters())])
            assert len(sparse_products) == 2 * (step + 1)
        for sparse, dense in zip(*found, strict=True):
            assert sparse.dtype == dense.dtype
            error = float((sparse.double() - dense.double()).norm() / dense.double().norm())
            assert error < (2e-3 if dtype == torch.float16 else 1.5e-2)
        # both go on from one model, so that a weight on the edge of the mask does not part them
        made[0][2].step()
        made[1][0].load_state_dict(made[0][0].state_dict())
    two_way = pattern == "2:4-two-way"
    assert set(sparse_products) == {
        (dtype, two_way),
        (torch.bfloat16 if dtype == torch.float32 else dtype, two_way),
    }
    packed = made[0][1].finalize()
    assert isinstance(packed[0], sc.nn.SparseLinear) and "forward" not in vars(packed[0])


def test_masks_refreshed_now_and_then_serve_both_directions(
    sparse_products: list[tuple[torch.dtype, bool]], device: str
) -> None:
    recipe = sparsify.Recipe(
        sc.NM(2, 4, two_way=True), schedule=sparsify.Constant(3), gradient=sparsify.SRSTE(0.01)
    )
    model, sparsifier, optimizer = masked_model(device, torch.bfloat16, recipe)
    input = torch.randn(8, 70, device=device, dtype=torch.bfloat16, requires_grad=True)
    for step in range(7):
        before = copy.deepcopy(sparsifier.masks)
        optimizer.zero_grad()
        output = model(input)
        assert sparse_products == [(torch.bfloat16, True)] * (2 * step + 2)
        output.float().square().mean().backward()
        optimizer.step()
        for name, mask in sparsifier.masks.items():
            weight = sparsifier._parameters[name].detach().float()
            fresh = recipe.schedule.is_update(step)
            assert torch.equal(mask, reference.two_way_mask(weight.square()) if fresh else before[name])
    # A mask that only rows follow is multiplied densely, until the next one is chosen.
    state = sparsifier.state_dict()
    state["masks"]["0"] = torch.arange(70, device=device).expand(64, 70) % 4 < 2
    sparsifier.load_state_dict(state)
    model(input)
    assert len(sparse_products) == 15
    sparsifier.update()
    model(input)
    assert len(sparse_products) == 17


def test_a_sparsifier_begins_dense_where_its_schedule_does(
    sparse_products: list[tuple[torch.dtype, bool]], device: str
) -> None:
    recipe = replace(sparsify.gmp(None, start=2, stop=3, every=1, pattern="2:4"), gradient=sparsify.SRSTE())
    model, sparsifier, optimizer = masked_model(device, torch.bfloat16, recipe)
    input = torch.randn(8, 70, device=device, dtype=torch.bfloat16)
    counts = []
    for _ in range(5):
        optimizer.zero_grad()
        model(input).float().square().mean().backward()
        optimizer.step()
        counts.append(len(sparse_products))
    assert counts == [0, 0, 0, 2, 4]
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    model(input)  # nobody has looked at these masks
    assert len(sparse_products) == 4
    sparsifier.load_state_dict(sparsifier.state_dict())
    clone = copy.deepcopy(model)
    assert torch.equal(clone(input), model(input))
    assert len(sparse_products) == 8
    other = replace(sparsify.sr_ste("1:4"))
    model, _, _ = masked_model(device, torch.bfloat16, other)
    model(input)
    assert len(sparse_products) == 8


def test_a_sparsifier_s_model_compiles_whole(device: str) -> None:
    model, _, _ = masked_model(device, torch.bfloat16, sparsify.sr_ste("2:4"))
    input = torch.randn(8, 70, device=device, dtype=torch.bfloat16)
    want = torch.autograd.grad(model(input).float().square().sum(), list(model.parameters()))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got = torch.autograd.grad(compiled(input).float().square().sum(), list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # torch's compiler does it
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("selection", ["by_row", "two_way"])
def test_compiles_whole(selection: str, dtype: torch.dtype, device: str) -> None:
    layer = sparsify.MaskedLinear(72, 40, selection=selection, device=device, dtype=dtype)
    clone = copy.deepcopy(layer)
    input = torch.randn(3, 72, device=device, dtype=dtype)
    with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.float32):
        got = torch.compile(layer, fullgraph=True, backend="aot_eager")(input)
        want = clone(input)
    assert torch.equal(got, want)
    got.float().square().sum().backward()
    want.float().square().sum().backward()
    assert torch.equal(layer.weight.grad, clone.weight.grad)


def test_opcheck(device: str) -> None:
    n, k = 40, 72
    weight = whole_numbers(n, k, device=device)
    values, metadata = semi_structured_compress(weight)
    ops = torch.ops.sparsecore
    torch.library.opcheck(ops.semi_structured_gather.default, (weight, metadata))
    grad, input = whole_numbers(5, n, device=device), whole_numbers(5, k, device=device)
    torch.library.opcheck(ops.semi_structured_sampled.default, (grad, input, metadata))
    torch.library.opcheck(
        ops.semi_structured_straight_through.default, (weight, weight, values, metadata, 0.5)
    )
    for packed in (
        (values, metadata, None, None),
        semi_structured_compress(weight, selection="two_way", transposed=True),
    ):
        arguments = (input.requires_grad_(), weight.detach().requires_grad_(), None, *packed, 0.5)
        torch.library.opcheck(ops.semi_structured_masked_linear.default, arguments)


def test_refusals(device: str) -> None:
    weight = whole_numbers(40, 72, device=device)
    values, metadata = semi_structured_compress(weight)
    with pytest.raises(RuntimeError, match="gradients are bfloat16 or float16"):
        semi_structured_gather(weight.to(torch.int8), metadata)
    with pytest.raises(RuntimeError, match=r"weight of 40 x 136 has the shape \(1, 3, 128\)"):
        semi_structured_gather(whole_numbers(40, 136, device=device), metadata)
    with pytest.raises(RuntimeError, match="grad has 3 tokens and input 2"):
        semi_structured_sampled(weight[:3, :40].contiguous(), weight[:2], metadata)
    with pytest.raises(RuntimeError, match="grad is bfloat16 and input float16"):
        semi_structured_sampled(weight[:2, :40].contiguous(), weight[:2].half(), metadata)
    with pytest.raises(RuntimeError, match="must be of one type"):
        semi_structured_straight_through(weight, weight.half(), values, metadata, 0.5)
    with pytest.raises(ValueError, match="selection must be 'by_row' or 'two_way'"):
        semi_structured_masked_linear(weight, weight, selection="mask")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_in_a_graph() -> None:
    layer = sparsify.MaskedLinear(512, 512, selection="two_way", device="cuda", dtype=torch.bfloat16)
    input = torch.randn(64, 512, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        layer(input).sum().backward()
    torch.cuda.current_stream().wait_stream(side)
    expected = layer.weight.grad.clone()
    layer.weight.grad = input.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layer(input).sum().backward()
    layer.weight.grad.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(layer.weight.grad, expected)
