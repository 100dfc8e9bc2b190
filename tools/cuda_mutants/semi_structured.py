"""Mutants of the 2:4 family and of the dense side that all families share."""

from __future__ import annotations

from cuda_mutants.mutant import Family, Kernel

TILED = "cuda/semi_structured/matmul_sm80.cuh"
SMALL = "cuda/semi_structured/matmul_small_sm80.cuh"
WGMMA = "cuda/semi_structured/matmul_sm90.cuh"
TOKENS = "cuda/linear/tokens.cuh"
EPILOGUE = "cuda/linear/epilogue.cuh"
ARGUMENTS = "cuda/linear/arguments.h"
WARP_SUMS = "cuda/linear/warp_sums.cuh"
FINISH = "cuda/linear/finish_splits.cuh"
COMPRESS = "cuda/semi_structured/compress_sm80.cuh"
INPUTS = "cuda/semi_structured/inputs.cuh"
CLUSTER = "cuda/linear/block_cluster.cuh"
LIFT_TOKENS = "cuda/semi_structured/lift_tokens.cuh"

_tiled = Kernel("TILED", TILED).mutant
_small = Kernel("SMALL", SMALL).mutant
_lifted = Kernel("LIFTED", INPUTS).mutant
_wgmma = Kernel("WGMMA", WGMMA).mutant
_compress = Kernel("COMPRESS", COMPRESS).mutant

MUTANTS = [
    # mma.sp, many tokens
    _tiled("no wait for copies", "ptx::cp_async_wait<Tile::kStages - 2>();"),
    _tiled(
        "waits for one copy too few", "cp_async_wait<Tile::kStages - 2>", "cp_async_wait<Tile::kStages - 1>"
    ),
    _tiled("copies are not committed", "    ptx::cp_async_commit();\n"),
    _tiled("no barrier in the loop", "__syncthreads();", place=0),
    _tiled(
        "the next tile is loaded before the barrier",
        "    __syncthreads();\n    load_stage(k_block + Tile::kStages - 1);",
        "    load_stage(k_block + Tile::kStages - 1);\n    __syncthreads();",
    ),
    _tiled("no barrier before sums overwrite tiles", "__syncthreads();", place=1),
    _tiled("no barrier before sums are read", "__syncthreads();", place=2),
    _tiled("one tile of the ring too few", "(k_block - range.first) % Tile::kStages", "0", place=0),
    _tiled("weights past the last block are loaded", "if (k_block + 1 < range.last) next.load", "next.load"),
    _tiled(
        "weights of channels past n are read",
        "n_block < args.n_blocks ? n_block : args.n_blocks - 1",
        "n_block",
    ),
    _tiled("one selector for both steps", "kSelector = sizeof(T) == 2 ? kStep : 0", "kSelector = 0"),
    _tiled("metadata of the other slice", "words[i * 32 * kWords + word]", "words[word]"),
    _tiled("metadata of another lane", "(at * 32 + lane) * kWords", "(at * 32 + (lane ^ 1)) * kWords"),
    _tiled(
        "values of the steps exchanged",
        "from[i * kSliceVectors + step * 32]",
        "from[i * kSliceVectors + (step ^ 1) * 32]",
    ),
    _tiled(
        "weights are not ahead by one",
        "    weights = next;\n",
        "    if (k_block == range.first) weights = next;\n",
    ),
    _tiled(
        "tokens past m are stored", "left < kRows ? static_cast<int>(left) : kRows", "kRows", file=EPILOGUE
    ),
    _tiled("chunks past n are stored", "  if (first >= args.p.n) return;\n"),
    _tiled(
        "the last split is not added",
        "split < args.splits; ++split",
        "split < args.splits - 1; ++split",
        file=FINISH,
    ),
    _tiled(
        "splits overlap",
        "k_blocks * split / splits",
        "k_blocks * split / splits - (split > 0)",
        file=ARGUMENTS,
    ),
    _tiled("tokens past m are read", "token + row < args.p.m ? in_row : 0", "in_row", file=TOKENS),
    _tiled(
        "inputs past k are read", "left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0", "16", file=TOKENS
    ),
    _tiled(
        "tiles are stored without swizzle",
        "swizzled<Swizzle::k128>(row, chunk * 16)",
        "row * 128 + chunk * 16",
        file=TOKENS,
    ),
    _tiled(
        "unaligned rows are copied sixteen bytes at a time",
        "if (args.x_vectors) {",
        "if (true) {",
        file=TOKENS,
    ),
    _tiled(
        "elements past k are read", "if (i * static_cast<int>(sizeof(T)) < valid)", "if (true)", file=TOKENS
    ),
    _tiled(
        "vectors are stored across n",
        "chunk.width == kChunk && args.p.out_dtype",
        "args.p.out_dtype",
        file=EPILOGUE,
    ),
    _tiled("channels past n are stored", "    if (i < chunk.width) {\n", "    {\n", file=EPILOGUE),
    # mma.sp, few tokens
    _small("no wait for copies", "ptx::cp_async_wait<Tile::kStages - 2>();"),
    _small(
        "waits for one copy too few", "cp_async_wait<Tile::kStages - 2>", "cp_async_wait<Tile::kStages - 1>"
    ),
    _small("copies are not committed", "    ptx::cp_async_commit();\n"),
    _small("no barrier before sums overwrite rings", "__syncthreads();", place=0),
    _small("no barrier before sums are read", "__syncthreads();", place=1),
    _small("the ring has one place", "ring + turn % Tile::kStages * Tile::kStageBytes", "ring", place=0),
    _small("blocks past the last are loaded", "if (k_block < range.last) {", "if (true) {"),
    _small(
        "a turn too many",
        "ceil_div(blocks - warp, Tile::kWarps)",
        "ceil_div(blocks - warp, Tile::kWarps) + 1",
    ),
    _small("one selector for both steps", "kSelector = sizeof(T) == 2 ? kStep : 0", "kSelector = 0"),
    _small(
        "metadata of the neighbouring slice",
        "metadata + i * 32 * Tile::kWords",
        "metadata + (i + 1) * 32 * Tile::kWords",
    ),
    _small("the second step's values are not copied", "step < 2; ++step", "step < 1; ++step"),
    _small(
        "tokens past m are stored",
        "token + t >= args.p.m || channel + o >= args.p.n",
        "channel + o >= args.p.n",
        file=WARP_SUMS,
    ),
    _small(
        "channels past n are stored",
        "token + t >= args.p.m || channel + o >= args.p.n",
        "token + t >= args.p.m",
        file=WARP_SUMS,
    ),
    _small(
        "a warp's sums are left out", "part < kParts; ++part", "part < kParts - 1; ++part", file=WARP_SUMS
    ),
    # lifted inputs
    _lifted("groups that end inside a block are not skipped", "return (place + i) *", "return 0 *"),
    _lifted("groups are counted from the block's first window", "return (place + i) *", "return i *"),
    _lifted("groups before the block are not skipped", "pair = window + group;", "pair = window;"),
    _lifted(
        "the block's last pair is not loaded",
        "crossed(args, kWindows - 1) + 2;",
        "crossed(args, kWindows - 1) + 1;",
    ),
    _lifted("blocks are loaded from where their first window begins", " & ~int64_t{15}"),
    _lifted(
        "the place of the first window in its 16 bytes is forgotten",
        "byte = skipped +",
        "byte = 0 * skipped +",
    ),
    _lifted(
        "both halves of a window are its first",
        "static_cast<int>(byte) + t % 2 * kPairBytes",
        "static_cast<int>(byte)",
    ),
    _lifted("a register takes the window before", "8 * step + 2 * r + t / 2", "8 * step + 2 * r"),
    _lifted("an 8-bit register takes the window before", "16 * step + 4 * r + t;", "16 * step + 4 * r;"),
    _lifted(
        "both halves of an 8-bit register are the first",
        "static_cast<int>(byte) + kPairBytes) << 16",
        "static_cast<int>(byte)) << 16",
    ),
    _lifted(
        "the halves of an 8-bit register are exchanged",
        "load_shared_2(rows + (offset & 0xffff)) | ptx::load_shared_2(rows + (offset >> 16))",
        "load_shared_2(rows + (offset >> 16)) | ptx::load_shared_2(rows + (offset & 0xffff))",
    ),
    _lifted(
        "windows are read as if rows were not swizzled",
        "swizzled<Swizzle::k128>(g, static_cast<int>(byte) + t % 2",
        "(g * 128 + static_cast<int>(byte) + t % 2",
    ),
    _lifted("one step's windows for both", "offsets[kStep][r]", "offsets[0][r]"),
    _lifted(
        "windows of another block",
        "const First first(args, k_block);",
        "const First first(args, k_block + 1);",
        place=1,
    ),
    _lifted("pairs past k are read", "if (input + 1 < args.p.k) {", "if (true) {", file=LIFT_TOKENS),
    _lifted("single inputs past k are read", "  if (input >= args.p.k) return 0;\n", file=LIFT_TOKENS),
    _lifted(
        "chunks past the row are written", "  if (chunk * 16 >= lifted_row_bytes) return;\n", file=LIFT_TOKENS
    ),
    _lifted("lifted groups overlap", " + window / args.group_windows);", ");", file=LIFT_TOKENS),
    _lifted("the halves of a lifted window are one", "input + 2 * half", "input", file=LIFT_TOKENS),
    # wgmma.sp
    _wgmma("no wait for x", "      ptx::mbarrier_wait(&full[stage], phase);\n"),
    _wgmma("no wait for an empty stage", "      ptx::mbarrier_wait(&empty[stage], phase ^ 1);\n"),
    _wgmma("the producer waits for the wrong phase", "phase ^ 1);", "phase);"),
    _wgmma("consumers wait for the wrong phase", "&full[stage], phase);", "&full[stage], phase ^ 1);"),
    _wgmma("phases are not counted across works", "uint32_t turn = 0;", "uint32_t turn = 1;", place=0),
    _wgmma(
        "no fence before the products",
        "      ptx::wgmma_fence(sums[0], sums[1], w.values[0][0], w.values[0][1], w.values[1][0], w.values[1][1]);\n",
    ),
    _wgmma("products are not committed", "      ptx::wgmma_commit();\n"),
    _wgmma("no wait in the loop", "      ptx::wgmma_wait<1>();\n"),
    _wgmma("two groups may be unfinished", "wgmma_wait<1>", "wgmma_wait<2>"),
    _wgmma("sums are read before the products are done", "    ptx::wgmma_wait<0>(sums[0], sums[1]);\n"),
    _wgmma("sums are read with a group unfinished", "ptx::wgmma_wait<0>(sums", "ptx::wgmma_wait<1>(sums"),
    _wgmma(
        "the stage in use is given back",
        "if (k_block > work.range.first) give_back(turn - 1);",
        "if (k_block > work.range.first) give_back(turn);",
    ),
    _wgmma(
        "stages are given back before the wait",
        "      ptx::wgmma_wait<1>();\n",
        "      if (k_block > work.range.first) give_back(turn - 1);\n      ptx::wgmma_wait<1>();\n"
        "      if (false)\n",
    ),
    _wgmma(
        "stages are not given back",
        "if (k_block > work.range.first) give_back",
        "if (false) give_back",
    ),
    _wgmma(
        "the last stage of a work is not given back",
        "if (work.range.first < work.range.last) give_back",
        "if (false) give_back",
    ),
    _wgmma("weights are loaded while they are read", "weights[(kBuffer + 2) % 3].load", "w.load"),
    _wgmma(
        "the next turn's weights are overwritten", "weights[(kBuffer + 2) % 3]", "weights[(kBuffer + 1) % 3]"
    ),
    _wgmma(
        "weights are loaded before the wait",
        "      ptx::wgmma_wait<1>();\n",
        "      weights[(kBuffer + 2) % 3].load(args, n_block, k_block, slice, lane);\n      ptx::wgmma_wait<1>();\n",
    ),
    _wgmma(
        "a work begins with weights of its second turn alone",
        "weights[0].load(args, n_block, work.range.first, slice",
        "weights[0].load(args, n_block, work.range.first + 1, slice",
    ),
    _wgmma(
        "the next work's tokens are those of this one", "done.split, done.token", "done.split, work.token"
    ),
    _wgmma(
        "the next work's weights are loaded while products read them",
        "    ptx::wgmma_wait<0>(sums[0], sums[1]);\n",
        "    load_first(work);\n    ptx::wgmma_wait<0>(sums[0], sums[1]);\n",
    ),
    # two blocks of a cluster
    _wgmma(
        "a stage is given back to one block alone",
        "if (lane < blocks) ptx",
        "if (lane == 0) ptx",
        file=CLUSTER,
    ),
    _wgmma(
        "stages are given back to the last block alone",
        "remote(barrier, lane)",
        "remote(barrier, blocks - 1)",
        file=CLUSTER,
    ),
    _wgmma(
        "one block's arrivals are enough", "Tile::kConsumerWarps * cluster.blocks", "Tile::kConsumerWarps"
    ),
    _wgmma("both blocks copy the first half", "first_token = cluster.rank * part_tokens", "first_token = 0"),
    _wgmma("a half is copied to its own block alone", "(1 << blocks) - 1", "1 << rank", file=CLUSTER),
    _wgmma(
        "a half lies where the other does",
        "stage * Tile::kStageBytes + first_token * kRowBytes",
        "stage * Tile::kStageBytes",
    ),
    _wgmma(
        "both blocks make the same channels",
        "cluster.blocks + cluster.rank) * channels",
        "cluster.blocks) * channels",
        file=CLUSTER,
    ),
    _wgmma("a block ends while the other copies into it", "  if (cluster.blocks > 1) cluster.meet();\n"),
    _wgmma(
        "blocks begin before the other's barriers are there",
        "      ptx::cluster_sync();\n",
        "      __syncthreads();\n",
        file=CLUSTER,
    ),
    _wgmma("one consumer's arrivals are enough", "kConsumerWarps = 8", "kConsumerWarps = 4"),
    _wgmma("an arrival too many is asked for", "kConsumerWarps = 8", "kConsumerWarps = 9"),
    _wgmma(
        "fewer bytes are expected than come",
        "expect_bytes(&full[stage], Tile::kStageBytes)",
        "expect_bytes(&full[stage], Tile::kStageBytes / 2)",
    ),
    _wgmma("barriers are not made known to the copy engine", "    ptx::fence_mbarrier_init();\n"),
    _wgmma("barriers are used before they are initialised", "  cluster.meet();\n", place=0),
    _wgmma("no barrier before sums are staged again", "ptx::named_barrier_sync(1 + consumer, 128);", place=0),
    _wgmma("no barrier before sums are read", "ptx::named_barrier_sync(1 + consumer, 128);", place=1),
    _wgmma("both consumers stage in one place", "+ consumer * Tile::kSumsBytes"),
    _wgmma("both steps read the same inputs", "tokens + 4,", "tokens,"),
    _wgmma("one selector for both steps", "<T, kWide ? 1 : 0>", "<T, 0>"),
    _wgmma("metadata of the other block", "w.metadata[i][0], true", "w.metadata[i ^ 1][0], true"),
    _wgmma(
        "weights of channels past n are read",
        "n_block + i < args.n_blocks ? n_block + i : args.n_blocks - 1",
        "n_block + i",
    ),
    _wgmma(
        "tokens past m are stored", "left < kRows ? static_cast<int>(left) : kRows", "kRows", file=EPILOGUE
    ),
    _wgmma("chunks past n are stored", "      if (first < args.p.n) {\n", "      {\n"),
    _wgmma(
        "the residual is that of the first row",
        "packed_residual(args, chunk, token + first + i * kStep)",
        "packed_residual(args, chunk, token + first)",
        file=EPILOGUE,
    ),
    _wgmma(
        "the residual is that of the row before",
        "residual[i]);\n    }",
        "residual[i > 0 ? i - 1 : 0]);\n    }",
        file=EPILOGUE,
    ),
    _wgmma(
        "the residual of tokens past m is loaded",
        "args.splits == 1 && first + i * kStep < rows",
        "true",
        file=EPILOGUE,
    ),
    _tiled("rows are left out", "first += kAtOnce * kStep", "first += 2 * kAtOnce * kStep", file=EPILOGUE),
    _wgmma(
        "rows are finished twice as far apart",
        "const int row = first + i * kStep;",
        "const int row = first + 2 * i * kStep;",
        file=EPILOGUE,
    ),
    _wgmma("weights past the last block are loaded", "if (k_block + 2 < work.range.last) weights", "weights"),
    # compression, decompression, validation
    _compress("no barrier before the tile is read", "  __syncthreads();\n", place=0),
    _compress("no barrier before the decisions are read", "  __syncthreads();\n", place=1),
    _compress(
        "channels past n are read",
        "channel + row < p.n ? p.k - input - chunk * kChunkElements : 0",
        "p.k - input - chunk * kChunkElements",
    ),
    _compress("inputs past k are read", "        if (e < left)", "        if (true)"),
    _compress(
        "vectors are read across k", "args.vectors && left >= kChunkElements", "args.vectors && left > 0"
    ),
    _compress("masks past n are read", "} else if (o < p.n) {", "} else {"),
    _compress("masks past k are read", "first + c < p.k && mask[c]", "mask[c]"),
    _compress(
        "places past n and k are kept",
        "two_way(magnitudes) & in_range",
        "two_way(magnitudes) | (in_range & 0)",
    ),
    _compress(
        "metadata of one neighbour is missing", "    words[i] |= __shfl_xor_sync(0xffffffffu, words[i], 1);\n"
    ),
    _compress(
        "metadata of the other pair is missing",
        "    words[i] |= __shfl_xor_sync(0xffffffffu, words[i], 2);\n",
    ),
    _compress("both halves of a word get the same bits", "code << (16 * h + 4 * t)", "code << (4 * t)"),
    _compress(
        "the words of a quad are exchanged", "t % 2 ? words[1] : words[0]", "t % 2 ? words[0] : words[1]"
    ),
    _compress(
        "metadata of the steps is exchanged", "if (t / 2 == step) metadata", "if (t / 2 != step) metadata"
    ),
    _compress(
        "places of a group are exchanged", "return first | second << 2;", "return second | first << 2;"
    ),
    _compress("padding stores a weight", "real[i] ? elements(row, element) : 0", "elements(row, element)"),
    _compress("ties go to the later weight", "&& j < i", "&& j > i"),
    _compress(
        "ties of two ways go to the later weight", "magnitudes[i] << 4 | (15 - i)", "magnitudes[i] << 4 | i"
    ),
    _compress("unpacked channels past n are written", "    if (channel >= args.n) continue;\n"),
    _compress("unpacked inputs past k are written", "if (input + e < args.k) to[e]", "to[e]"),
    _compress(
        "unpacked vectors are written across k",
        "args.vectors && input + kUnitElements <= args.k",
        "args.vectors",
    ),
    _compress(
        "places are not looked at",
        "const bool outside = channel >= args.n ||",
        "const bool outside = false &&",
    ),
    _compress("equal places pass", "(high + 0x44444444u - low - 0x11111111u)", "(high + 0x44444444u - low)"),
]

UNCATCHABLE = [
    (
        _tiled(
            "tiles past the last block of inputs are loaded", "if (k_block < range.last) {", "if (true) {"
        ),
        "they arrive as zeros, or are the next split's, in places of the ring that nobody reads. On a device they "
        "would race with the sums; here a copy that nobody waits for happens at once or after the sums have been read",
    ),
    (
        _small(
            "rings of the warps overlap",
            "shared + warp * Tile::kRingBytes",
            "shared + warp * Tile::kStageBytes",
        ),
        "a warp meets no other inside its loop, and the emulator changes warps where they meet",
    ),
    (
        _small("no warp barrier in the loop", "    __syncwarp();\n"),
        "ldmatrix is itself a meeting of all lanes: none reads before every lane has waited, and none loads again "
        "before all have read. The barrier orders the lanes' memory, of which the emulator has one view",
    ),
]

FAMILY = Family(
    name="semi_structured",
    support=(
        "cuda/semi_structured/pack.cpp",
        "cuda/semi_structured/window_lift.cpp",
        "cpu/nm_decode/pack.cpp",
    ),
    mutants=tuple(MUTANTS),
    uncatchable=tuple(UNCATCHABLE),
)
