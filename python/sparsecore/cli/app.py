"""The application: one file per command."""

from __future__ import annotations

import sys

import typer

from sparsecore.cli.advise import advise
from sparsecore.cli.bench import bench
from sparsecore.cli.demo import demo
from sparsecore.cli.env import env
from sparsecore.cli.inspect import inspect
from sparsecore.cli.prune import prune

app = typer.Typer(
    name="sparsecore",
    help="Makes neural networks that are mostly zeros run faster. Every command has --help with examples.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command in (env, inspect, advise, prune, bench):
    app.command()(command)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(demo)


def run() -> None:
    """Runs it; Ctrl-C ends it without a traceback."""
    try:
        app()
    except KeyboardInterrupt:
        print("sparsecore: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
