"""Instructions of the hot loops in a disassembly: what docs/arm.md counts.

    aarch64-linux-gnu-objdump -d -C --no-show-raw-insn build/aarch64/csrc/cpu/libsparsecore.so \
        | python tools/count_loops.py 'walk<6ul, 4ul, float>' ...

For each function whose name contains a pattern: the loop with the most fused products, by kind of instruction.
"""

from __future__ import annotations

import re
import sys
from collections import Counter

KINDS = (
    ("fused products", r"fml[as]\b"),
    ("products", r"fmul\b"),
    ("vector loads", r"ld[pr]?1?r?\b.*[qv]\d"),
    ("scalar loads", r"ld\w*\b"),
    ("branches", r"b\b|b\.\w+|cbn?z|tbn?z"),
)


def functions(text: str) -> dict[str, list[tuple[int, str]]]:
    """Instructions with their addresses, by function."""
    found: dict[str, list[tuple[int, str]]] = {}
    current: list[tuple[int, str]] = []
    for line in text.splitlines():
        if head := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            current = found.setdefault(head[1], [])
        elif body := re.match(r"\s*([0-9a-f]+):\s+(.*)$", line):
            current.append((int(body[1], 16), body[2].split("//")[0].strip()))
    return found


def loops(code: list[tuple[int, str]]) -> list[list[str]]:
    """Bodies of innermost loops: from the target of a backward branch to the branch."""
    bodies = []
    for place, text in code:
        jump = re.match(r"(?:b\.\w+|cbn?z\s+\w+,|b)\s+([0-9a-f]+)\b", text)
        if jump and int(jump[1], 16) <= place:
            bodies.append([t for p, t in code if int(jump[1], 16) <= p <= place])
    return bodies


def kind_of(instruction: str) -> str:
    return next((name for name, pattern in KINDS if re.match(pattern, instruction)), "other")


def main() -> None:
    listing = functions(sys.stdin.read())
    for pattern in sys.argv[1:]:
        for name, code in listing.items():
            if pattern not in name:
                continue
            candidates = loops(code)
            if not candidates:
                continue
            hot = max(candidates, key=lambda body: sum("fmla" in text for text in body) / len(body))
            counts = Counter(kind_of(text) for text in hot)
            print(f"{name.split('(')[0]}... {pattern}: {len(hot)} instructions, {dict(counts)}")


if __name__ == "__main__":
    main()
