"""Everything that reads the sources without running them: ruff, mypy on the package, clang-format."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CPP_FOLDERS = ("csrc", "benchmarks/cpp", "benchmarks/gpu")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fix", action="store_true", help="apply what ruff and clang-format would change")
    fix = parser.parse_args().fix

    cpp = sorted(
        str(path.relative_to(ROOT))
        for folder in CPP_FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".h", ".cpp", ".cu", ".cuh"}
    )
    module = [sys.executable, "-m"]
    commands = [
        [*module, "ruff", "check", *(["--fix"] if fix else []), "."],
        [*module, "ruff", "format", *([] if fix else ["--check"]), "."],
        ["clang-format", *(["-i"] if fix else ["--dry-run", "-Werror"]), *cpp],
    ]
    if not fix:
        commands.append([*module, "mypy"])
    return max(subprocess.run(command, cwd=ROOT).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main())
