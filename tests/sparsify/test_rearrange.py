"""Rearranged networks: the same function, and more magnitude in the groups that stay."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import sparsecore as sc
from sparsecore.formats.select import select_mask
from sparsecore.sparsify import Kernels, PerKind, rearrange_
from sparsecore.sparsify.axes import between, extent, freeze, fresh, join, leaves, places, repeated
from sparsecore.sparsify.orderings import kept_score
from sparsecore.sparsify.rearrange import Rearrangement


def spread_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights whose filters differ in size as those of trained networks do, and norms that are not trivial."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point():
                continue
            if tensor.dim() > 1:
                tensor.copy_(torch.randn_like(tensor) / tensor[0].numel() ** 0.5)
                tensor.mul_(torch.randn(len(tensor)).mul(0.7).exp().view(-1, *[1] * (tensor.dim() - 1)))
            elif name.endswith("running_var"):
                tensor.copy_(torch.rand_like(tensor) + 0.5)
            else:
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    return model


def conv_norm(inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class MobileNetLike(nn.Module):
    """Inverted residuals with depthwise convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16, 3, 2)
        self.expand = nn.ModuleList(conv_norm(16, 48) for _ in range(2))
        self.depthwise = nn.ModuleList(conv_norm(48, 48, 3, groups=48) for _ in range(2))
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(48, 16, 1, bias=False), nn.BatchNorm2d(16)) for _ in range(2)
        )
        self.head = conv_norm(16, 64)
        self.classifier = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for expand, depthwise, project in zip(self.expand, self.depthwise, self.project, strict=True):
            x = x + project(depthwise(expand(x)))
        return self.classifier(self.head(x).mean([2, 3]))


class ResNetLike(nn.Module):
    """Residual blocks, one with a shortcut of its own, and a flatten of planes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16, 3)
        self.first = nn.Sequential(conv_norm(16, 16, 3), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.second = nn.Sequential(
            conv_norm(16, 32, 3, 2), nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32)
        )
        self.shortcut = nn.Conv2d(16, 32, 1, 2)
        self.classifier = nn.Linear(32 * 4 * 4, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = functional.relu(x + self.first(x))
        x = functional.relu(self.shortcut(x) + self.second(x))
        return self.classifier(torch.flatten(functional.adaptive_avg_pool2d(x, 4), 1))


class Concatenating(nn.Module):
    """Branches that meet by concatenation, and a sum over the result that cuts other channels to fit."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv_norm(3, 16, 3), conv_norm(3, 32, 3)
        self.across = conv_norm(3, 48, 1)
        self.mix = conv_norm(48, 32)
        self.out = nn.Conv2d(80, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.left(x), self.right(x)], 1) + self.across(x)
        return self.out(torch.cat([self.mix(joined), joined], 1))


class SqueezeExcite(nn.Module):
    """A gate computed from pooled channels, a gated linear unit, a learned scale and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 32, 3)
        self.reduce, self.excite = nn.Conv2d(32, 16, 1), nn.Conv2d(16, 32, 1)
        self.scale = nn.Parameter(torch.ones(32, 1, 1))
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.glu = nn.Conv2d(32, 64, 1)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = functional.hardsigmoid(self.excite(functional.silu(self.reduce(x.mean((2, 3), keepdim=True)))))
        x = self.grouped(x * gate * self.scale) + x
        value, open_ = self.glu(x).chunk(2, 1)
        return self.head((value * open_.sigmoid()).amax((2, 3)))


class Sequence(nn.Module):
    """Attention with heads, norms over features, and a feed-forward block with a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 32)
        self.norm = nn.LayerNorm(32)
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x))
        q, k, v = (part.view(*part.shape[:2], 4, 8).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.out(mixed)
        return self.head(x + self.down(functional.gelu(self.up(x))))


NETWORKS = {
    "mobilenet": (MobileNetLike, torch.randn(2, 3, 12, 12)),
    "resnet": (ResNetLike, torch.randn(2, 3, 8, 8)),
    "concatenation": (Concatenating, torch.randn(2, 3, 5, 7)),
    "squeeze": (SqueezeExcite, torch.randn(2, 3, 6, 6)),
    "sequence": (Sequence, torch.randint(0, 11, (2, 5))),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("rows", [4, 16])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_stays(name: str, rows: int, dtype: torch.dtype) -> None:
    build, example = NETWORKS[name]
    model = spread_weights(build()).eval().to(dtype)
    example = example if example.dtype == torch.int64 else example.to(dtype)
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model(example)
        found = rearrange_(model, example, sc.Group(rows, 1), 0.5, progress=False)
        got = model(example)
    allowed = 1e-12 if dtype == torch.float64 else 1e-5
    assert float((got - expected).abs().max() / expected.abs().max()) < allowed
    assert found.difference < allowed
    moved = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert set(found.places) == set(moved) and moved
    for order in found.classes:
        assert order.order.sort().values.tolist() == list(range(len(order.order)))
        assert order.after >= order.before
    assert all(after >= before - 1e-6 for before, after in found.layers.values()) or rows == 4
    assert sum(after for _, after in found.layers.values()) > sum(
        before for before, _ in found.layers.values()
    )


def members(found: Rearrangement, tensor: str) -> set[str]:
    return next((set(order.tensors) for order in found.classes if tensor in order.tensors), set())


def test_residual_streams_and_depthwise_share_an_order() -> None:
    model = spread_weights(MobileNetLike()).eval()
    found = rearrange_(model, torch.randn(1, 3, 12, 12), "4x1", progress=False)
    stream = members(found, "stem.0.weight[0]")
    assert {"project.0.0.weight[0]", "project.1.1.running_var[0]", "expand.1.0.weight[1]"} <= stream
    assert "depthwise.0.0.weight[0]" in members(found, "expand.0.0.weight[0]")
    assert members(found, "expand.0.0.weight[0]") != members(found, "expand.1.0.weight[0]")
    assert not members(found, "classifier.weight[0]")  # outputs of the network
    assert not members(found, "stem.0.weight[1]")  # its inputs


def test_grouped_convolutions_keep_their_order() -> None:
    found = rearrange_(spread_weights(SqueezeExcite()).eval(), torch.randn(1, 3, 6, 6), "4x1", progress=False)
    assert not members(found, "grouped.weight[0]") and not members(found, "stem.0.weight[0]")
    assert members(found, "reduce.weight[0]") >= {"excite.weight[1]", "reduce.bias[0]"}
    assert "head.weight[1]" in members(found, "glu.weight[0]")


def test_heads_move_as_one_or_not_at_all() -> None:
    found = rearrange_(spread_weights(Sequence()).eval(), torch.randint(0, 11, (1, 4)), "4x1", progress=False)
    assert not members(found, "qkv.weight[0]")
    assert members(found, "up.weight[0]") == {"up.weight[0]", "up.bias[0]", "down.weight[1]"}
    assert {"embed.weight[1]", "norm.bias[0]", "out.weight[0]"} <= members(found, "down.weight[0]")


class Shuffling(nn.Module):
    """A channel shuffle ties the order of all groups: nothing may move."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        n, c, h, w = y.shape
        y = y.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.second(y).cumsum(1)


class PixelShuffled(nn.Module):
    """Runs of four channels become pixels: they move as one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 64, 1), nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        y = self.first(x).view(n, 16, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, 16, 2 * h, 2 * w)
        return self.second(functional.relu(y))


@pytest.mark.parametrize("build", [Shuffling, PixelShuffled])
def test_shuffles(build: type[nn.Module]) -> None:
    model, x = spread_weights(build()).eval().double(), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = model(x)
    found = rearrange_(model, x, "8x1", progress=False)
    assert (model(x) - expected).abs().max() < 1e-12 * expected.abs().max()
    assert bool(found.places) == (build is PixelShuffled)


def test_tied_weights_move_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(16, 16)
            self.b = nn.Linear(16, 16)
            self.b.weight = self.a.weight
            self.first, self.last = nn.Linear(5, 16), nn.Linear(16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.b(functional.relu(self.a(functional.relu(self.first(x))))))

    model, x = spread_weights(Tied()).double(), torch.randn(4, 5, dtype=torch.float64)
    expected = model(x)
    found = rearrange_(model, x, "4x1", ignore=("a", "b"), progress=False)
    assert "first.weight" in found.places
    assert (model(x) - expected).abs().max() < 1e-12 * expected.abs().max()


def test_another_copy_follows() -> None:
    model = spread_weights(MobileNetLike()).eval()
    teacher, x = copy.deepcopy(model), torch.randn(1, 3, 12, 12)
    found = rearrange_(model, x, "8x1", progress=False)
    found.apply_(teacher)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), teacher.parameters(), strict=True))
    assert "expand.0.0" in str(found)


@pytest.mark.parametrize(("rows", "gap"), [(4, 0.05), (16, 0.10)])
def test_rearranging_keeps_more_of_weights_of_spread_sizes(rows: int, gap: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 4))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(256, 128) * (0.7 * torch.randn(256, 1)).exp())
    found = rearrange_(model, torch.randn(3, 128), sc.Group(rows, 1), 0.5, ignore=("2",), progress=False)
    before, after = found.layers["0"]
    assert after > before + gap
    weight = model[0].weight.detach().abs()
    mask = select_mask(weight, sc.Group(rows, 1), 0.5)
    assert float((weight * mask).sum() / weight.sum()) == pytest.approx(after, rel=1e-5)
    by_norm = weight[weight.sum(1).argsort(descending=True)]
    assert after >= kept_score(by_norm, sc.Group(rows, 1), 0.5)


def test_schemas_of_several_kinds() -> None:
    schema = PerKind("16x1", "16x1", Kernels(16), "8x1")
    model = spread_weights(MobileNetLike()).eval()
    found = rearrange_(model, torch.randn(1, 3, 12, 12), schema, 0.3, ignore=("stem.0",), progress=False)
    assert "stem.0" not in found.layers and "depthwise.0.0" in found.layers
    assert found.layers["expand.0.0"][1] > found.layers["expand.0.0"][0]


@pytest.mark.parametrize("pattern", ["2:4", "unstructured", "channels"])
def test_patterns_without_groups_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="does not matter"):
        rearrange_(MobileNetLike(), torch.randn(1, 3, 12, 12), pattern)


def test_training_mode_and_a_sparsifier() -> None:
    model = spread_weights(MobileNetLike()).train()
    model.stem.eval()
    rearrange_(model, torch.randn(1, 3, 12, 12), "4x1", progress=False)
    assert model.training and not model.stem.training
    sc.sparsify.Sparsifier(
        model,
        sc.sparsify.Recipe(sc.NM(2, 4), schedule=sc.sparsify.EveryForward(), gradient=sc.sparsify.STE()),
    )
    with pytest.raises(ValueError, match="parametrized"):
        rearrange_(model, torch.randn(1, 3, 12, 12), "4x1")


def test_a_model_that_cannot_be_exported() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.sum() > 0 else x

    with pytest.raises(ValueError, match="cannot follow"):
        rearrange_(Branching(), torch.randn(2, 8), "4x1")


def test_axes() -> None:
    a, b = fresh(12), fresh(12)
    join((*fresh(4), *fresh(8)), a)
    assert [s.channels.size for s in leaves(a)] == [4, 8]
    join(repeated(fresh(4), 3), b)
    assert [(s.channels.size, s.repeat) for s in leaves(b)] == [(4, 3)]
    assert extent(between(b, 3, 9)) == 6 and [s.channels.size for s in leaves(b)] == [1, 2, 1]
    cut = between(b, 4, 9)  # inside a run: that run keeps its order
    assert extent(cut) == 5 and [s.channels.frozen for s in leaves(b)] == [False, True, False]
    c, d = repeated(fresh(4), 3), repeated(fresh(6), 2)
    join(c, d)  # runs of two and of three do not agree
    assert all(s.channels.frozen for s in (*leaves(c), *leaves(d)))
    with pytest.raises(ValueError, match="places"):
        join(fresh(3), fresh(4))
    e = repeated(fresh(3), 2)
    (segment,) = leaves(e)
    assert places(e, {segment.channels: torch.tensor([2, 0, 1])}).tolist() == [4, 5, 0, 1, 2, 3]
    f = fresh(3)
    freeze(f)
    g = fresh(3)
    join(g, f)
    assert next(leaves(g)).channels.frozen
