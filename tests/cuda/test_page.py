"""The code of docs/cuda.md runs and prints what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sparsecore as sc
from sparsecore.formats.layouts import ORDER

PAGE = Path(__file__).parents[2] / "docs" / "cuda.md"


@pytest.mark.usefixtures("as_cuda")
def test_code_runs_and_prints(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the emulator "cuda" is the CPU, and only what is made there by name follows the plan of CUDA."""
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    namespace: dict[str, object] = {}
    blocks = list(
        re.finditer(r"^```py\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", text, re.MULTILINE | re.DOTALL)
    )
    assert len(blocks) == 5
    for found in blocks:
        code, shown = found[1], found[2]
        if device == "cpu":
            code = code.replace('"cuda"', '"cpu"').replace(".cuda()", ".cpu()")
        line = text.count("\n", 0, found.start(1))
        with monkeypatch.context() as patch:
            if device == "cpu" and "packed for a CPU" in code:
                first, rest = code.split("loaded =")
                patch.setitem(ORDER, "cpu", ORDER["cpu of the tests"])
                exec(compile("\n" * line + first, str(PAGE), "exec"), namespace)
                patch.setitem(ORDER, "cpu", ORDER["cuda"])
                code = "loaded =" + rest
            exec(compile("\n" * line + code, str(PAGE), "exec"), namespace)
        printed = capsys.readouterr().out
        assert shown is None or printed == shown, f"{PAGE.name}, line {line}"


def test_the_page_names_every_layout() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for row in ORDER["cuda"]:
        assert row.layout == "channels" or f"`{row.layout}`" in text
    for pattern in re.findall(r'"([0-9]+[:x][0-9:/]+)"', text):
        assert isinstance(sc.pattern(pattern), sc.Pattern)
