"""Mutants of the product with a weight behind a bitmap."""

from __future__ import annotations

from cuda_mutants.mutant import Family, Kernel

MATMUL = "cuda/bitmap_decode/matmul_sm80.cuh"
WARP_SUMS = "cuda/linear/warp_sums.cuh"

_bitmap = Kernel("BITMAP", MATMUL).mutant

MUTANTS = (
    # the ring
    _bitmap("no wait for copies", "    ptx::cp_async_wait<Tile::kStages - 2>();\n"),
    _bitmap("waits for one copy too few", "kStages - 2>", "kStages - 1>"),
    _bitmap("copies are not committed", "    ptx::cp_async_commit();\n"),
    _bitmap("no barrier in the loop", "    __syncthreads();\n"),
    _bitmap(
        "the next turn is loaded before the barrier",
        "    __syncthreads();\n    load_turn(turn + Tile::kStages - 1);",
        "    load_turn(turn + Tile::kStages - 1);\n    __syncthreads();",
    ),
    _bitmap("no barrier before sums overwrite the ring", "\n  __syncthreads();", place=0),
    _bitmap("no barrier before sums are read", "\n  __syncthreads();", place=1),
    _bitmap("the ring has one place", "(turn - range.first) % Tile::kStages *", "0 *"),
    # where values lie
    _bitmap(
        "values begin where their chunk does",
        "part * 8,\n                          {bits, static_cast<uint32_t>(lead + through - count)});",
        "part * 8,\n                          {bits, static_cast<uint32_t>(through - count)});",
    ),
    _bitmap("a thread's own values are in front of them", "(lead + through - count)", "(lead + through)"),
    _bitmap("the turn's values are not passed", "      start += total;\n"),
    _bitmap("values are copied from where they begin", "byte & ~int64_t{15}", "byte"),
    _bitmap("the last chunk of a row is not copied", "at < bytes;", "at + 16 < bytes;"),
    _bitmap("one chunk to a thread", "at += Tile::kThreadsOfRow * 16)", "at += 100000)"),
    _bitmap("counts are not added up", "if (part >= distance) through += other;", "(void)other;"),
    _bitmap("counts of the row before are added", "if (part >= distance) through", "through"),
    _bitmap("the total is the first thread's", "through, Tile::kThreadsOfRow - 1,", "through, 0,"),
    _bitmap(
        "bits of this turn again", "next_bits = bits_of_turn(turn + 1);", "next_bits = bits_of_turn(turn);"
    ),
    _bitmap("bits past the row are read", " && half < 2 * args.words"),
    _bitmap("bits of rows past n are read", "return row < args.p.n && half", "return half"),
    _bitmap("values before the split are not counted", "  start += before;\n"),
    _bitmap(
        "a row's counts before the split stay apart", "before += __shfl_xor_sync", "(void)__shfl_xor_sync"
    ),
    _bitmap(
        "starts of rows past n are read",
        "  if (row < args.p.n) {\n    const int32_t first",
        "  {\n    const int32_t first",
    ),
    _bitmap("chunks past the values are read whole", "if (left >= 16) {", "if (true) {"),
    _bitmap("elements past the values are read", "if (i * static_cast<int>(sizeof(V)) < left) {", "{"),
    _bitmap("values anywhere are copied sixteen bytes at a time", "if (args.value_vectors) {", "if (true) {"),
    # from bits to weights
    _bitmap("the lane's own bits are counted", "((1u << shift) - 1)", "((2u << shift) - 1)"),
    _bitmap("every lane begins with the word's first bits", "bits_ = meta.x >> shift;", "bits_ = meta.x;"),
    _bitmap("windows begin at whole words", "in_word * 8 * sizeof(V)", "0 * in_word"),
    _bitmap("the window does not move by what was taken", "    place_ += taken;\n"),
    _bitmap("the next word is not taken", "      current_ = following;\n"),
    _bitmap("the place in memory stays", "      at_ += 4;\n"),
    _bitmap("words end one value late", "in_word + taken >= kPerWord", "in_word + taken > kPerWord"),
    _bitmap("bits are not used up", "    bits_ >>= 2;\n"),
    _bitmap("a weight that is not kept is its neighbour", "0x44104444u", "0x44103210u"),
    _bitmap("a second weight alone stands first", "0x32101044u", "0x32104410u"),
    _bitmap("an 8-bit weight that is not kept is its neighbour", "0x44404444u", "0x44104444u"),
    _bitmap("a second 8-bit weight alone stands first", "0x44104404u", "0x44104440u"),
    _bitmap("8-bit weights have no sign", "(byte ^ 0x80u)) - 8388736.0f", "byte) - 8388608.0f"),
    _bitmap("both rows of a fragment are one", "lower(values + 8 * Tile::kValueRowBytes,", "lower(values,"),
    _bitmap(
        "bits of the other row",
        "ptx::load_shared_8(bits + 8 * Tile::kBitsRowBytes)",
        "ptx::load_shared_8(bits)",
    ),
    _bitmap(
        "lanes exchange halves of 32 bits", "t % 2 * 16);\n    RowReader", "(1 - t % 2) * 16);\n    RowReader"
    ),
    _bitmap("bits of the word's first half", "(2 * word + t / 2) * 8", "2 * word * 8"),
    _bitmap("bits of the first word", "(2 * word + t / 2) * 8", "(t / 2) * 8"),
    _bitmap("x of the other step", "step ? x[column].z : x[column].x", "step ? x[column].x : x[column].z"),
    _bitmap("x of the first half", "(2 * t + half) * 16", "2 * t * 16"),
    _bitmap(
        "x as if rows were not swizzled",
        "swizzled<Swizzle::k128>(8 * column + g, (2 * t + half) * 16)",
        "(8 * column + g) * 128 + (2 * t + half) * 16",
    ),
    _bitmap("pairs of a fragment are exchanged", "a[2 * pair] = upper", "a[2 - 2 * pair] = upper"),
    _bitmap("x of the first word", "Tile::kTokenOffset + word * kTokens * kRowBytes;", "Tile::kTokenOffset;"),
    _bitmap(
        "x of one word for all", "turn * Tile::kTurnWords + i, thread", "turn * Tile::kTurnWords, thread"
    ),
    # sums
    _bitmap(
        "a word's sums are left out", "part < kParts; ++part", "part < kParts - 1; ++part", file=WARP_SUMS
    ),
    _bitmap(
        "tokens past m are stored",
        "token + t >= args.p.m || channel + o >= args.p.n",
        "channel + o >= args.p.n",
        file=WARP_SUMS,
    ),
    _bitmap(
        "channels past n are stored",
        "token + t >= args.p.m || channel + o >= args.p.n",
        "token + t >= args.p.m",
        file=WARP_SUMS,
    ),
    _bitmap("splits share a place", "split * args.p.m + token + t", "token + t", file=WARP_SUMS),
    _bitmap(
        "every tile is the first tokens'",
        "finish_warp_sums<float, Tile::kTurnWords, Tile::kRows, kTokens, Tile::kThreads>(args, token,",
        "finish_warp_sums<float, Tile::kTurnWords, Tile::kRows, kTokens, Tile::kThreads>(args, 0,",
    ),
)

# Harmless on the emulator, and why it stands in the source all the same.
UNCATCHABLE = (
    (
        _bitmap("turns past the last are loaded", "if (turn < range.last) {", "if (true) {"),
        "they arrive as zeros, or are the next split's, in places of the ring that nobody reads. On a device they "
        "would race with the sums; here a copy that nobody waits for happens at once or after the sums have been read",
    ),
)

FAMILY = Family(
    "bitmap_decode",
    support=(
        "cpu/bitmap_decode/pack.cpp",
        "cuda/semi_structured/pack.cpp",
        "cuda/semi_structured/window_lift.cpp",
        "cpu/nm_decode/pack.cpp",
    ),
    mutants=MUTANTS,
    uncatchable=UNCATCHABLE,
)
