"""``sparsecore demo``: a real model, pruned, recovered and timed."""

from __future__ import annotations

import typer

from sparsecore.cli._common import reported


def demo(context: typer.Context) -> None:
    """Sparsifies a real model and runs it faster: a sentence encoder, or a text recognizer.

    Options go to the demo: python -m sparsecore.demo --help lists them.

    Examples: sparsecore demo; sparsecore demo recognizer; sparsecore demo --full --output results
    """
    with reported():
        from sparsecore.demo.__main__ import main

        main(context.args)
