"""``sparsecore prune``: a pruned copy of a checkpoint."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from torch import nn

from sparsecore.cli._common import emit, reported, table, watched
from sparsecore.cli._network import DATA_HELP, HELP, batches, is_name
from sparsecore.cli._network import network as make
from sparsecore.convert import densify_
from sparsecore.integrations._folders import INDEX, replaced_folder, weight_files
from sparsecore.integrations.prune_folder import prune_folder
from sparsecore.io import save
from sparsecore.patterns import Pattern, fixed_sparsity
from sparsecore.patterns import pattern as parse_pattern
from sparsecore.report import report
from sparsecore.sparsify._progress import bar
from sparsecore.sparsify.recipes import load_recipe, oneshot
from sparsecore.stream import DEFAULT_IGNORE, FORMATS, Pruned, opened, prune_file

METHODS = ("magnitude", "wanda", "sparsegpt", "alps")


def prune(
    model: Annotated[Path, typer.Argument(help="A safetensors file, or the folder of a transformers model.")],
    output: Annotated[Path, typer.Option(help="File or folder to write.")],
    pattern: Annotated[
        str | None,
        typer.Option(help='"2:4", "2:4/16", "64:2:8", "16x1", "64x64", "unstructured", "channels".'),
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="Fraction of zeros, where the pattern leaves it open.")
    ] = None,
    method: Annotated[
        str, typer.Option(help=f"{', '.join(METHODS)}; all but the first need --data.")
    ] = "magnitude",
    data: Annotated[
        str | None,
        typer.Option(help=f"For calibration: a text file, a text a line; or, with --network: {DATA_HELP}"),
    ] = None,
    network: Annotated[str | None, typer.Option(help=HELP)] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML recipe, in place of pattern and method.")] = None,
    format: Annotated[str, typer.Option(help=f"{', '.join(FORMATS)}.")] = "sparsecore",
    targets: Annotated[list[str] | None, typer.Option(help='Layer or "re:..." to prune, repeatable.')] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help='Layer or "re:..." to leave dense, repeatable.')
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Prunes a checkpoint and writes it packed, dense with exact zeros, or as sparse-24-bitmask.

    By magnitude, tensors are read, pruned and written one at a time: the checkpoint may be larger than memory, in
    one file or many.
    The other methods load a transformers model and need text, or call any model that --network makes.
    Embeddings, norms and heads stay dense unless --ignore says otherwise. The output appears when it is complete; a
    failure leaves nothing behind.

    Examples: sparsecore prune model.safetensors --pattern 2:4 --output sparse.safetensors; sparsecore prune folder
    --pattern unstructured --sparsity 0.7 --method alps --data texts.txt --output sparse-folder; sparsecore prune
    model.safetensors --network mine:model --data mine:batches --pattern 2:4 --method alps --output sparse.safetensors
    """
    with reported():
        _check(model, output, pattern, method, data, recipe, format, force, network)
        rules = {
            "targets": tuple(targets or ()),
            "ignore": DEFAULT_IGNORE if ignore is None else tuple(ignore),
        }
        simple = recipe is None and method == "magnitude" and network is None
        if simple:
            assert pattern is not None
            chosen = parse_pattern(pattern)
            fixed = fixed_sparsity(chosen) is not None
            share = None if fixed else sparsity
            if fixed and sparsity is not None:
                raise ValueError(f"prune: {chosen} fixes the sparsity. Leave --sparsity out.")
            if not fixed and sparsity is None:
                raise ValueError(f"prune: {chosen} leaves the sparsity open. Pass --sparsity 0.5, say.")
            if sparsity is not None and not 0.0 <= sparsity < 1.0:
                raise ValueError(f"prune: --sparsity is a fraction of zeros in [0, 1), got {sparsity}.")
        if simple and not model.is_dir():
            done = _file(model, output, chosen, share, format, rules)
        elif simple:
            done = _folder(model, output, chosen, share, format, rules)
        else:
            given = _recipe(pattern, sparsity, method, recipe, targets, ignore)
            load_recipe(given)  # mistakes show before a large model is read
            if network is None:
                done = _transformer(model, output, given, None if data is None else Path(data), format)
            else:
                done = _network(model, output, given, data, format, network)
    before, after = sum(layer.dense_bytes for layer in done), sum(layer.nbytes for layer in done)

    def show(console: Console) -> None:
        head = ("layer", "shape", "zeros", "bytes before", "bytes")
        body = [
            (d.name, f"{d.shape[0]}x{d.shape[1]}", f"{d.zeros:.1%}", str(d.dense_bytes), str(d.nbytes))
            for d in done
        ]
        console.print(table(head, body))
        console.print(f"{len(done)} layers, {before} -> {after} bytes, written: {output}", highlight=False)

    document = {
        "output": str(output),
        "layers": [asdict(layer) for layer in done],
        "dense_bytes": before,
        "nbytes": after,
    }
    emit(document, as_json, show)


def _check(
    model: Path,
    output: Path,
    pattern: str | None,
    method: str,
    data: str | None,
    recipe: Path | None,
    format: str,
    force: bool,
    network: str | None,
) -> None:
    if not model.exists():
        raise FileNotFoundError(f"prune: there is no file or folder {model}.")
    if (pattern is None) == (recipe is None):
        raise ValueError("prune: give --pattern or --recipe, one of them.")
    if method not in METHODS:
        raise ValueError(f"prune: --method must be one of {', '.join(METHODS)}, got {method!r}.")
    if format not in FORMATS:
        raise ValueError(f"prune: --format must be one of {', '.join(FORMATS)}, got {format!r}.")
    if method != "magnitude" and data is None:
        raise ValueError(f"prune: {method} needs text to calibrate with. Pass --data FILE.")
    if network is not None:
        if not model.is_file():
            raise ValueError(f"prune: with --network the model is a safetensors file; {model} is a folder.")
        if data is not None and not is_name(data):
            raise ValueError(f'prune: with --network, --data is "module:name", got {data!r}.')
        if format == "sparse-24-bitmask":
            raise ValueError("prune: --network writes --format sparsecore or dense.")
    elif (method != "magnitude" or recipe is not None) and not (model / "config.json").is_file():
        raise ValueError(
            f"prune: {method if recipe is None else 'a recipe'} needs the folder of a transformers model, with "
            f"config.json; {model} is none. --method magnitude takes bare files, --network any model."
        )
    if output.exists() and not force:
        raise ValueError(f"prune: {output} exists. Pass --force to replace it, or another --output.")
    if output.resolve() == model.resolve():
        raise ValueError("prune: --output is the model itself. Name another place.")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"prune: there is no folder {output.parent}.")


def _file(
    model: Path, output: Path, pattern: Pattern, sparsity: float | None, format: str, rules: dict[str, Any]
) -> list[Pruned]:
    with opened("prune", model) as file:
        count = len(list(file.keys()))
    with bar(count, "pruning", watched(), "tensor") as advance:
        return prune_file(model, output, pattern, sparsity=sparsity, format=format, advance=advance, **rules)


def _folder(
    model: Path, output: Path, pattern: Pattern, sparsity: float | None, format: str, rules: dict[str, Any]
) -> list[Pruned]:
    """File by file; what lies beside the weights is copied."""
    count = 0
    for path in weight_files("prune", model):
        with opened("prune", path) as file:
            count += len(list(file.keys()))
    with bar(count, "pruning", watched(), "tensor") as advance:
        return prune_folder(
            model, output, pattern, sparsity=sparsity, format=format, advance=advance, **rules
        )


def _recipe(
    pattern: str | None,
    sparsity: float | None,
    method: str,
    recipe: Path | None,
    targets: list[str] | None,
    ignore: list[str] | None,
) -> Path | dict[str, Any]:
    if recipe is not None:
        return recipe
    given: dict[str, Any] = {"preset": method, "pattern": pattern, "targets": targets or ["Linear"]}
    given |= {} if sparsity is None else {"sparsity": sparsity}
    return given | {"ignore": list(DEFAULT_IGNORE) if ignore is None else ignore}


def _network(
    model: Path, output: Path, recipe: Path | dict[str, Any], data: str | None, format: str, name: str
) -> list[Pruned]:
    """A model of the user's code in memory, pruned by any method."""
    loaded = make("prune", name, model)
    oneshot(loaded, recipe, None if data is None else batches("prune", data), progress=watched())
    done = _done(loaded)
    save(densify_(loaded) if format == "dense" else loaded, output)
    return done


def _done(model: nn.Module) -> list[Pruned]:
    done = []
    for layer in report(model).layers:
        if layer.pattern != "dense":
            packed: Any = model.get_submodule(layer.name)
            dtype = str(packed.weight.dtype).removeprefix("torch.")
            sizes = (layer.dense_bytes, layer.nbytes)
            done.append(Pruned(layer.name, layer.shape, layer.sparsity, *sizes, dtype, layer.layout))
    return done


def _transformer(
    model: Path, output: Path, recipe: Path | dict[str, Any], data: Path | None, format: str
) -> list[Pruned]:
    """A transformers model in memory, pruned by any method."""
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            "prune: this needs transformers: pip install 'sparsecore[transformers]'."
        ) from error
    from sparsecore.integrations import compressed_tensors
    from sparsecore.integrations import transformers as ours

    texts = None if data is None else _batches(transformers, model, data)
    ours.register()
    loaded = _load(transformers, model)
    oneshot(loaded, recipe, texts, progress=watched())
    done = _done(loaded)
    with replaced_folder(output) as temporary:
        if format == "sparse-24-bitmask":
            compressed_tensors.save_folder(loaded, temporary)
        elif format == "dense":
            dense: Any = densify_(loaded)
            dense.save_pretrained(temporary)
        else:
            ours.attach(loaded).save_pretrained(temporary)
        kept = {path.name for path in temporary.iterdir()} | {INDEX}
        for path in model.iterdir():
            if path.is_file() and path.suffix in (".json", ".txt", ".model") and path.name not in kept:
                shutil.copyfile(path, temporary / path.name)
    return done


def _load(transformers: Any, model: Path) -> Any:
    config = transformers.AutoConfig.from_pretrained(model, local_files_only=True)
    for name in config.architectures or []:
        if hasattr(transformers, name):
            return getattr(transformers, name).from_pretrained(model, local_files_only=True).eval()
    return transformers.AutoModel.from_pretrained(model, local_files_only=True).eval()


def _batches(transformers: Any, model: Path, data: Path) -> list[Any]:
    if not data.is_file():
        raise FileNotFoundError(f"prune: there is no file {data}.")
    try:
        texts = [line.strip() for line in data.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"prune: {data} is not UTF-8 text ({error}).") from error
    if not texts:
        raise ValueError(f"prune: {data} holds no text. It needs a text a line.")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    texts = sorted(texts[:512], key=len)
    return [
        dict(tokenizer(texts[i : i + 16], padding=True, truncation=True, max_length=256, return_tensors="pt"))
        for i in range(0, len(texts), 16)
    ]
