"""Work in several processes that talk through gloo, for tests of distributed training."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

RANKS = 2


def run_ranks(work: Callable[[int, Path], None], folder: Path) -> None:
    """``work(rank, folder)`` in RANKS processes of one thread each; what one of them raises is raised here."""
    torch.multiprocessing.spawn(_run_rank, args=(work, folder), nprocs=RANKS)


def _run_rank(rank: int, work: Callable[[int, Path], None], folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS
    )
    work(rank, folder)
    torch.distributed.destroy_process_group()
    # gloo's threads may still run and want the interpreter's lock while it ends, which aborts the process
    # ("terminate called without an active exception"); all results are on disk by now.
    os._exit(0)
