"""The pages' code runs and prints what they show, the generated table keeps its place, and named files exist."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]


def blocks(text: str) -> Iterator[tuple[int, str, str | None]]:
    """Each ```python block: lines before it, its code, and what a ```text block right after it shows."""
    for found in re.finditer(
        r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", text, re.MULTILINE | re.DOTALL
    ):
        yield text.count("\n", 0, found.start(1)), found[1], found[2]


BLOCKS = [code for _, code, _ in blocks(README)]


def test_code_runs(tmp_path: Path) -> None:
    assert BLOCKS, "the README shows no Python"
    for block in BLOCKS:
        command = [sys.executable, "-W", "error", "-c", block]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip(), "it is meant to show something"


# torch says so once of each of its sparse layouts
@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state:UserWarning")
@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_code_of_docs_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks of a page in order, in one namespace; tracebacks name the line of the page."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": page.stem}
    for line, code, shown in blocks(page.read_text(encoding="utf-8")):
        exec(compile("\n" * line + code, str(page), "exec"), namespace)
        printed = capsys.readouterr().out
        assert shown is None or printed == shown, f"{page.name}, line {line}"


def test_first_code_is_ten_lines() -> None:
    lines = [line for line in BLOCKS[0].splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) <= 10


def test_place_of_the_generated_table() -> None:
    start, end = README.index("<!-- bench-table:start -->"), README.index("<!-- bench-table:end -->")
    assert start < end


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!\w+://|#)([^)#]+)", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    paths = re.findall(r"`((?:csrc|python|cmake|tools|tests|benchmarks|docs|examples)/[\w./-]*)`", text)
    missing += [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_tables_are_what_the_results_give() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "table.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
