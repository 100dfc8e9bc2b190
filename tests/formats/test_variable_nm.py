"""Variable N:16: selection by bytes, packing to the byte, and the operator against the dense masked product."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import sparsecore as sc
from sparsecore import reference
from sparsecore.formats import VariableNM, choose_codes, variable_mask, variable_nbytes
from sparsecore.formats.select import nm_mask

MIXES = ((0,), (2,), (4,), (8,), (16,), (0, 2, 4, 8, 16))


def integers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed)).float()


def packed(
    n: int, k: int, mix: tuple[int, ...], dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor, VariableNM]:
    """A dense weight, its mask, and the packed weight, with codes drawn from ``mix``."""
    generator = torch.Generator().manual_seed(n + k)
    codes = torch.tensor(mix, dtype=torch.uint8)[
        torch.randint(0, len(mix), (n // 16, k // 16), generator=generator)
    ]
    weight = integers(n, k) + 0.0
    weight[weight == 0] = 1.0
    mask = variable_mask(torch.rand(n, k, generator=generator), codes)
    found = sc.pack(weight, sc.VariableNM(), mask, dtype=dtype)
    assert isinstance(found, VariableNM)
    assert torch.equal(found.codes, codes)
    return weight, mask, found


@pytest.mark.parametrize("mix", MIXES, ids=str)
@pytest.mark.parametrize(("n", "k"), [(16, 16), (48, 80), (112, 208), (16, 0), (0, 16)])
def test_each_run_keeps_n_and_bytes_are_as_the_formula_says(n: int, k: int, mix: tuple[int, ...]) -> None:
    weight, mask, found = packed(n, k, mix)
    per_run = mask.view(n // 16, 16, k // 16, 16).sum(-1)
    assert torch.equal(per_run, found.codes[:, None].expand_as(per_run).long())
    assert torch.equal(found.validate().to_dense(), weight * mask)
    assert torch.equal(found.mask(), mask)
    counts = {code: int((found.codes == code).sum()) for code in (0, 2, 4, 8, 16)}
    by_hand = sum(counts[code] * (1 + 16 * code * 4 + 8 * code) for code in (0, 2, 4, 8)) + counts[16] * 1025
    assert found.nbytes == by_hand == variable_nbytes(found.codes, 4)
    values, indices = reference.variable_nm_pack(weight, mask, found.codes)
    assert torch.equal(values, found.values) and torch.equal(indices, found.indices)
    assert torch.equal(reference.variable_nm_unpack(values, indices, found.codes, n, k), weight * mask)


@pytest.mark.parametrize("isa", sc.cpu.available())
@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_linear_equals_the_masked_product(mix: tuple[int, ...], isa: str) -> None:
    with sc.cpu.use(isa):
        for n, k in ((16, 16), (48, 80)):
            weight, mask, found = packed(n, k, mix)
            bias = integers(n, seed=3)
            for shape in ((0, k), (1, k), (3, k), (2, 5, k), (17, k)):
                x = integers(*shape, seed=4)
                assert torch.equal(found.linear(x, bias), x @ (weight * mask).T + bias)
            x = integers(9, 2 * k, seed=5)[:, ::2]  # strided columns
            assert torch.equal(found.linear(x), x @ (weight * mask).T)
            wide = integers(9, k + 7, seed=6)[:, 3 : 3 + k]  # strided rows
            assert torch.equal(found.linear(wide, activation="relu"), (wide @ (weight * mask).T).relu())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int8, torch.float64], ids=str)
def test_storage_types(dtype: torch.dtype) -> None:
    weight, mask, _ = packed(48, 80, MIXES[-1])
    source = weight.double() if dtype == torch.float64 else weight
    found = sc.pack(source, "n:16", mask, dtype=dtype)
    x = integers(5, 80)
    got = found.linear(x.double() if dtype == torch.float64 else x)
    assert torch.allclose(got.float(), x @ found.to_dense().float().T, rtol=1e-5, atol=1e-3)
    if dtype == torch.int8:
        assert found.nbytes == variable_nbytes(found.codes, 1) + 4 * 48
    else:
        assert torch.equal(found.to_dense().float(), weight * mask)


def test_equal_codes_give_what_plain_n_of_16_gives() -> None:
    weight = torch.randn(32, 64)
    mask = nm_mask(weight.abs(), 4, 16)
    x = torch.randn(3, 64)
    variable, plain = (
        sc.pack(weight, sc.VariableNM(), mask),
        sc.pack(weight, sc.NM(4, 16), mask, layout="nm_decode"),
    )
    assert set(variable.codes.flatten().tolist()) == {4}
    assert torch.equal(variable.to_dense(), plain.to_dense())
    assert torch.allclose(variable.linear(x), plain.linear(x), atol=1e-5)


def blocks_of(scales: Tensor) -> Tensor:
    return torch.randn(len(scales) * 16, scales.shape[1] * 16) * scales.repeat_interleave(
        16, 0
    ).repeat_interleave(16, 1)


@pytest.mark.parametrize("value_bytes", [1, 4])
@pytest.mark.parametrize("uniform", [4, 8])
def test_at_equal_bytes_variable_codes_keep_more(uniform: int, value_bytes: int) -> None:
    torch.manual_seed(0)
    uneven, even = blocks_of(torch.randn(12, 12).exp()), blocks_of(torch.ones(12, 12))
    for weight, least, most in ((uneven, 1.02, 10.0), (even, 0.98, 1.05)):
        score = weight.square()
        plain = torch.full((12, 12), uniform, dtype=torch.uint8)
        budget = variable_nbytes(plain, value_bytes)
        codes = choose_codes(score, nbytes=budget, value_bytes=value_bytes)
        assert variable_nbytes(codes, value_bytes) <= budget
        assert variable_nbytes(codes, value_bytes) > budget - 16 * 16 * value_bytes - 1
        kept = [float((score * variable_mask(score, each)).sum()) for each in (plain, codes)]
        assert least <= kept[1] / kept[0] <= most


def test_budgets() -> None:
    score = torch.rand(64, 64)
    assert set(choose_codes(score, sparsity=0.0).flatten().tolist()) == {16}
    assert set(choose_codes(score, sparsity=0.875).flatten().tolist()) == {2}
    assert set(choose_codes(score, sparsity=0.99, empty=True).flatten().tolist()) <= {0, 2}
    codes = choose_codes(score, sparsity=0.6, empty=True)
    assert 0.6 <= 1.0 - float(codes.float().mean()) / 16 < 0.6 + 1 / 16
    with pytest.raises(ValueError, match="below"):
        choose_codes(score, sparsity=0.95)
    with pytest.raises(ValueError, match="nbytes or sparsity"):
        choose_codes(score)
    with pytest.raises(ValueError, match="multiples of 16"):
        choose_codes(torch.rand(16, 20), sparsity=0.5)
    with pytest.raises(ValueError, match="multiples of 16"):
        sc.pack(torch.rand(20, 16), sc.VariableNM(), sparsity=0.5)


def test_damaged_weights_are_refused() -> None:
    _, _, found = packed(32, 32, (4,))
    parts = dict(shape=found.shape, pattern=found.pattern, scale=None)
    codes = found.codes.clone()
    codes[0, 0] = 3
    with pytest.raises(ValueError, match="codes must be one of"):
        VariableNM(values=found.values, indices=found.indices, codes=codes, **parts).validate()
    codes[0, 0] = 8
    with pytest.raises(ValueError, match="values must be"):
        VariableNM(values=found.values, indices=found.indices, codes=codes, **parts).validate()
    with pytest.raises(RuntimeError, match="values must be"):
        sc.ops.variable_nm_linear(torch.rand(1, 32), found.values, found.indices, codes, out_features=32)
    indices = found.indices.clone()
    indices[1, 5] = 0
    with pytest.raises(ValueError, match="ascending"):
        VariableNM(values=found.values, indices=indices, codes=found.codes, **parts).validate()
    with pytest.raises(RuntimeError, match="multiples of 16"):
        sc.ops.variable_nm_linear(
            torch.rand(1, 30), found.values, found.indices, found.codes, out_features=32
        )
    with pytest.raises(RuntimeError, match="keeps more"):
        torch.ops.sparsecore.variable_nm_pack(
            torch.ones(16, 16), torch.ones(16, 16) > 0, torch.full((1, 1), 8).byte()
        )


def test_operator_rules_and_gradients() -> None:
    weight, mask, found = packed(48, 32, MIXES[-1])
    x = integers(3, 32).requires_grad_()
    values = found.values.clone().requires_grad_()
    bias = integers(48, seed=1).requires_grad_()
    dense = (weight * mask).requires_grad_()
    direction = integers(3, 48, seed=2)
    arguments = (x, values, found.indices, found.codes, None, bias, 48, 0, 0)
    torch.library.opcheck(torch.ops.sparsecore.variable_nm_linear, arguments)
    sc.ops.variable_nm_linear(x, values, found.indices, found.codes, None, bias, out_features=48).backward(
        direction
    )
    ours = (x.grad.clone(), bias.grad.clone())
    x.grad = bias.grad = None
    nn.functional.linear(x, dense, bias).backward(direction)
    assert torch.equal(ours[0], x.grad) and torch.equal(ours[1], bias.grad)
    gradient = torch.ops.sparsecore.variable_nm_unpack(values.grad, found.indices, found.codes, 48, 32)
    assert torch.equal(gradient, dense.grad * mask)
    compiled = torch.compile(lambda y: found.linear(y, bias), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), found.linear(x, bias))


def test_layers_train_save_and_prune(tmp_path: object) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
    masks = sc.sparsify.magnitude(model, sc.VariableNM(), sparsity=0.6)
    assert all(abs(1.0 - float(mask.float().mean()) - 0.6) < 0.06 for mask in masks.values())
    x = torch.randn(4, 32)
    expected = model(x)
    sc.sparsify_(model, "n:16")
    assert isinstance(model[0], sc.nn.SparseLinear) and torch.allclose(model(x), expected, atol=1e-5)
    path = f"{tmp_path}/model.safetensors"
    sc.save(model, path)
    again = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 16))
    sc.load(again, path)
    assert torch.equal(again(x), model(x))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    before = model[0].weight.values.detach().clone()
    model(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(model[0].weight.values, before)
    recipe = sc.sparsify.Recipe(sc.VariableNM(), allocation=sc.sparsify.Uniform(0.5))
    assert sc.sparsify.Recipe.from_dict(recipe.to_dict()) == recipe
    with pytest.raises(ValueError, match="exchanges single weights"):
        sc.sparsify.Recipe(
            sc.VariableNM(),
            allocation=sc.sparsify.Uniform(0.5),
            schedule=sc.sparsify.Constant(10),
            grow=sc.sparsify.RandomGrow(sc.sparsify.Fraction(0.3)),
        )
