"""The parts of a GPU visit that need neither GPU nor emulator: supervision, reports, records, tables."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gpu import collect, correctness, device, peers, programs, sampling, visit
from gpu.record import Record
from tables.gpu import gpu_section

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
    record.begin("timings", "a", 60)
    assert json.loads(path.read_text())["running"]["item"] == "a"
    record.put("timings", "a", {"us": 1})
    record.put("timings", "b", {"complete": False})
    again = Record(path)
    assert again.has("timings", "a") and not again.has("timings", "b") and not again.has("tests", "a")
    assert (tmp_path / "copy.json").read_text() == path.read_text()
    assert not list(tmp_path.glob("*.unfinished"))


def stage_program(tmp_path: Path, body: str) -> list[str]:
    """A stage's process that does as it is told; the first argument after it is ``--stage``."""
    script = tmp_path / "stage.py"
    root = Path(__file__).resolve().parents[1]
    script.write_text(
        f"import sys, time, os\nsys.path.insert(0, {str(root / 'benchmarks')!r})\n"
        "from pathlib import Path\nfrom gpu.record import Record\n"
        f"record = Record(Path({str(tmp_path / 'r.json')!r}))\n" + body
    )
    return [sys.executable, str(script)]


NOTHING = visit.Stage("questions", 60, lambda place: iter(()))


def test_a_crash_costs_its_item_alone(tmp_path: Path) -> None:
    body = (
        "for item in 'abc':\n"
        "    if record.has('questions', item): continue\n"
        "    record.begin('questions', item, 60)\n"
        "    if item == 'b': os.abort()\n"
        "    record.put('questions', item, {'ok': True})\n"
    )
    end = time.time() + 60
    assert visit.supervise(NOTHING, stage_program(tmp_path, body), tmp_path / "r.json", None, end, end)
    found = Record(tmp_path / "r.json").data["stages"]["questions"]
    assert {item: result["ok"] for item, result in found.items()} == {"a": True, "b": False, "c": True}
    assert "status -6" in found["b"]["wrong"]


def test_a_hang_is_given_up(tmp_path: Path) -> None:
    body = (
        "if record.has('questions', 'a'): sys.exit(0)\nrecord.begin('questions', 'a', 0.5)\ntime.sleep(600)\n"
    )
    end = time.time() + 60
    assert visit.supervise(NOTHING, stage_program(tmp_path, body), tmp_path / "r.json", None, end, end)
    assert Record(tmp_path / "r.json").data["stages"]["questions"]["a"]["wrong"] == "does not return"


def test_what_runs_at_the_end_is_left_for_later(tmp_path: Path) -> None:
    body = "record.begin('questions', 'a', 600)\ntime.sleep(600)\n"
    end = time.time() + 3
    assert not visit.supervise(NOTHING, stage_program(tmp_path, body), tmp_path / "r.json", None, end, end)
    data = Record(tmp_path / "r.json").data
    assert data["running"] is None and data["stages"] == {}


def test_a_broken_context_asks_for_a_new_process(tmp_path: Path) -> None:
    def items(place: programs.Place) -> Iterator[visit.Item]:
        def broken() -> dict[str, object]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        def mistaken() -> dict[str, object]:
            raise ValueError("a shape")

        yield visit.Item("mistaken", mistaken, 60)
        yield visit.Item("broken", broken, 60)
        yield visit.Item("after", lambda: {"ok": True}, 60)

    record = Record(tmp_path / "r.json")
    stage, place = visit.Stage("tests", 60, items), programs.Place(Path(), Path())
    assert visit.run_stage(stage, place, record, time.time() + 60) == 3
    assert list(record.data["stages"]["tests"]) == ["mistaken", "broken"]
    assert visit.run_stage(stage, place, record, time.time() + 60) == 0
    assert visit.run_stage(stage, place, record, time.time() - 1) == 0  # nothing is left to begin


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
    assert done == ["a", "a", *["flush", "event", "a", "event"] * 2, "synchronize"]
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


def test_a_record_becomes_a_table(tmp_path: Path) -> None:
    path = collect.collect(a_record(tmp_path), tmp_path / "results")
    assert path.name == "gpu_nvidia_x1.json"
    text = gpu_section([json.loads(path.read_text())])
    assert "| 4096 x 4096 | 16 | 8.0 (7.5 to 8.5) | 9.0 (8.0 to 10.0) | 1.50 |" in text
    assert "1.45 / 1.65 x cuBLAS: must" in text
    assert "mma.bf16" in text and "| 2048 |" in text
    assert "| correctness | unmeasured |" in text
    assert "Not measured: 2:4 float16" in text


def test_unmeasured_rows_are_listed() -> None:
    text = gpu_section([])
    assert "| 2:4 bfloat16 |" in text and text.count("unmeasured |") >= 6


def test_a_dry_record_is_refused(tmp_path: Path) -> None:
    path = a_record(tmp_path)
    record = Record(path)
    record.data["dry"] = True
    record.write()
    with pytest.raises(SystemExit, match="dry run"):
        collect.collect(path, tmp_path / "results")
    assert not (tmp_path / "results").exists()
