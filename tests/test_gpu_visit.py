"""The parts of a GPU visit that need neither GPU nor emulator: supervision, reports, records, tables."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

import pytest
import torch

import sparsecore
import table
import tables
import tables.layers
from gpu import collect, correctness, device, machine, peers, programs, sampling, supervision, timings, visit
from gpu.conclusions import conclude
from gpu.families import FAMILIES
from gpu.families.base import KeptLayers, Shape, packed_on_cpu
from gpu.record import Record, running
from gpu.stages import Item, Watch
from gpu.summary import summarize

ROW = {
    "family": "2:4",
    "variant": "2:4 bfloat16",
    "shape": [4096, 4096, 16],
    "targets": [{"against": "cuBLAS", "must": 1.45, "stretch": 1.65}],
    "us": {"ours": [9.0, 8.0, 10.0], "cuBLAS": [13.0, 12.0, 14.0]},
    "us_graph": {"ours": [8.0, 7.5, 8.5], "cuBLAS": [12.0, 11.0, 13.0]},
    "ratios": {"cuBLAS": 1.5},
    "notes": {"cuSPARSELt": "cannot: no algorithm"},
}


def test_record_is_whole_after_every_step(tmp_path: Path) -> None:
    path = tmp_path / "visit.json"
    record = Record(path, tmp_path / "copy.json")
    record.begin("timings", "a", 60, "a group")
    record.at("peer b")
    assert running(path) is not None and running(path)["at"] == "peer b"
    record.put("timings", "a", {"us": 1})
    assert running(path) is None
    record.put("timings", "b", {"complete": False})
    again = Record(path)
    assert again.has("timings", "a") and not again.has("timings", "b") and not again.has("tests", "a")
    assert (tmp_path / "copy.json").read_text() == path.read_text()
    assert not list(tmp_path.glob("*.unfinished"))


def test_a_damaged_record_is_put_aside(tmp_path: Path) -> None:
    path, copy = tmp_path / "visit.json", tmp_path / "copy.json"
    Record(path, copy).put("timings", "a", {"us": 1})
    path.write_text(path.read_text()[:20])
    assert Record(path, copy).has("timings", "a")
    assert Record(path).data["stages"] == {}
    assert (tmp_path / "visit.damaged").exists()


def test_estimates_follow_what_was_done(tmp_path: Path) -> None:
    record = Record(tmp_path / "visit.json")
    for i in range(3):
        assert record.expected("timings", "2:4", 7.0) == 7.0
        record.put("timings", str(i), {"group": "2:4", "seconds": 1.0 + i})
    assert record.expected("timings", "2:4", 7.0) == 2.0 and record.expected("tests", "2:4", 7.0) == 7.0


def test_programs_end_with_their_time() -> None:
    start = time.monotonic()
    done = programs.run([sys.executable, "-c", "import time; print('{}', flush=True); time.sleep(60)"], 2)
    assert done.status is None and done.output == "{}\n" and time.monotonic() - start < 30


def test_json_among_other_lines() -> None:
    text = '========= COMPUTE-SANITIZER\n{"question": "a"}\n{broken\n{"question": "b"}\n'
    assert [line["question"] for line in programs.json_lines(text)] == ["a", "b"]


def test_pytest_reports(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="t" name="good"/>'
        '<testcase classname="t" name="left"><skipped/></testcase>'
        '<testcase classname="t" name="bad"><failure>why</failure></testcase></testsuite></testsuites>'
    )
    assert programs.read_junit(report) == {"passed": 1, "skipped": 1, "failed": {"t.bad": "why"}}


def test_gauges_are_medians() -> None:
    lines = ["1980, 3201, 690.5, 60\n", "1755, 3201, 700.1, 61\n", "1800, 3201, [N/A], 62\n"]
    read = device.summarize(lines)
    assert read["clocks.sm"] == 1800 and read["power.draw"] == pytest.approx(695.3)


def test_one_wrong_element_is_noticed() -> None:
    expected = torch.randn(1000, 1000, dtype=torch.float64)
    assert correctness.compare(expected.float(), expected, 3e-3)["ok"]
    wrong = expected.clone()
    wrong[3, 5] += 0.5
    result = correctness.compare(wrong, expected, 3e-3)
    assert result["error"] < 3e-3 and result["wrong_elements"] == 1 and not result["ok"]
    wrong[3, 5] = float("nan")
    assert not correctness.compare(wrong, expected, 3e-3)["ok"]


def test_candidates_take_turns() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    samples = sampling.interleaved(device.Rehearsal(), calls, 3)
    assert order == ["a", "a", "b", "b", *"ab" * 3]
    assert sampling.microseconds(samples["a"]) == [1.0, 1.0, 1.0]


def work(dtype: torch.dtype, tokens: int = 5, block: tuple[int, int] | None = None) -> peers.Work:
    weight = torch.randint(-3, 4, (64, 32)).to(dtype)
    x = torch.randint(-3, 4, (tokens, 32)).to(dtype)
    return peers.Work(x, weight, torch.randn(64).to(torch.bfloat16), torch.bfloat16, block)


def product_of(work: peers.Work, bias: bool) -> torch.Tensor:
    y = work.x.double() @ work.weight.double().T
    return y + work.bias.double() if bias else y


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8], ids=str)
def test_cusparselt_by_its_best_algorithm(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its functions are replaced by dense ones of the same signature; algorithms past the third do not exist."""
    asked: list[int] = []

    def sparse_mm(
        packed: torch.Tensor,
        dense: torch.Tensor,
        *,
        bias: torch.Tensor | None,
        out_dtype: torch.dtype | None,
        transpose_result: bool,
        alg_id: int,
        split_k: int,
        split_k_mode: int,
    ) -> torch.Tensor:
        assert dense.shape[1] % 8 == 0 and transpose_result
        if alg_id > 2:
            raise RuntimeError("cuSPARSELt: no such algorithm")
        asked.append(alg_id)
        y = dense.T.double() @ packed.double().T
        return (y if bias is None else y + bias.double()).to(out_dtype or dtype)

    class Search:
        mm_search = staticmethod(lambda *arguments: (1, 2, 0, 4))

    monkeypatch.setattr(torch, "_cslt_compress", lambda weight: weight, raising=False)
    monkeypatch.setattr(torch, "_cslt_sparse_mm", sparse_mm, raising=False)
    monkeypatch.setattr(torch._C, "_cusparselt", Search, raising=False)
    given = work(dtype)
    note, call = peers.cusparselt(given, device.Rehearsal())
    assert set(asked) == {0, 1, 2} and ("algorithm" in note)
    expected = product_of(given, dtype == torch.bfloat16)
    torch.testing.assert_close(call()[:5].double(), expected, rtol=1e-2, atol=1e-2)


def test_cutlass_takes_padded_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sparse:
        from_dense = staticmethod(lambda weight: weight)

    monkeypatch.setattr(torch.sparse, "SparseSemiStructuredTensorCUTLASS", Sparse)
    given = work(torch.bfloat16)
    _, call = peers.cutlass(given, device.Rehearsal())
    assert call().shape == (8, 64)
    torch.testing.assert_close(call()[:5].double(), product_of(given, True), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int8, torch.float8_e4m3fn], ids=str)
def test_cublas_of_every_type(dtype: torch.dtype) -> None:
    given = work(dtype)
    _, call = peers.cublas(given, device.Rehearsal())
    expected = product_of(given, dtype == torch.bfloat16)
    torch.testing.assert_close(call()[:5].double(), expected, rtol=1e-2, atol=1e-2)


def test_peers_without_a_configuration_say_why() -> None:
    def fails() -> None:
        raise RuntimeError("out of registers")

    with pytest.raises(RuntimeError, match="no configuration works: out of registers"):
        peers.fastest({"a": fails}, device.Rehearsal())


def test_the_device_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Events around the call alone, after the flush; graphs replay what was captured."""
    done: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            done.append("event")

        def elapsed_time(self, end: Event) -> float:
            return 2.0

    class Stream:
        def wait_stream(self, other: Stream) -> None:
            done.append("wait")

    class Graph:
        def replay(self) -> None:
            done.append("replay")

    monkeypatch.setattr(device.Gpu, "name", "cpu")
    monkeypatch.setattr(device.Gpu, "FLUSHED", 64)
    for name, value in {
        "Event": Event,
        "Stream": Stream,
        "CUDAGraph": Graph,
        "current_stream": Stream,
        "stream": lambda stream: contextlib.nullcontext(),
        "graph": lambda graph: contextlib.nullcontext(),
        "synchronize": lambda: done.append("synchronize"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    gpu = device.Gpu()
    monkeypatch.setattr(gpu, "flush", lambda flush=gpu.flush: (flush(), done.append("flush")))
    samples = sampling.interleaved(gpu, {"a": lambda: done.append("a")}, 2)
    assert samples == {"a": [2e-3, 2e-3]}
    assert done == ["a", "a", "synchronize", *["flush", "event", "a", "event"] * 2, "synchronize"]
    done.clear()
    gpu.graph(lambda: done.append("a"))()
    assert done == ["wait", "a", "wait", "a", "replay"]


def a_record(tmp_path: Path) -> Path:
    path = tmp_path / "gpu_visit.json"
    machine = {"gpu": "NVIDIA X1", "driver": "1", "torch": "2.11", "date": "2026-01-01"}
    record = Record(path)
    record.data |= {"dry": False, "commit": "0123456789", "compiler": "nvcc 13"}
    record.put("machine", "machine", machine)
    record.put("conformance", "wrappers", {"ok": False, "passed": 99, "failed": {"mma.bf16": "[0, 0] is 1"}})
    record.put("questions", "mma.bf16.warps8", {"ok": True, "us": 10.0, "operations_per_cycle": 2048.0})
    record.put("timings", "2:4 bfloat16, 4096 x 4096, 16 tokens", dict(ROW))
    return path


def test_a_record_becomes_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In docs/performance.md and in the README; these numbers are made up, and no page keeps them."""
    record = Record(a_record(tmp_path))
    record.put("timings", "8 by kernel", by_kernel(8, 4.0, 6.0, 4.0))
    record.data |= {
        "left": {"tests": {"items": 3, "seconds": 40.0}},
        "left_out": {"timings": {"V:N:M": 12}},
        "peers": {"peer cuSPARSELt": "does not return"},
    }
    record.write()
    path = collect.collect(record.path, tmp_path / "results")
    assert path.name == "gpu_nvidia_x1.json"
    monkeypatch.setattr(tables, "RESULTS", path.parent)
    text = table.performance_page()
    assert "### NVIDIA X1" in text
    assert (
        "Left out: 3 items of tests; 12 items of timings of V:N:M, since two hung or crashed; "
        "peer cuSPARSELt, since it hung or crashed." in text
    )
    assert "| 4096 x 4096 | 16 | 8.0 (7.5 to 8.5) | 9.0 (8.0 to 10.0) | 1.50 |" in text
    assert "#### Targets: 1 stretch, 1 must" in text
    assert "| 2:4 bfloat16, 4096 x 4096, 16 tokens, x cuBLAS | 1.45 | 1.65 | 1.50 | must |" in text
    assert "| 8 by kernel, matmul_small_sm80, x cuBLAS | 2 | 2 | 5.00 | stretch |" in text
    assert (
        "| 4096 x 4096 | 8 | 4.0 (4.0 to 4.0) | 4.0 (4.0 to 4.0) | 6.0 (6.0 to 6.0) | 20.0 (20.0 to 20.0) |"
        in text
    )
    assert "mma.bf16" in text and "| 2048 |" in text
    assert "| correctness | unmeasured |" in text
    assert "Not measured: 2:4 bfloat16, forward and backward, 2:4 float16" in text
    readme = tables.layers.readme_table()
    assert "NVIDIA X1" in readme
    assert "| 2:4 bfloat16 | cuBLAS | 1.45x / 1.65x | 1.50x (worst 1.50x) |" in readme


def test_unmeasured_rows_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    text = table.performance_page()
    assert "| 2:4 bfloat16 |" in text and text.count("unmeasured |") >= 6
    assert (
        "On GPUs nothing has been measured: [what is unmeasured](docs/performance.md"
        in tables.layers.readme_table()
    )


def targets_of(peer: str, must: float, stretch: float) -> list[str]:
    """What a target is set for."""
    found = []
    for family in FAMILIES:
        for name, targets in (
            *((task.name, task.targets) for task in family.tasks),
            *(
                (f"{variant.name}, {tokens}", variant.targets(Shape(*layer, tokens)))
                for variant in family.variants
                for layer in variant.layers
                for tokens in variant.tokens
            ),
        ):
            found += [name for t in targets if (t.against, t.must, t.stretch) == (peer, must, stretch)]
    return found


def test_every_target_has_rows() -> None:
    """What was asked for, must and stretch, beside the peer that it names."""
    assert len(targets_of("cuBLAS", 1.2, 1.45)) >= 10  # 2:4, 4096 cubed and above
    assert len(targets_of("cuSPARSELt", 1.0, 1.0)) >= 10
    assert len(targets_of("cuBLAS", 1.45, 1.65)) >= 20  # 2:4, 1 to 32 tokens
    assert len(targets_of("copy", 0.75, 0.88)) == 2  # compress, by row and two-way
    assert targets_of("cuBLAS", 1.6, 2.2)[0].startswith("64:2:8")
    assert targets_of("cuBLAS", 2.4, 3.2)[0].startswith("4:16")  # vector-wise 25 %
    for share in (0.1, 0.3, 0.5):
        assert targets_of("cuBLAS", round(0.75 / share, 2), round(0.88 / share, 2))  # blocks of 64 and 128
        assert targets_of("cuBLAS", round(0.65 / share, 2), round(0.8 / share, 2))  # sampled products
    for family in FAMILIES:
        for variant in family.variants:
            if variant.by_kernel:
                few = timings.per_visited_flop(variant, variant.by_kernel[0], variant.kernels)
                assert few[0].ours.endswith("sm80") and few[0].must == round(1 / variant.density, 2)


def test_a_dry_record_is_refused(tmp_path: Path) -> None:
    path = a_record(tmp_path)
    record = Record(path)
    record.data["dry"] = True
    record.write()
    with pytest.raises(SystemExit, match="dry run"):
        collect.collect(path, tmp_path / "results")
    assert not (tmp_path / "results").exists()


class Telling(Watch):
    """Remembers what it was told, and leaves out a peer."""

    def __init__(self, left_out: str = "") -> None:
        self.told: list[str] = []
        self._left_out = left_out

    def at(self, part: str) -> None:
        self.told.append(part)

    def left_out(self, peer: str) -> bool:
        return peer == self._left_out


def a_row(calls: dict[str, torch.Tensor], failing: str = "") -> timings.Row:
    """A row whose candidates return these tensors, and whose answer is zeros; one cannot be made."""

    def make(name: str) -> tuple[str, object]:
        if name == failing:
            raise ModuleNotFoundError("No module named 'triton'")
        return "", lambda: calls[name]

    def prepare(watch: Watch) -> timings.Prepared:
        found = timings.Candidates(device.Rehearsal(), watch)
        for name in calls:
            found.add(name, lambda name=name: make(name), is_peer=name != "ours")
        return timings.Prepared(found.calls, answers=(torch.full((2, 2), 3.0),), notes=found.notes)

    targets = (timings.Target("cuBLAS", 1.2, 1.4),)
    return timings.Row("a row", "2:4", "2:4 bfloat16", 0, prepare, targets)


def timed(row: timings.Row, watch: Watch) -> dict[str, object]:
    return timings.time_row(row, device.Rehearsal(), device.Gauges(), watch)


def test_peers_that_fail_cost_themselves() -> None:
    right, wrong = torch.full((2, 2), 3.0), torch.full((2, 2), 4.0)
    watch = Telling(left_out="peer cuSPARSELt")
    calls = dict.fromkeys(("ours", "cuBLAS", "torch BSR", "Triton BSR", "cuSPARSELt"), right)
    row = a_row(calls | {"torch BSR": wrong}, failing="Triton BSR")
    result = timed(row, watch)
    assert set(result["us"]) == set(result["us_graph"]) == {"ours", "cuBLAS"} and "ok" not in result
    assert result["notes"] == {
        "Triton BSR": "cannot: No module named 'triton'",
        "cuSPARSELt": "left out: it hung or crashed before",
        "torch BSR": "wrong result, relative error 3.3e-01",
    }
    # Whoever crashes was named before.
    assert watch.told[:6] == ["", "", "peer cuBLAS", "", "peer torch BSR", ""]
    assert watch.told.count("peer cuBLAS") == 4


def test_our_own_wrong_result_is_no_timing() -> None:
    right, wrong = torch.full((2, 2), 3.0), torch.full((2, 2), float("nan"))
    result = timed(a_row({"ours": wrong, "cuBLAS": right}), Watch())
    assert result["ok"] is False and "ours: wrong result" in str(result["wrong"])
    assert set(result["us"]) == {"cuBLAS"} and "ratios" not in result
    result = timed(a_row({"ours": right, "cuBLAS": right}, failing="ours"), Watch())
    assert result["ok"] is False and "No module" in str(result["wrong"]) and set(result["us"]) == {"cuBLAS"}


def test_a_peer_that_breaks_the_context_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "context_is_broken", lambda: True)
    watch = Telling()
    with pytest.raises(supervision.BrokenContext):
        timed(a_row({"ours": torch.full((2, 2), 3.0), "Triton BSR": torch.zeros(2, 2)}, "Triton BSR"), watch)
    assert watch.told[-1] == "peer Triton BSR"


def test_answers_of_8_bit_peers() -> None:
    layer = timings.Layer(torch.ones(3, 4, dtype=torch.int8), lambda x, bias: x, torch.full((3,), 0.5))
    answers = timings.answers_of(layer, torch.ones(2, 4, dtype=torch.int8), torch.ones(3))
    assert [answer[0, 0].item() for answer in answers] == [3.0, 2.0, 4.0]


def test_memory_is_given_back_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []
    monkeypatch.setattr(supervision, "release_memory", lambda: tries.append(0))

    def run(watch: Watch) -> dict[str, object]:
        if not tries:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"ok": True}

    record = Record(tmp_path / "visit.json")
    record.begin("timings", "a", 60)
    assert supervision.attempt(Item("a", run, 60), supervision.Watched(record)) == ({"ok": True}, False)
    assert len(tries) == 1


def test_tools_that_hang_or_fail_leave_gaps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec sleep 600\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(machine, "SECONDS", 0.2)

    def fails() -> None:
        raise RuntimeError("no library")

    monkeypatch.setattr(torch.backends.cusparselt, "is_available", fails)
    found = machine.describe(dry=True)
    assert found["driver"] == "" and found["cusparselt"] is None and found["torch"] == torch.__version__
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "built without CUDA" in machine.of_gpu()["wrong"]
    # A device that does not tell its clocks, and one whose nvidia-smi cannot be started.
    gauges = device.Gauges()
    result: dict[str, object] = {}
    with gauges.during(result):
        pass
    gauges.close()
    assert result == {}
    tool.write_text("no program")
    device.Gauges().close()


def test_another_gpu_is_not_written_into_the_record(tmp_path: Path) -> None:
    path = a_record(tmp_path)
    record = Record(path)
    record.data["gpu"] = "NVIDIA X1"
    record.write()
    visit.check_machine(path, dry=False)
    record.data["gpu"] = "NVIDIA X2"
    record.write()
    with pytest.raises(SystemExit, match="is of a NVIDIA X2, and this is a NVIDIA X1"):
        visit.check_machine(path, dry=False)
    record.data["stages"]["machine"] = {"machine": {"ok": False, "wrong": "torch sees no GPU: driver"}}
    record.write()
    with pytest.raises(SystemExit, match=r"torch sees no GPU: driver\. Nothing was measured"):
        visit.check_machine(path, dry=False)


def by_kernel(tokens: int, small: float, tiled: float, ours: float) -> dict[str, object]:
    times = {"ours": ours, "matmul_small_sm80": small, "matmul_sm80": tiled, "cuBLAS": 20.0}
    return {
        "variant": "2:4 bfloat16, by kernel",
        "shape": [4096, 4096, tokens],
        "kernels": ["matmul_small_sm80", "matmul_sm80"],
        "us_graph": {name: [time, time, time] for name, time in times.items()},
        "targets": [{"against": "cuBLAS", "must": 2.0, "stretch": 2.0, "ours": "matmul_small_sm80"}],
    }


def test_conclusions() -> None:
    questions = {
        "wgmma_sparse.n128.m64x2.registers": 8000.0,
        "wgmma_sparse.n128.m64x2.loaded.filled": 6000.0,
        "wgmma_sparse.n256.m64x1.shared.filled": 5000.0,
        "mma_sparse.bf16.warps8": 4000.0,
    }
    stages = {
        "questions": {
            **{name: {"ok": True, "operations_per_cycle": rate} for name, rate in questions.items()},
            "loads.lane4.warps8": {"ok": True, "gbytes_per_second": 2800.0, "bytes_in_flight": 16384.0},
            "loads.lane8.warps8": {"ok": True, "gbytes_per_second": 3000.0, "bytes_in_flight": 32768.0},
            "loads.lane1.warps8": {"ok": True, "gbytes_per_second": 900.0, "bytes_in_flight": 4096.0},
            "boxes.9x2": {"ok": True, "gbytes_per_second": 4000.0, "bytes_in_flight": 73728.0},
            "boxes.9x3": {"ok": True, "gbytes_per_second": 5000.0, "bytes_in_flight": 110592.0},
            "reduction.none": {"ok": True, "us": 2.0},
            "reduction.cluster": {"ok": True, "us": 3.0},
            "reduction.second_kernel": {"ok": True, "us": 5.0},
            "bulk.runs4": {"ok": False, "wrong": "does not return"},
        },
        "timings": {
            "8": by_kernel(8, 4.0, 6.0, 4.0),
            "32": by_kernel(32, 5.0, 6.0, 5.0),
            "64": by_kernel(64, 9.0, 7.0, 9.0),
            "s64": {"sampled_tokens": 64, "ratios": {"masked": 1.2}},
            "s256": {"sampled_tokens": 256, "ratios": {"masked": 0.9}},
        },
    }
    found = dict(conclude(stages))
    assert "75% with both" in found["wgmma.sp, tile of 256 channels x 128 tokens"]
    assert found["tile of the 2:4 product on sm_90a"].startswith(
        "256 channels x 128 tokens, A from global memory: 6000"
    )
    assert found["mma_sparse beside wgmma_sparse"] == "4000 of 8000 operations per cycle, 50%"
    assert found["bytes in flight by lanes' loads"].startswith(
        "16 KB per multiprocessor (loads.lane4.warps8)"
    )
    assert found["boxes from the level 2 cache"] == (
        "5.0 TB/s, gradients of square blocks up to 285 TFLOP/s with blocks of 64, "
        "480 TFLOP/s with blocks of 128"
    )
    assert found["adding up split inputs"].startswith("cluster 3.00 us, second kernel 5.00 us")
    assert found["fastest kernel, 2:4 bfloat16, by kernel, 4096 x 4096"] == (
        "matmul_small_sm80 up to 32 tokens, matmul_sm80 up to 64 tokens; "
        "the chooser's kernel is slower at 64 (1.29 x)"
    )
    assert found["sampled gradient of 2:4 weights"].startswith("faster than the masked one up to 64 tokens")
    text, wrong = summarize({"stages": stages, "left": {"timings": {"items": 3, "seconds": 4.0}}})
    assert wrong == 1 and "timings: 3 left, about 4 s" in text
    assert "64, matmul_small_sm80, x cuBLAS: must 2, stretch 2, measured 2.22: stretch" in text
    assert conclude({}) == []


def test_packed_layers_are_kept_for_the_next_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    weight = torch.randn(64, 64).to(torch.bfloat16)
    pattern = sparsecore.NM(2, 8, vector=64)
    monkeypatch.setenv("SPARSECORE_VISIT_LAYERS", str(tmp_path))
    first = packed_on_cpu(weight, pattern, "shared_lists")

    def packs_again(*arguments: object, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr(sparsecore, "pack", packs_again)
    again = packed_on_cpu(weight, pattern, "shared_lists")
    assert again.shape == first.shape and torch.equal(again.to_dense(), first.to_dense())
    with pytest.raises(AssertionError):
        packed_on_cpu(weight + 1, pattern, "shared_lists")


def test_kept_layers_stay_within_their_memory() -> None:
    kept = KeptLayers(most_bytes=4 * 64)
    layers = {
        name: timings.Layer(torch.zeros(4, 8, dtype=torch.int8), lambda x, bias: x) for name in "abcdefg"
    }
    for name, layer in layers.items():
        assert kept.get((name,), lambda layer=layer: layer) is layer and kept.nbytes <= 4 * 64
    assert kept.get(("g",), lambda: layers["a"]) is layers["g"]
    assert kept.get(("a",), lambda: layers["b"]) is layers["b"]
    kept.clear()
    assert kept.nbytes == 0
