"""Prints the environment that lets a build find Python's C headers: nothing where they are installed.

Debian and Ubuntu keep them in a package of their own. Without root it can still be fetched and unpacked, here
into .cache; where that fails too, the build leaves out the introspection module and says so.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

UNPACKED = Path(__file__).resolve().parent.parent / ".cache/python-headers"


def main() -> None:
    if (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    include = UNPACKED / "usr/include"
    if not (include / version / "Python.h").exists():
        UNPACKED.mkdir(parents=True, exist_ok=True)
        try:
            fetch = ["apt-get", "download", "-qq", f"lib{version}-dev"]
            subprocess.run(fetch, cwd=UNPACKED, check=True, stdout=sys.stderr)
            package = next(UNPACKED.glob(f"lib{version}-dev*.deb"))
            subprocess.run(["dpkg", "-x", package, UNPACKED], check=True, stdout=sys.stderr)
        except (OSError, subprocess.CalledProcessError):
            print(
                "No Python.h, so no introspection. Debian and Ubuntu: apt-get install python3-dev",
                file=sys.stderr,
            )
            return
    # CPATH, because Python.h includes a file that lies beside its folder.
    print(f"CPATH={include} SKBUILD_CMAKE_DEFINE=Python_INCLUDE_DIR={include / version}")


if __name__ == "__main__":
    main()
