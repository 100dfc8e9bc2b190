"""What follows from the answers of a visit: numbers that tiles and choosers are set by."""

from __future__ import annotations

from typing import Any

from .targets import times_of

Result = dict[str, Any]
Conclusion = tuple[str, str]  # a question and its answer
ENOUGH = 0.9  # of the best bandwidth
TILES = {"n128.m64x2": "256 channels x 128 tokens", "n256.m64x1": "128 channels x 256 tokens"}
# Where A comes from and whether copies fill the ring, against "registers": A costs nothing and nothing is copied.
BURDENS = {
    "registers.filled": "with copies",
    "loaded": "with A from global memory",
    "loaded.filled": "with both",
    "shared": "with A in shared memory",
    "shared.filled": "with that and copies",
}


def conclude(stages: dict[str, dict[str, Result]]) -> list[Conclusion]:
    """Of whatever was asked; a question whose answers are missing is left out."""
    asked = {name: result for name, result in stages.get("questions", {}).items() if result.get("ok")}
    timed = stages.get("timings", {})
    return [
        *tile(asked),
        *peaks(asked),
        *in_flight(asked),
        *boxes(asked),
        *reduction(asked),
        *crossovers(timed),
        *sampling(timed),
    ]


def rate(asked: dict[str, Result], name: str) -> float:
    """Operations per cycle and multiprocessor; 0 where it was not asked."""
    return float(asked.get(name, {}).get("operations_per_cycle", 0.0))


def tile(asked: dict[str, Result]) -> list[Conclusion]:
    """How fast wgmma.sp is by tile and by the way of A, and what the copies and A cost."""
    found = []
    for name, what in TILES.items():
        free = rate(asked, f"wgmma_sparse.{name}.registers")
        if not free:
            continue
        parts = [f"{free:.0f} operations per cycle when A costs nothing and nothing is copied"]
        for way, label in BURDENS.items():
            if got := rate(asked, f"wgmma_sparse.{name}.{way}"):
                parts.append(f"{got / free:.0%} {label}")
        found.append((f"wgmma.sp, tile of {what}", ", ".join(parts)))
    ways = {
        f"{what}, A {label}": rate(asked, f"wgmma_sparse.{name}.{way}.filled")
        for name, what in TILES.items()
        for way, label in (("loaded", "from global memory"), ("shared", "in shared memory"))
    }
    if sum(value > 0 for value in ways.values()) > 1:
        best = max(ways, key=lambda way: ways[way])
        found.append(("tile of the 2:4 product on sm_90a", f"{best}: {ways[best]:.0f} operations per cycle"))
    return found


def peaks(asked: dict[str, Result]) -> list[Conclusion]:
    """What mma.sync reaches of wgmma, dense and sparse."""
    found = []
    for kind in ("mma", "mma_sparse"):
        own = max((rate(asked, name) for name in asked if name.startswith(f"{kind}.bf16.")), default=0.0)
        other = "wgmma" if kind == "mma" else "wgmma_sparse"
        best = max((rate(asked, name) for name in asked if name.startswith(f"{other}.")), default=0.0)
        if own and best:
            found.append(
                (f"{kind} beside {other}", f"{own:.0f} of {best:.0f} operations per cycle, {own / best:.0%}")
            )
    return found


def in_flight(asked: dict[str, Result]) -> list[Conclusion]:
    """The fewest bytes on their way that give most of the bandwidth, by lanes' loads and by bulk copies."""
    found = []
    for kind, what in (("loads.", "by lanes' loads"), ("bulk.", "by bulk copies")):
        rows = {
            name: (row["gbytes_per_second"], row["bytes_in_flight"])
            for name, row in asked.items()
            if name.startswith(kind) and row.get("gbytes_per_second") and row.get("bytes_in_flight")
        }
        if not rows:
            continue
        best = max(speed for speed, _ in rows.values())
        name = min((name for name in rows if rows[name][0] >= ENOUGH * best), key=lambda name: rows[name][1])
        found.append(
            (
                f"bytes in flight {what}",
                f"{rows[name][1] / 1024:.0f} KB per multiprocessor ({name}) give {ENOUGH:.0%} of {best:.0f} GB/s",
            )
        )
    return found


def boxes(asked: dict[str, Result]) -> list[Conclusion]:
    """What the level 2 cache gives to boxes of tensor copies, and the gradients of square blocks that it allows.

    They make 57 operations of a byte with blocks of 64, 96 with blocks of 128: docs/kernels/cuda_block_sparse.md.
    """
    best = max(
        (row.get("gbytes_per_second", 0.0) for name, row in asked.items() if name.startswith("boxes.")),
        default=0.0,
    )
    if not best:
        return []
    allowed = ", ".join(
        f"{count * best / 1000:.0f} TFLOP/s with blocks of {size}" for size, count in ((64, 57), (128, 96))
    )
    return [
        (
            "boxes from the level 2 cache",
            f"{best / 1000:.1f} TB/s, gradients of square blocks up to {allowed}",
        )
    ]


def reduction(asked: dict[str, Result]) -> list[Conclusion]:
    """What each way of adding up split inputs takes beyond writing the parts."""
    times = {
        name.removeprefix("reduction."): row["us"]
        for name, row in asked.items()
        if name.startswith("reduction.") and "us" in row
    }
    none = times.pop("none", None)
    if none is None or not times:
        return []
    ordered = sorted(times, key=lambda way: times[way])
    text = ", ".join(f"{way.replace('_', ' ')} {times[way]:.2f} us" for way in ordered)
    return [("adding up split inputs", f"{text}; writing the parts alone {none:.2f} us")]


def crossovers(timed: dict[str, Result]) -> list[Conclusion]:
    """Which kernel is the fastest up to how many tokens, and where the chooser takes another."""
    layers: dict[str, dict[int, Result]] = {}
    for row in timed.values():
        if row.get("kernels") and "shape" in row:
            outputs, inputs, tokens = row["shape"]
            layers.setdefault(f"{row['variant']}, {outputs} x {inputs}", {})[tokens] = row
    found = []
    for layer, by_tokens in layers.items():
        spans: list[tuple[str, int]] = []
        slower = []
        for tokens in sorted(by_tokens):
            row = by_tokens[tokens]
            times = {name: time for name, time in times_of(row).items() if name in row["kernels"]}
            if not times:
                continue
            best = min(times, key=lambda name: times[name][0])
            if spans and spans[-1][0] == best:
                spans[-1] = (best, tokens)
            else:
                spans.append((best, tokens))
            chosen = times_of(row).get("ours")
            if chosen and chosen[0] > 1.05 * times[best][0]:
                slower.append(f"{tokens} ({chosen[0] / times[best][0]:.2f} x)")
        if spans:
            text = ", ".join(f"{name} up to {tokens} tokens" for name, tokens in spans)
            if slower:
                text += f"; the chooser's kernel is slower at {', '.join(slower)}"
            found.append((f"fastest kernel, {layer}", text))
    return found


def sampling(timed: dict[str, Result]) -> list[Conclusion]:
    """Up to how many tokens the sampled gradient of 2:4 weights is faster than the masked dense one."""
    faster = {}
    for row in timed.values():
        if (tokens := row.get("sampled_tokens")) and row.get("ratios", {}).get("masked"):
            faster[tokens] = row["ratios"]["masked"] >= 1
    if not faster:
        return []
    last = max((tokens for tokens, is_faster in faster.items() if is_faster), default=0)
    return [
        (
            "sampled gradient of 2:4 weights",
            f"faster than the masked one up to {last} tokens of {sorted(faster)}",
        )
    ]
