"""``sparsecore inspect``: what a checkpoint holds and which patterns it already follows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sparsecore.cli._common import FAILED, emit, fail, reported, table
from sparsecore.formats.check import check_pattern
from sparsecore.integrations._folders import weight_files
from sparsecore.nn._packed import packed_from_state
from sparsecore.patterns import pattern as parse_pattern
from sparsecore.patterns import pattern_name
from sparsecore.stream import opened

# From strict to loose: the first that holds is named.
KNOWN = ("1:8", "2:8", "1:4", "4:8", "2:4", "3:4")
SHARED = ("2:4/64", "2:4/16", "64x1", "16x1", "4x1")


def inspect(
    path: Annotated[Path, typer.Argument(help="A safetensors file, or a folder of them.", metavar="FILE")],
    check: Annotated[
        str | None, typer.Option(help='A pattern every matrix must follow, such as "2:4".')
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Lists the tensors of a checkpoint: zeros, patterns, packed layers, bytes.

    One tensor is in memory at a time. With --check the exit code is 1 where a matrix breaks the pattern; biases, norms
    and other tensors that are not matrices do not count.

    Examples: sparsecore inspect model.safetensors; sparsecore inspect folder --check 2:4 --json
    """
    with reported():
        wanted = None if check is None else parse_pattern(check)
        files = weight_files("inspect", path) if path.is_dir() else [path]
        rows: list[dict[str, Any]] = []
        for file in files:
            rows += _rows(file, wanted)
    total = {
        "tensors": len(rows),
        "bytes": sum(row["bytes"] for row in rows),
        "violations": sum(bool(row.get("violation")) for row in rows),
    }

    def show(console: Console) -> None:
        head = ("tensor", "kind", "shape", "zeros", "bytes", "patterns")
        body = [
            (
                row["name"],
                row["kind"],
                "x".join(map(str, row["shape"])) or "scalar",
                "" if row["zeros"] is None else f"{row['zeros']:.1%}",
                str(row["bytes"]),
                ", ".join(row["patterns"]),
            )
            for row in rows
        ]
        console.print(table(head, body, left=2))
        console.print(f"{total['tensors']} tensors, {total['bytes']} bytes", highlight=False)

    emit({"rows": rows, "total": total}, as_json, show)
    if wanted is not None:
        broken = [row for row in rows if row.get("violation")]
        judged = [row for row in rows if "violation" in row]
        if not judged:
            fail(f"{path} holds no matrix to check.", FAILED)
        if broken:
            where = "; ".join(f"{row['name']}: {row['violation']}" for row in broken[:3])
            fail(f"{len(broken)} of {len(judged)} matrices break {wanted}: {where}", FAILED)


def _rows(path: Path, wanted: Any) -> list[dict[str, Any]]:
    with opened("inspect", path) as file:
        names = sorted(file.keys())
        packed = {name.removesuffix("_extra_state") for name in names if name.endswith("._extra_state")}
        rows = [_packed_row(file, prefix, names, wanted) for prefix in sorted(packed)]
        for name in names:
            inside = any(name.startswith((f"{prefix}weight_", f"{prefix}_extra")) for prefix in packed)
            if not inside:
                rows.append(_row(name, file.get_tensor(name), wanted))
    return rows


def _row(name: str, tensor: Any, wanted: Any) -> dict[str, Any]:
    matrix = tensor.dim() == 2 and tensor.is_floating_point()
    zeros = (
        float((tensor == 0).sum()) / tensor.numel() if tensor.is_floating_point() and tensor.numel() else None
    )
    row: dict[str, Any] = {
        "name": name,
        "kind": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "zeros": zeros,
        "bytes": tensor.nbytes,
        "patterns": [],
    }
    if matrix and zeros:
        tight = next((spec for spec in KNOWN if check_pattern(tensor, parse_pattern(spec)).ok), None)
        row["patterns"] = [tight] if tight else []
        if tight == "2:4" or tight is None:
            row["patterns"] += [spec for spec in SHARED if _shared(tensor, spec)][:1]
    if matrix and wanted is not None:
        report = check_pattern(tensor, wanted)
        row["violation"] = None if report.ok else str(report)
    return row


def _shared(tensor: Any, spec: str) -> bool:
    """Whether rows of a run have their zeros in the same columns (and, for N:M, follow it)."""
    pattern = parse_pattern(spec)
    rows = getattr(pattern, "vector", 0) or getattr(pattern, "rows", 1)
    if tensor.shape[0] % rows or not check_pattern(tensor, pattern).ok:
        return False
    runs = (tensor != 0).view(-1, rows, tensor.shape[1])
    return bool((runs.any(1) == runs.all(1)).all()) and not bool(runs.all())


def _packed_row(file: Any, prefix: str, names: list[str], wanted: Any) -> dict[str, Any]:
    state = {name: file.get_tensor(name) for name in names if name.startswith(prefix)}
    packed = packed_from_state(state, prefix)
    row = {
        "name": prefix.rstrip(".") or "(model)",
        "kind": f"{packed.layout}, {str(packed.dtype).removeprefix('torch.')}",
        "shape": list(packed.shape),
        "zeros": packed.sparsity,
        "bytes": packed.nbytes,
        "patterns": [pattern_name(packed.pattern)],
    }
    if wanted is not None:
        report = check_pattern(packed.to_dense(), wanted)
        row["violation"] = None if report.ok else str(report)
    return row
