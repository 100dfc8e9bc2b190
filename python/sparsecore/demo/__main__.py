"""``python -m sparsecore.demo``: sparsify a real model, run it faster, show what it cost."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from sparsecore.demo import report
from sparsecore.demo.models import MODELS
from sparsecore.demo.run import STAGES, Settings, run
from sparsecore.demo.store import write_atomically

HINT = "pip install 'sparsecore[demo]' and, for the recognizer, pip install --no-deps rapidocr==3.10.0"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line, runs the demo, prints and saves what it found."""
    parser = argparse.ArgumentParser(prog="sparsecore demo", description=__doc__)
    parser.add_argument(
        "model",
        nargs="?",
        choices=tuple(MODELS),
        default="encoder",
        help="a sentence encoder or a text recognizer",
    )
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for results")
    parser.add_argument("--fresh", action="store_true", help="forget finished parts")
    parser.add_argument(
        "--method", choices=("alps", "sparsegpt"), default=Settings.method, help="pruning rule"
    )
    parser.add_argument(
        "--full", action="store_true", help="the whole curve of patterns, recovered; about an hour"
    )
    parser.add_argument(
        "--recovery",
        type=float,
        default=Settings.recovery,
        help="factor on the steps of recovery (1; 0: none)",
    )
    parser.add_argument(
        "--until",
        choices=STAGES,
        default=STAGES[-1],
        help="stop after timing layers for advice, or after making the models; the next call goes on from there",
    )
    parser.add_argument(
        "--quality",
        type=Path,
        metavar="RESULTS",
        help="results.json of an earlier run, whose recovered models are not trained again: only times are measured",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the results as one JSON document and nothing else; messages go to standard error",
    )
    parser.add_argument("--threads", type=int, nargs="+", help="thread counts to time (1 and 2)")
    options = parser.parse_args(arguments)

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = tuple(options.threads or [count for count in Settings.threads if count <= cores])
    if not 0.0 <= options.recovery < 1000.0:
        parser.error(f"--recovery must be between 0 and 1000, got {options.recovery}")
    torch.set_num_threads(max(1, min(cores, torch.get_num_threads())))
    chosen = MODELS[options.model]
    settings = Settings(
        method=options.method,
        calibration=chosen.calibration,
        threads=threads,
        recovery=options.recovery,
    )
    earlier = None
    if options.quality is not None:
        try:
            earlier = json.loads(options.quality.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            parser.error(f"--quality: {options.quality} is not readable as JSON ({error})")
    missing = next((name for name in chosen.needs if importlib.util.find_spec(name) is None), None)
    if missing is not None:
        parser.error(f"the {options.model} needs {missing}; {HINT}")
    say = partial(print, file=sys.stderr if options.json else sys.stdout, flush=True)
    say("loading the model and its data")
    source = chosen.source(settings.held_out, settings.calibration, settings.tokens)
    variants = chosen.full if options.full else chosen.variants
    results = run(
        source,
        settings,
        options.output,
        variants=variants,
        fresh=options.fresh,
        until=options.until,
        quality=earlier,
        say=say,
    )
    if options.json:
        print(json.dumps(results, indent=1))
    if options.until != STAGES[-1]:
        say(f"{options.until} done; the same command without --until goes on from here")
        return
    text = report.text(results)
    write_atomically(options.output / "report.txt", lambda target: target.write_text(text + "\n"))
    report.figure(results, options.output / "results.png")
    say(f"\n{text}\n\nsaved: {options.output}/results.json, report.txt, results.png")


if __name__ == "__main__":
    main()
