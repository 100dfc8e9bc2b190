"""Mutants of the gradients of 2:4 weights."""

from __future__ import annotations

from cuda_mutants.mutant import Family, Kernel

GRADIENT = "cuda/semi_structured/gradient_sm80.cuh"
TOKENS = "cuda/linear/tokens.cuh"

_sampled = Kernel("SAMPLED", GRADIENT).mutant
_gather = Kernel("GATHER", GRADIENT).mutant
_straight = Kernel("STRAIGHT", GRADIENT).mutant

MUTANTS = [
    # sampled products
    _sampled("no wait for copies", "ptx::cp_async_wait<Tile::kStages - 2>();"),
    _sampled(
        "waits for one copy too few", "cp_async_wait<Tile::kStages - 2>", "cp_async_wait<Tile::kStages - 1>"
    ),
    _sampled("copies are not committed", "    ptx::cp_async_commit();\n"),
    _sampled("no barrier in the loop", "    __syncthreads();\n"),
    _sampled(
        "the next panels are loaded before the barrier",
        "    __syncthreads();\n    load_stage(turn + Tile::kStages - 1);",
        "    load_stage(turn + Tile::kStages - 1);\n    __syncthreads();",
    ),
    _sampled(
        "the ring has one place",
        "char* stage = shared + turn % Tile::kStages * Tile::kStageBytes;",
        "char* stage = shared;",
    ),
    _sampled(
        "the second panel of grad is the first", "args.grad, token, n_first + i", "args.grad, token, n_first"
    ),
    _sampled("the second panel of x is the first", "args.x, token, k_first + i", "args.x, token, k_first"),
    _sampled("panels of x overwrite those of grad", "(2 + i) * Tile::kPanelBytes", "i * Tile::kPanelBytes"),
    _sampled("tokens past m are read", "token + row < args.p.m ? in_row : 0", "in_row", file=TOKENS),
    _sampled("columns past the matrix are read", "left > 0 ? static_cast<int>(left) : 0", "16", file=TOKENS),
    _sampled("the last tokens are left out", "turns = ceil_div(args.grad.p.m, ", "turns = (args.grad.p.m / "),
    _sampled(
        "half of the tokens twice",
        "x + swizzled<Swizzle::k128>(tokens + lane",
        "x + swizzled<Swizzle::k128>(lane",
    ),
    _sampled("one step for both", "column = 32 * step + 16 * pair", "column = 16 * pair"),
    _sampled("the pairs of tiles are one", "16 * pair + lane / 16 * 8", "lane / 16 * 8"),
    _sampled("rows of A are exchanged", "lane / 8 % 2 * 8;", "(1 - lane / 8 % 2) * 8;"),
    _sampled(
        "halves of A's tokens are exchanged",
        "tokens + lane / 16 * 8 + lane % 8",
        "tokens + (1 - lane / 16) * 8 + lane % 8",
    ),
    _sampled(
        "blocks of channels past n are stored", "if (n_block >= args.n_blocks || k_block", "if (k_block"
    ),
    _sampled("blocks of inputs past k are stored", "|| k_block >= args.k_blocks) return;", ") return;"),
    _sampled(
        "the other tile of a unit", "t / 2 ? of_tile[1] : of_tile[0]", "t / 2 ? of_tile[0] : of_tile[1]"
    ),
    _sampled(
        "the other lane of a unit", "lane / 4 * 4 + t % 2 * 2 + half", "lane / 4 * 4 + t % 2 * 2 + (1 - half)"
    ),
    _sampled(
        "channels g and g + 8 are exchanged",
        "sums[part][2 * b + tile][2 * h]",
        "sums[part][2 * b + tile][2 - 2 * h]",
    ),
    _sampled("places of the other half", ">> (16 * h + 4 * t) & 15", ">> (4 * t) & 15"),
    _sampled("places of the other step", "4 * g + 2 * step + b]", "4 * g + 2 - 2 * step + b]"),
    _sampled(
        "the second weight is the first", "16 * (places >> 2)) << 16", "16 * (places & 3)) << 16", place=0
    ),
    # a dense gradient at the places
    _gather(
        "channels past n are read",
        "channel < args.n ? load_four(from, args.k - input, args.vectors) : 0",
        "load_four(from, args.k - input, args.vectors)",
    ),
    _gather("inputs past k are read", "    if (i < left) elements", "    elements"),
    _gather("vectors are read across k", "if (vectors && left >= 4)", "if (vectors)"),
    _gather(
        "another unit of the row", "(8 * step + 4 * b + t) * 4;", "(8 * step + 4 * b + (t ^ 1)) * 4;", place=0
    ),
    _gather(
        "channels g and g + 8 are exchanged",
        "part * kSliceChannels + g + 8 * h;",
        "part * kSliceChannels + g + 8 - 8 * h;",
        place=0,
    ),
    _gather(
        "the second weight is the first", "16 * (places >> 2)) << 16", "16 * (places & 3)) << 16", place=0
    ),
    _gather(
        "steps are exchanged",
        "slice * kSliceVectors + step * 32 + lane] = {",
        "slice * kSliceVectors + (1 - step) * 32 + lane] = {",
        place=0,
    ),
    # straight through
    _straight("channels past n are touched", "    if (channel >= args.n) continue;\n"),
    _straight("inputs past k are read", "    if (i < left) elements", "    elements"),
    _straight("inputs past k are written", "        if (i < left) to[i]", "        to[i]"),
    _straight("vectors are read across k", "if (vectors && left >= 4)", "if (vectors)"),
    _straight("vectors are written across k", "if (args.vectors && left >= 4) {", "if (args.vectors) {"),
    _straight("all of the weight decays", "(whole.x - kept.x)", "whole.x"),
    _straight("kept weights decay too", "(whole.y - kept.y)", "whole.y"),
    _straight(
        "one half of a unit for both",
        "static_cast<uint32_t>(grad >> 32 * half)",
        "static_cast<uint32_t>(grad)",
    ),
    _straight(
        "the second weight stands at the first's place",
        "(registers[reg] >> 16) << 16 * (places >> 2)",
        "(registers[reg] >> 16) << 16 * (places & 3)",
    ),
    _straight(
        "values of the other step",
        "slice * kSliceVectors + step * 32 + lane];",
        "slice * kSliceVectors + (1 - step) * 32 + lane];",
    ),
]

FAMILY = Family(
    name="semi_structured_gradient",
    support=(
        "cuda/semi_structured/pack.cpp",
        "cuda/semi_structured/window_lift.cpp",
        "cpu/nm_decode/pack.cpp",
    ),
    mutants=tuple(MUTANTS),
    uncatchable=(),
)
