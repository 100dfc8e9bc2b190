"""Networks from files: what Python adds to the runtime, whose operators the C++ tests compare with plain loops."""

from __future__ import annotations

import copy
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

import sparsecore as sc

CHANNELS, OUT, SIDE = 5, 6, 4


def group_lists(weight: Tensor) -> dict[str, Tensor]:
    """The nonzero weights of a matrix as group lists of one panel and one window."""
    n, _ = weight.shape
    kept = weight != 0
    lengths = kept.sum(1)
    order = lengths.argsort(descending=True, stable=True)
    starts = torch.cat([torch.zeros(1), lengths[order].cumsum(0)])
    values = torch.cat([weight[o][kept[o]] for o in order] + [torch.zeros(1)])
    index = torch.cat([kept[o].nonzero().flatten() for o in order] + [torch.zeros(1)])
    return {
        "values": values.reshape(-1, 1, 1),
        "index": index.to(torch.uint8),
        "order": order.to(torch.uint8),
        "starts": starts.to(torch.int32).reshape(1, n + 1),
    }


def network_file(layout: str = "chw", version: str = "1", **changes: Any) -> tuple[bytes, Tensor, Tensor]:
    """A 1x1 convolution with ReLU, its mean and a dense layer; and the two weights."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randint(-2, 3, (OUT, CHANNELS), generator=generator).float()
    head = torch.randint(-2, 3, (3, OUT), generator=generator).float()
    tensors = {f"mix.{part}": tensor for part, tensor in group_lists(mix).items()} | {"head.weight": head}
    lists = {"rows": 1, "cols": 1, "depth": 16, "window": 256}
    network = {
        "inputs": [{"name": "image", "value": 0, "layout": layout}],
        "outputs": [{"name": "logits", "value": 3}, {"name": "planes", "value": 1}],
        "values": [[CHANNELS, SIDE, SIDE], [OUT, SIDE, SIDE], [OUT], [3]],
        "steps": [
            {"op": "conv", "x": 0, "y": 1, "weight": "mix", "activation": "relu", **lists},
            {"op": "global_average_pool", "x": 1, "y": 2},
            {"op": "dense", "x": 2, "y": 3, "weight": "head"},
        ],
    } | changes
    metadata = {"format": "sparsecore.network", "version": version, "network": json.dumps(network)}
    return save(tensors, metadata), mix, head


def expected(x: Tensor, mix: Tensor, head: Tensor) -> tuple[Tensor, Tensor]:
    planes = torch.einsum("oc,bchw->bohw", mix, x).relu()
    return planes.mean((2, 3)) @ head.T, planes


def images(batch: int) -> Tensor:
    return torch.randint(
        -3, 4, (batch, CHANNELS, SIDE, SIDE), generator=torch.Generator().manual_seed(1)
    ).float()


def check(network: sc.Network, mix: Tensor, head: Tensor) -> None:
    for batch in (0, 1, 3):
        x = images(batch)
        logits, planes = network(x)
        wanted_logits, wanted_planes = expected(x, mix, head)
        assert torch.equal(planes, wanted_planes)
        torch.testing.assert_close(logits, wanted_logits)


def test_batches_single_images_and_other_inputs() -> None:
    file, mix, head = network_file()
    network = sc.Network(file)
    check(network, mix, head)
    x = images(2)
    whole = network(x)
    for one, many in zip(network(x[1]), whole, strict=True):
        assert torch.equal(one, many[1])
    for other in (x.double(), x.half(), x.to(memory_format=torch.channels_last), x.requires_grad_()):
        for got, wanted in zip(network.run(other), whole, strict=True):
            assert torch.equal(got, wanted)


def test_pixels_first() -> None:
    file, mix, head = network_file("hwc")
    network = sc.Network(file)
    assert network.inputs[0].shape == (SIDE, SIDE, CHANNELS)
    x = images(2)
    logits, planes = network(x.permute(0, 2, 3, 1))
    wanted_logits, wanted_planes = expected(x, mix, head)
    assert torch.equal(planes, wanted_planes)
    torch.testing.assert_close(logits, wanted_logits)


def test_what_a_network_says_of_itself() -> None:
    file, mix, _ = network_file()
    network = sc.Network(file)
    assert [(port.name, port.shape, port.layout) for port in network.outputs] == [
        ("logits", (3,), "vector"),
        ("planes", (OUT, SIDE, SIDE), "chw"),
    ]
    steps = network.profile(images(3))
    assert [step.op for step in steps] == ["conv", "global_average_pool", "dense"]
    assert steps[0].products == int((mix != 0).sum()) * SIDE * SIDE
    assert steps[0].dense_products == mix.numel() * SIDE * SIDE
    assert steps[0].seconds > 0
    assert steps[0].kernel
    assert network.arena_bytes > 0
    assert network.weight_bytes >= 4 * int((mix != 0).sum())
    table = network.explain()
    assert "mix" in table and "of dense" in table and " ms" in table
    assert "3 steps" in repr(network)


def test_one_output_is_a_tensor() -> None:
    file, _, _ = network_file(outputs=[{"name": "logits", "value": 3}])
    assert sc.Network(file)(images(2)).shape == (2, 3)


def test_copies_and_files(tmp_path: Path) -> None:
    file, mix, head = network_file()
    path = tmp_path / "network.safetensors"
    path.write_bytes(file)
    network = sc.Network.load(path)
    assert network.file_bytes == file
    for again in (
        network,
        sc.Network.load(str(path)),
        sc.Network.load(bytearray(file)),
        pickle.loads(pickle.dumps(network)),
        copy.deepcopy(network),
    ):
        check(again, mix, head)


def test_threads_share_a_network() -> None:
    file, mix, head = network_file()
    network = sc.Network(file)
    failures: list[BaseException] = []

    def call() -> None:
        try:
            for _ in range(20):
                check(network, mix, head)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_files_that_are_not_sound(tmp_path: Path) -> None:
    file, _, _ = network_file()
    for length in range(0, len(file), 7):
        with pytest.raises(ValueError, match="Network: "):
            sc.Network(file[:length])
    with pytest.raises(ValueError, match="version '2', and this library reads 1"):
        sc.Network(network_file(version="2")[0])
    with pytest.raises(ValueError, match=r"step 0 \(conv\).*\[7, 4, 4\]|needs"):
        sc.Network(network_file(values=[[CHANNELS, SIDE, SIDE], [7, SIDE, SIDE], [7], [3]])[0])
    with pytest.raises(ValueError, match="no network"):
        sc.Network(save({"a": torch.zeros(1)}))
    path = tmp_path / "short.safetensors"
    path.write_bytes(file[:40])
    with pytest.raises(ValueError, match=r"short.safetensors: Network: .*truncated"):
        sc.Network.load(path)
    with pytest.raises(FileNotFoundError):
        sc.Network.load(tmp_path / "absent.safetensors")
    with pytest.raises(TypeError, match="must be bytes"):
        sc.Network("mobilenet.safetensors")  # type: ignore[arg-type]


def test_tensors_that_do_not_fit() -> None:
    network = sc.Network(network_file()[0])
    with pytest.raises(ValueError, match=r"needs 1 tensors \(image\), and got 2"):
        network(images(1), images(1))
    with pytest.raises(ValueError, match=r"needs the shape \[5, 4, 4\] \(chw\)"):
        network(torch.zeros(1, CHANNELS, SIDE, SIDE + 1))
    with pytest.raises(TypeError, match="floating tensor on the CPU, and is torch"):
        network(torch.zeros(CHANNELS, SIDE, SIDE, dtype=torch.int64))
    with pytest.raises(TypeError, match="and is list"):
        network([1.0])  # type: ignore[arg-type]
