"""What report() promises is what the process gives back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import json
import torch
import sparsecore as sc
from sparsecore.demo.memory import growth

torch.set_num_threads(1)
input = {"input": torch.zeros(1, 1024)}

def dense():  # large beside the megabyte a first dense product sets up for itself
    torch.manual_seed(0)
    return torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(32)))

def converted():
    return sc.sparsify_(dense(), "PATTERN", sparsity=SPARSITY)

grown = [growth(dense, input), growth(converted, input)]  # of children that nothing was converted in before
report = sc.report(converted())
print(json.dumps([*grown, report.dense_bytes, report.nbytes]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads resident memory from /proc")
@pytest.mark.parametrize(("pattern", "sparsity"), [("2:4", None), ("1:4/64", None), ("unstructured", 0.9)])
def test_resident_memory_falls_by_what_report_says(pattern: str, sparsity: float | None) -> None:
    code = CODE.replace("PATTERN", pattern).replace("SPARSITY", str(sparsity))
    for _ in range(3):  # a machine short of memory takes pages away meanwhile
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        dense, converted, dense_bytes, nbytes = json.loads(done.stdout)
        promised = pytest.approx(dense_bytes - nbytes, rel=0.05)
        if dense - converted == promised:
            break
    assert dense - converted == promised
