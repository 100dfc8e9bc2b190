"""``sparsecore advise``: which pattern each layer of a checkpoint should take on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sparsecore.cli._common import emit, reported, watched
from sparsecore.cli._network import DATA_HELP, HELP, batches
from sparsecore.cli._network import network as make
from sparsecore.integrations._folders import weight_files
from sparsecore.stream import DEFAULT_IGNORE, is_target, opened


def advise(
    model: Annotated[Path, typer.Argument(help="A safetensors file, or a folder of them.")],
    batch: Annotated[int, typer.Option(help="Tokens a layer sees at once; with --data as they come.")] = 128,
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
    network: Annotated[str | None, typer.Option(help=HELP)] = None,
    data: Annotated[str | None, typer.Option(help=f"With --network: {DATA_HELP}")] = None,
    quality: Annotated[float | None, typer.Option(help="Budget: largest mean cost.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Times candidate patterns for every matrix of a checkpoint here, beside the dense product.

    Only shapes are read, and the quality of the patterns is not judged, unless --network makes a model to judge it
    on, with --data best.

    Examples: sparsecore advise model.safetensors --batch 32 --threads 1; sparsecore advise folder --pattern 2:4
    --pattern unstructured@0.9 --json; sparsecore advise model.safetensors --network mine:model --data mine:batches
    --latency 0.6
    """
    from sparsecore.advise import advise as measure

    with reported():
        left_out = DEFAULT_IGNORE if ignore is None else tuple(ignore)
        subject: Any
        rules: dict[str, Any] = {}
        if network is None:
            if data is not None:
                raise ValueError("advise: --data needs --network, a model to run it through.")
            subject = _shapes(model, targets or (), left_out)
        else:
            if not model.is_file():
                raise ValueError(f"advise: with --network the model is a safetensors file; {model} is none.")
            subject = make("advise", network, model)
            rules = {"targets": targets or ("Linear",), "ignore": left_out}
            rules |= {} if data is None else {"data": batches("advise", data)}
        candidates = None if not patterns else [_candidate(entry) for entry in patterns]
        advice = measure(
            subject,
            batch=batch,
            threads=threads,
            seconds=seconds,
            latency=latency,
            quality=quality,
            patterns=candidates,
            progress=watched(),
            **rules,
        )
    emit(advice.to_dict(), as_json, lambda console: console.print(str(advice), markup=False, highlight=False))


def _shapes(model: Path, targets: Sequence[str], ignore: Sequence[str]) -> dict[str, tuple[int, int]]:
    files = weight_files("advise", model) if model.is_dir() else [model]
    shapes: dict[str, tuple[int, int]] = {}
    for path in files:
        with opened("advise", path) as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                shape = file.get_slice(name).get_shape()
                if is_target(name, shape, targets, ignore):
                    shapes[name.removesuffix(".weight")] = (shape[0], shape[1])
    if not shapes:
        raise ValueError(f"advise: {model} holds no matrix to advise on. Use --targets and --ignore.")
    return shapes


def _candidate(text: str) -> tuple[str, float | None]:
    name, _, share = text.partition("@")
    try:
        return name, float(share) if share else None
    except ValueError:
        raise ValueError(
            f'advise: {text!r} must be a pattern or "pattern@sparsity", "unstructured@0.9".'
        ) from None
