"""``sparsecore advise``: which pattern each layer of a checkpoint should take on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsecore.cli._common import emit, reported, watched
from sparsecore.integrations._folders import weight_files
from sparsecore.stream import DEFAULT_IGNORE, is_target, opened


def advise(
    model: Annotated[Path, typer.Argument(help="A safetensors file, or a folder of them.")],
    batch: Annotated[int, typer.Option(help="Tokens a layer sees at once.")] = 128,
    threads: Annotated[int | None, typer.Option(help="Threads to measure with.")] = None,
    seconds: Annotated[float, typer.Option(help="Time for the measurements.")] = 10.0,
    latency: Annotated[float | None, typer.Option(help="Budget: share of the dense time.")] = None,
    patterns: Annotated[
        list[str] | None,
        typer.Option("--pattern", help='Candidate, repeatable: "2:4" or "unstructured@0.9".'),
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option(help='Layer or "re:..." to look at, repeatable.')
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help='Layer or "re:..." to leave out, repeatable.')
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Times candidate patterns for every matrix of a checkpoint here, beside the dense product.

    Only shapes are read, so the quality of the patterns is not judged: use sparsecore.advise(model, data=...) from
    Python for that, and for a quality budget.

    Examples: sparsecore advise model.safetensors --batch 32 --threads 1; sparsecore advise folder --pattern 2:4
    --pattern unstructured@0.9 --json
    """
    from sparsecore.advise import advise as measure

    with reported():
        files = weight_files("advise", model) if model.is_dir() else [model]
        shapes: dict[str, tuple[int, int]] = {}
        left_out = DEFAULT_IGNORE if ignore is None else tuple(ignore)
        for path in files:
            with opened("advise", path) as file:
                for name in file.keys():  # noqa: SIM118 (not a dict)
                    shape = file.get_slice(name).get_shape()
                    if is_target(name, shape, targets or (), left_out):
                        shapes[name.removesuffix(".weight")] = (shape[0], shape[1])
        if not shapes:
            raise ValueError(f"advise: {model} holds no matrix to advise on. Use --targets and --ignore.")
        candidates = None if not patterns else [_candidate(entry) for entry in patterns]
        advice = measure(
            shapes,
            batch=batch,
            threads=threads,
            seconds=seconds,
            latency=latency,
            patterns=candidates,
            progress=watched(),
        )
    emit(advice.to_dict(), as_json, lambda console: console.print(str(advice), markup=False, highlight=False))


def _candidate(text: str) -> tuple[str, float | None]:
    name, _, share = text.partition("@")
    try:
        return name, float(share) if share else None
    except ValueError:
        raise ValueError(
            f'advise: {text!r} must be a pattern or "pattern@sparsity", "unstructured@0.9".'
        ) from None
