"""Every wrapper of the PTX layer is checked by the conformance program."""

import re
from pathlib import Path

CUDA = Path(__file__).parent.parent / "csrc/cuda"
DECLARATION = re.compile(r"^SC_DEVICE [^;{()]*?\b(\w+)\(", re.MULTILINE)

# Made of wrappers that the program calls, or of no instruction.
WITHOUT_CHECK = {
    "from_float": "plain C++ over the conversions that are checked",
    "hold": "no instruction: keeps the compiler from moving registers",
    "mbarrier_init_ring": "mbarrier_init in a loop",
    "mbarrier_try_wait": "what mbarrier_wait repeats",
    "to_float": "plain C++ over the conversions that are checked",
}


def test_every_wrapper_has_a_check() -> None:
    declared = {
        name for header in (CUDA / "common").glob("*.h") for name in DECLARATION.findall(header.read_text())
    }
    checks = "\n".join(source.read_text() for source in (CUDA / "conformance").glob("*.cu"))
    checked = set(re.findall(r"\w+", checks))
    assert len(declared) > 80
    assert declared - checked == set(WITHOUT_CHECK)
