"""Mutants of the block-sparse family."""

from __future__ import annotations

from cuda_mutants.mutant import Family, Kernel

INDEX = "cuda/block_sparse/index.cuh"
PRODUCT = "cuda/linear/product_tile.cuh"
SUM = "cuda/linear/grad_tile.cuh"
TOKENS = "cuda/linear/tokens.cuh"
EPILOGUE = "cuda/linear/epilogue.cuh"
CLUSTER = "cuda/linear/block_cluster.cuh"

_linear = Kernel("LINEAR", "cuda/block_sparse/linear_sm80.cuh").mutant
_small = Kernel("SMALL", "cuda/block_sparse/linear_small_sm80.cuh").mutant
_small_transposed = Kernel("SMALL_TRANSPOSED", "cuda/block_sparse/linear_small_sm80.cuh").mutant
_transposed = Kernel("TRANSPOSED", "cuda/block_sparse/linear_sm80.cuh").mutant
_wgmma = Kernel("WGMMA", "cuda/block_sparse/linear_sm90.cuh").mutant
_grad = Kernel("GRAD", "cuda/block_sparse/weight_grad_sm80.cuh").mutant
_wgmma_grad = Kernel("WGMMA_GRAD", "cuda/block_sparse/weight_grad_sm90.cuh").mutant
_validate = Kernel("VALIDATE", "cuda/block_sparse/validate_sm80.cuh").mutant
_index = Kernel("LINEAR", INDEX).mutant
_product = Kernel("LINEAR", PRODUCT).mutant
_sum = Kernel("GRAD", SUM).mutant

MUTANTS = [
    # the product
    _linear("no wait for copies", "ptx::cp_async_wait<Tile::kStages - 2>();"),
    _linear(
        "waits for one copy too few", "cp_async_wait<Tile::kStages - 2>", "cp_async_wait<Tile::kStages - 1>"
    ),
    _linear("copies are not committed", "    ptx::cp_async_commit();\n"),
    _linear("no barrier in the loop", "__syncthreads();", place=0),
    _linear(
        "the next turn is loaded before the barrier",
        "    __syncthreads();\n    load_stage(turn + Tile::kStages - 1);",
        "    load_stage(turn + Tile::kStages - 1);\n    __syncthreads();",
    ),
    _product("no barrier before sums overwrite tiles", "__syncthreads();", place=0),
    _product("no barrier before sums are read", "__syncthreads();", place=1),
    _linear("the ring has one place", "turn % Tile::kStages * Tile::kStageBytes;", "0;", place=0),
    _linear("the index is not looked up ahead", "  look_up(Tile::kStages - 1);\n"),
    _linear(
        "the index of the turn before", "look_up(turn + Tile::kStages)", "look_up(turn + Tile::kStages - 1)"
    ),
    _linear("columns past the last entry are read", "first + slot_of_x < entries.last ? ", "true ? "),
    _linear("weights past the last entry are read", "entry >= entries.last ? -1", "false ? -1"),
    _linear("turns are rounded down", "entries.first + Tile::kBlocksOfTurn - 1)", "entries.first)"),
    _linear("one half of a block for both", "? turn % Tile::kTurnsOfBlock : 0", "? 0 : 0"),
    _linear("the first half's weights for both", "(kTransposed ? 0 : half * 2 * kTurnColumns)", "0"),
    _linear("one entry for all chunks of x", "? chunk * 8 / kSize : 0", "? 0 : 0"),
    _linear("one entry for all chunks of weights", "? q % 8 * 8 / Tile::kSize : 0", "? 0 : 0"),
    _linear("rows outside of the matrix are made", "  if (row < 0) return;\n"),
    _product("weights of the first step for both", "32 * pair + 16 * step", "32 * pair"),
    _product("x of the first steps for all", "64 * pair + lane / 8 * 16", "lane / 8 * 16"),
    _product("steps of x are exchanged", "{{b[0], b[1]}, {b[2], b[3]}}", "{{b[2], b[3]}, {b[0], b[1]}}"),
    _product(
        "tokens past m are stored", "left < kRows ? static_cast<int>(left) : kRows", "kRows", file=EPILOGUE
    ),
    _product("chunks past n are stored", "    if (first >= args.p.n) return;\n"),
    _index("splits of a row overlap", "count * split / splits)", "count * split / splits - (split > 0))"),
    _index("a split ends early", "count * (split + 1) / splits)", "count * (split + 1) / splits - 1)"),
    _index("starts below zero are followed", "at < 0 ? 0 : "),
    _index("starts past the end are followed", "at > blocks ? blocks : at", "at"),
    _transposed("large sources pass", "value < limit ? value : -1", "value", file=INDEX),
    _product("tokens past m are read", "row + r < from.rows ? in_row : 0", "in_row", place=0),
    _product("tokens past m are read one by one", "row + r < from.rows ? in_row : 0", "in_row", place=1),
    _product("inputs past k are read", "left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0", "16"),
    _product("elements past k are read", "if (2 * i < valid)", "if (true)"),
    _product("unaligned rows are copied sixteen bytes at a time", "if (from.vectors) {", "if (true) {"),
    _product(
        "rows 8 to 15 of A are the first eight", "row + lane % 16, 2 * column", "row + lane % 8, 2 * column"
    ),
    # the product with the transposed weight
    _transposed(
        "sources outside of the values are read",
        "inside_or_none(weight.source[entry], weight.blocks)",
        "weight.source[entry]",
    ),
    _transposed("sources are not followed", "kTransposed         ? inside", "false               ? inside"),
    _transposed("inputs of one block for all slots", "? input / Tile::kSize : 0", "? 0 : 0"),
    _transposed(
        "inputs are not counted from their block", "? input % Tile::kSize : input", "? input : input"
    ),
    _transposed("the first half's weights for both", "(kTransposed ? half * kTurnColumns : 0)", "0"),
    _transposed(
        "weights are not transposed",
        "load_a_transposed<kTurnColumns, Tile::kChannels>(",
        "load_a<kTurnColumns, Tile::kChannels>(",
        file=PRODUCT,
    ),
    _transposed(
        "halves of A's inputs are exchanged",
        "row + lane / 16 * 8 + lane % 8",
        "row + (1 - lane / 16) * 8 + lane % 8",
        file=PRODUCT,
    ),
    _transposed(
        "halves of A's channels are exchanged", "lane / 8 % 2 * 16", "(1 - lane / 8 % 2) * 16", file=PRODUCT
    ),
    _transposed("spans of wide blocks overlap", "byte / kSpan * (kRows * kSpan)", "0", file=PRODUCT),
    # the product with wgmma
    _wgmma("no wait for the copies", "      ptx::mbarrier_wait(&full[stage], phase);\n"),
    _wgmma("no wait for an empty stage", "      ptx::mbarrier_wait(&empty[stage], phase ^ 1);\n"),
    _wgmma("the producer waits for the wrong phase", "phase ^ 1);", "phase);"),
    _wgmma("consumers wait for the wrong phase", "&full[stage], phase);", "&full[stage], phase ^ 1);"),
    _wgmma("phases are not counted across works", "uint32_t turn = 0;", "uint32_t turn = 1;", place=0),
    _wgmma("no fence before the products", "      ptx::wgmma_fence(sums);\n"),
    _wgmma("products are not committed", "      ptx::wgmma_commit();\n"),
    _wgmma("no wait in the loop", "      ptx::wgmma_wait<1>();\n"),
    _wgmma("two groups may be unfinished", "wgmma_wait<1>", "wgmma_wait<2>"),
    _wgmma("sums are read before the products are done", "    ptx::wgmma_wait<0>(sums);\n"),
    _wgmma(
        "the stage in use is given back",
        "empty[(turn - 1) % Tile::kStages]",
        "empty[turn % Tile::kStages]",
        place=0,
    ),
    _wgmma(
        "stages are not given back",
        "if (i > 0) cluster.give_back",
        "if (false) cluster.give_back",
    ),
    _wgmma(
        "the last stage of a work is not given back",
        "if (work.turns > 0) cluster.give_back",
        "if (false) cluster.give_back",
    ),
    _wgmma("one consumer's arrivals are enough", "kConsumerWarps = 8", "kConsumerWarps = 4"),
    _wgmma(
        "fewer bytes are expected than come",
        "expect_bytes(&full[stage], Tile::kStageBytes)",
        "expect_bytes(&full[stage], Tile::kStageBytes / 2)",
    ),
    _wgmma("barriers are not made known to the copy engine", "    ptx::fence_mbarrier_init();\n"),
    _wgmma("barriers are used before they are initialised", "  cluster.meet();\n", place=0),
    # two blocks of a cluster
    _wgmma(
        "a stage is given back to one block alone",
        "if (lane < blocks) ptx",
        "if (lane == 0) ptx",
        file=CLUSTER,
    ),
    _wgmma(
        "one block's arrivals are enough", "Tile::kConsumerWarps * cluster.blocks", "Tile::kConsumerWarps"
    ),
    _wgmma("both blocks copy the first part", "part == cluster.rank", "part == 0"),
    _wgmma("a part is copied to its own block alone", "(1 << blocks) - 1", "1 << rank", file=CLUSTER),
    _wgmma(
        "both blocks make the same tokens",
        "* cluster.blocks + cluster.rank) * tokens",
        "* cluster.blocks) * tokens",
    ),
    _wgmma("a block ends while the other copies into it", "  if (cluster.blocks > 1) cluster.meet();\n"),
    _wgmma("all runs of tokens are the first", "sums[run * 32 + e]", "sums[e]"),
    _wgmma("no barrier before sums are staged again", "ptx::named_barrier_sync(1 + consumer, 128);", place=0),
    _wgmma("no barrier before sums are read", "ptx::named_barrier_sync(1 + consumer, 128);", place=1),
    _wgmma("both consumers stage in one place", "+ consumer * Tile::kSumsBytes"),
    _wgmma("both consumers make the same channels", "Tile::kParts == 2 ? consumer : 0,", "0,"),
    _wgmma("both consumers make the same tokens", "? 0 : Tile::kConsumerTokens * consumer", "? 0 : 0"),
    _wgmma("steps of x are all the first", "tokens + 2 * step, true", "tokens, true"),
    _wgmma("steps of weights are all the first", "a + step * (kTransposed ? 128 : 2)", "a"),
    _wgmma("eight rows of weights are 512 bytes on", "Swizzle::k128, 16, 1024)", "Swizzle::k128, 16, 512)"),
    _wgmma("halves of blocks are not told apart", "i % Tile::kParts * kTurnColumns", "0"),
    _wgmma(
        "parts of the transposed blocks are exchanged",
        "kTransposed ? 64 * part : half,",
        "kTransposed ? half : half,",
    ),
    _wgmma("rows outside of the matrix are made", "    if (work.row < 0) continue;\n"),
    _wgmma(
        "orders past the rows are followed",
        "inside_or_none(args.weight.order[tile / args.token_tiles], args.rows)",
        "args.weight.order[tile / args.token_tiles]",
    ),
    _wgmma(
        "tokens past m are stored", "left < kRows ? static_cast<int>(left) : kRows", "kRows", file=EPILOGUE
    ),
    _wgmma("chunks past n are stored", "      if (first < args.p.n) {\n", "      {\n"),
    # few tokens
    _small("no wait for copies", "    ptx::cp_async_wait<Tile::kStages - 2>();\n"),
    _small(
        "waits for one copy too few", "cp_async_wait<Tile::kStages - 2>", "cp_async_wait<Tile::kStages - 1>"
    ),
    _small("copies are not committed", "    ptx::cp_async_commit();\n"),
    _small("the ring has one place", "turn % Tile::kStages * Tile::kStageBytes;", "0;"),
    _small(
        "lanes share one vector of x",
        "i * Tile::kPieceBytes + lane * 16);\n      look_up",
        "i * Tile::kPieceBytes);\n      look_up",
    ),
    _small(
        "lanes share one vector of weights",
        "(row_of_unit, chunk * 16) : lane * 16",
        "(row_of_unit, chunk * 16) : 0",
    ),
    _small(
        "pieces share one place",
        "cp_async_hinted(stage + i * Tile::kPieceBytes + own",
        "cp_async_hinted(stage + own",
    ),
    _small("no barrier before sums overwrite rings", "__syncthreads();", place=0),
    _small("no barrier before sums are read", "__syncthreads();", place=1),
    _small("every warp takes the first units", "turn * Tile::kWarps + warp;", "turn * Tile::kWarps;"),
    _small("the first unit's entry for all", "      look_up(unit + Tile::kWarps);\n"),
    _small("the entry of the first warp for all", "look_up(warp);", "look_up(0);"),
    _small(
        "columns past the last entry are read", "unit < units && entry + slot_of_x < entries.last", "true"
    ),
    _small(
        "weights past the last entry are read",
        "unit >= units || entry + slot >= entries.last",
        "unit >= units",
    ),
    _small("the second entry of a pair is always there", "if (block >= 0) {", "if (true) {"),
    _small(
        "pairs of entries are rounded down", "entries.first + Tile::kEntriesOfUnit - 1)", "entries.first)"
    ),
    _small("one entry's column for a pair", "slot_of_x = lane % 4 * 8 / kChannels", "slot_of_x = 0"),
    _small("one entry's weights for a pair", "% 8 * 4 / kChannels : slot_of_x;", "% 8 * 4 / kChannels : 0;"),
    _small("the first inputs of blocks for all", "& ((1 << part_bits) - 1)) *", "& 0) *"),
    _small("halves of a block of 16 are one", "lane % 4 * 8 % kChannels", "0"),
    _small("blocks of 64 have one part", "size == 64 ? 1 : 0", "0"),
    _small("every run is the first", "first_row = run_of_grid % runs * kChannels", "first_row = 0"),
    _small("every run is a row", "run_of_grid / runs]", "run_of_grid]"),
    _small("rows outside of the matrix are made", "  if (row < 0) return;\n"),
    _small("rows of a lane are four apart", "8 / kRowChunks : 8;", "8 / kRowChunks : 4;"),
    _small("tokens of the first column for all", "token + 8 * i + lane / 4,", "token + lane / 4,"),
    _small("the first token tile for all", "blockIdx.x % args.token_tiles) * kTokens", "0) * kTokens"),
    _small(
        "rows of the operand are exchanged", "upper[0], lower[0], upper[1]", "lower[0], upper[0], upper[1]"
    ),
    _small(
        "halves of x are exchanged",
        "{{x[i].x, x[i].y}, {x[i].z, x[i].w}}",
        "{{x[i].z, x[i].w}, {x[i].x, x[i].y}}",
    ),
    _small("the second step is left out", "        ptx::mma<T>(sums[slice][i], a[1], b[1]);\n"),
    _small("the second slice is the first", "stage + 2 * slice * Tile::kPieceBytes", "stage"),
    _small("tokens past m are read", "column < 0 || token >= args.p.m ? 0", "column < 0 ? 0", file=TOKENS),
    _small("columns in front of the matrix are read", "column < 0 || token", "token", file=TOKENS),
    _small(
        "columns past k are read",
        "const int valid = left >= 8 ? 8 : left > 0 ? static_cast<int>(left) : 0;",
        "const int valid = left > 0 ? 8 : 0;",
        file=TOKENS,
    ),
    # few tokens, the transposed weight
    _small_transposed("no wait for copies", "    ptx::cp_async_wait<Tile::kStages - 2>();\n"),
    _small_transposed(
        "sources are not followed",
        "inside_or_none(weight.source[entry + slot], weight.blocks)",
        "entry + slot",
    ),
    _small_transposed(
        "sources outside of the values are read",
        "inside_or_none(weight.source[entry + slot], weight.blocks)",
        "weight.source[entry + slot]",
    ),
    _small_transposed("weights past the last entry are read", "entry + slot >= entries.last", "false"),
    _small_transposed("one entry's weights for a pair", "row_of_unit % 8 * 4 / kChannels", "0"),
    _small_transposed(
        "inputs lie in the order of memory",
        "row_of_unit % 8 / 2 * 8 + row_of_unit / 8 * 2 + row_of_unit % 2",
        "row_of_unit",
    ),
    _small_transposed("rows of inputs are eight apart", "8 / kRowChunks : 8;", "8 : 8;"),
    _small_transposed(
        "every part is the block's first",
        "(kTransposed ? part_of(unit) : first_row)",
        "(kTransposed ? 0 : first_row)",
    ),
    _small_transposed(
        "every run is the block's first",
        "(kTransposed ? first_row : part_of(unit))",
        "(kTransposed ? 0 : part_of(unit))",
    ),
    _small_transposed(
        "chunks of a row are the first", "kTransposed ? chunk * 8 : input", "kTransposed ? 0 : input"
    ),
    _small_transposed(
        "chunks of a row share one place", "(row_of_unit, chunk * 16) : lane", "(row_of_unit, 0) : lane"
    ),
    _small_transposed(
        "rows are read without their swizzle", "(lane, 2 * channel)", "(lane ^ 2, 2 * channel)"
    ),
    _small_transposed("the second slice is the first", "row_of_lane(16 * slice)", "row_of_lane(0)"),
    _small_transposed(
        "the operand's lower rows are its upper ones",
        "row_of_lane(16 * slice + 8)",
        "row_of_lane(16 * slice)",
    ),
    _small_transposed("weights are not transposed", "ptx::ldmatrix_transposed(upper", "ptx::ldmatrix(upper"),
    # gradients of kept blocks
    _sum("no wait for copies", "ptx::cp_async_wait<Tile::kStages - 2>();"),
    _sum(
        "waits for one copy too few", "cp_async_wait<Tile::kStages - 2>", "cp_async_wait<Tile::kStages - 1>"
    ),
    _sum("copies are not committed", "    ptx::cp_async_commit();\n"),
    _sum("no barrier in the loop", "__syncthreads();", place=0),
    _sum(
        "the next turn is loaded before the barrier",
        "    __syncthreads();\n    load_stage(turn + Tile::kStages - 1);",
        "    load_stage(turn + Tile::kStages - 1);\n    __syncthreads();",
    ),
    _sum("no barrier before sums overwrite tiles", "__syncthreads();", place=1),
    _sum("no barrier before sums are read", "__syncthreads();", place=2),
    _sum("the ring has one place", "(turn - range.first) % Tile::kStages", "0", place=0),
    _grad("the row after the entry's", "return low;", "return high;", file=INDEX),
    _grad("the search ends a step early", "high - low > 1", "high - low > 2", file=INDEX),
    _grad("inputs of another column", "column * kSize, range", "(column ^ 1) * kSize, range"),
    _sum("one span for both", "stage + span * (kTurnTokens * 128)", "stage"),
    _sum("grad_y is not transposed", "load_a_transposed<kTurnTokens, kSize>(", "load_a<kTurnTokens, kSize>("),
    _sum(
        "columns of B's pair are exchanged",
        "load_b_pair<kTurnTokens, kSize>(b[0], b[1],",
        "load_b_pair<kTurnTokens, kSize>(b[1], b[0],",
    ),
    _sum("all warps take the same tokens", "i * Tile::kTokenWarps + warp_token", "i * Tile::kTokenWarps"),
    _grad("a warp's sums are left out", "w < Tile::kTokenWarps; ++w", "w < 1; ++w"),
    _sum("sums of the warps overlap", "shared + ((warp_token * kSize + o)", "shared + (o"),
    _grad("splits write to one place", "blockIdx.y * args.p.weight.blocks * (kSize * kSize) + at", "at"),
    _grad("the last split is not added", "split < args.splits; ++split", "split < args.splits - 1; ++split"),
    _grad("chunks past the last are written", "  if (chunk >= chunks) return;\n"),
    # gradients of kept blocks with wgmma
    _wgmma_grad(
        "no wait for the copies",
        "    ptx::mbarrier_wait(&ring.full[stage], phase);\n    // Eight",
        "    // Eight",
    ),
    _wgmma_grad(
        "no wait before begins are read",
        "      ptx::mbarrier_wait(&ring.full[stage], phase);\n      begins",
        "      begins",
    ),
    _wgmma_grad("no wait for an empty stage", "        ptx::mbarrier_wait(&ring.empty[stage], phase ^ 1);\n"),
    _wgmma_grad("the producer waits for the wrong phase", "phase ^ 1);", "phase);"),
    _wgmma_grad(
        "consumers wait for the wrong phase", "&ring.full[stage], phase);", "&ring.full[stage], phase ^ 1);"
    ),
    _wgmma_grad("lanes do not wait for the first", "      __syncwarp();\n"),
    _wgmma_grad("phases are not counted across works", "uint32_t turn = 0;", "uint32_t turn = 1;", place=0),
    _wgmma_grad("turns of a work are not counted", "    turn += work.turns;\n"),
    _wgmma_grad("no fence before the products", "    ptx::wgmma_fence(sums);\n"),
    _wgmma_grad("products are not committed", "    ptx::wgmma_commit();\n"),
    _wgmma_grad("no wait in the loop", "    ptx::wgmma_wait<1>();\n"),
    _wgmma_grad("two groups may be unfinished", "wgmma_wait<1>", "wgmma_wait<2>"),
    _wgmma_grad("sums are read before the products are done", "  ptx::wgmma_wait<0>(sums);\n"),
    _wgmma_grad(
        "the stage in use is given back",
        "ring.empty[(turn - 1) % Tile::kStages]",
        "ring.empty[turn % Tile::kStages]",
    ),
    _wgmma_grad(
        "stages are not given back",
        "if (i > 0 && lane == 0) ptx::mbarrier_arrive",
        "if (false) ptx::mbarrier_arrive",
    ),
    _wgmma_grad(
        "the last stage of a work is not given back",
        "if (work.turns > 0 && lane == 0) ptx::mbarrier_arrive",
        "if (false) ptx::mbarrier_arrive",
    ),
    _wgmma_grad(
        "a work without turns gives a stage back",
        "if (work.turns > 0 && lane == 0) ptx::mbarrier_arrive",
        "if (lane == 0) ptx::mbarrier_arrive",
    ),
    _wgmma_grad("one consumer's arrivals are enough", "kConsumerWarps = 8", "kConsumerWarps = 4"),
    _wgmma_grad(
        "grad_y's bytes are not expected",
        "(Tile::kColumns + __popc(all_begins) * Tile::kParts) * Tile::kBoxBytes",
        "Tile::kColumns * Tile::kBoxBytes",
    ),
    _wgmma_grad("barriers are not made known to the copy engine", "    ptx::fence_mbarrier_init();\n"),
    _wgmma_grad(
        "what begins a row is not left beside the stage",
        "        ptx::store_shared_4(&ring.begins[stage], all_begins);\n",
    ),
    _wgmma_grad("only the first entry begins a row", " || row != row_before"),
    _wgmma_grad("the first entry begins no row of its own", "lane < Tile::kParts || row", "row"),
    _wgmma_grad("rows are compared within an entry", "row, Tile::kParts);", "row, 1);"),
    _wgmma_grad("both parts of an entry count", "begins && part == 0)", "begins)"),
    _wgmma_grad(
        "the second half of a row takes the first one's place", "- Tile::kParts + part;", "- Tile::kParts;"
    ),
    _wgmma_grad("halves of a block's inputs are not told apart", "Tile::kSize + 64 * part)", "Tile::kSize)"),
    _wgmma_grad(
        "halves of a block's channels are not told apart",
        "row * Tile::kSize + 64 * part;",
        "row * Tile::kSize;",
    ),
    _wgmma_grad("every split has the first one's tokens", "(work.first_turn + i)", "i"),
    _wgmma_grad("works of a split overlap", "index % units * Tile::kEntries", "index % units"),
    _wgmma_grad("works of splits are mixed up", "split = index / units;", "split = index % args.splits;"),
    _wgmma_grad(
        "both consumers make the first entries", "Tile::kParts == 1 ? Tile::kOwn * consumer : 0", "0"
    ),
    _wgmma_grad("both consumers make the first channels", "Tile::kParts == 1 ? 0 : consumer", "0"),
    _wgmma_grad("columns take the row before theirs", "(2u << (first + c))", "(1u << (first + c))"),
    _wgmma_grad("eight tokens are 512 bytes on", "Tile::kBoxBytes, 1024)", "Tile::kBoxBytes, 512)"),
    _wgmma_grad("the next inputs are half a box on", "k128, Tile::kBoxBytes,", "k128, Tile::kBoxBytes / 2,"),
    _wgmma_grad("steps are all the first", "step * 128, runs", "0 * step, runs"),
    _wgmma_grad("all steps take grad_y's first tokens", "grad_y[kFirst] + from", "grad_y[kFirst]"),
    _wgmma_grad("all columns take the first inputs", "x + kFirst * kBox + from", "x + from"),
    _wgmma_grad("all columns take the first one's grad_y", "grad_y[kFirst] + from", "grad_y[0] + from"),
    _wgmma_grad("all runs are made at one place", "registers_of<kFirst * kOne,", "registers_of<0,"),
    _wgmma_grad("the first run alone is made", "sizeof...(kRest) > 0", "false"),
    _wgmma_grad("small blocks always share", "if (share(0, 3)) {", "if (true) {"),
    _wgmma_grad("the first two small blocks always share", "} else if (share(0, 1)) {", "} else if (true) {"),
    _wgmma_grad(
        "the last two small blocks share with the first two",
        "share(2, 3) ? make(Runs<2, 2>())",
        "true ? make(Runs<2, 2>())",
    ),
    _wgmma_grad(
        "the last two small blocks share if none do",
        "share(2, 3) ? make(Runs<1, 1, 2>())",
        "true ? make(Runs<1, 1, 2>())",
    ),
    _wgmma_grad("the first two large blocks always share", "share(0, 2) ? make", "true ? make"),
    _wgmma_grad(
        "the last two large blocks share if the first two do not", "share(2, 4) ? make", "true ? make"
    ),
    _wgmma_grad("entries past the last are stored", "    if (entry >= blocks) return;\n"),
    _wgmma_grad("splits write to one place", "work.split * blocks * (Tile::kSize * Tile::kSize)", "0"),
    _wgmma_grad("channels of a warp are those of the first", "(16 * warp + corner.row)", "corner.row"),
    _wgmma_grad("halves of a block's inputs go to one place", "64 * (column % Tile::kParts)", "0"),
    _wgmma_grad(
        "halves of a block's channels go to one place",
        "entry * Tile::kSize + 64 * columns.part",
        "entry * Tile::kSize",
    ),
    # the check of an index
    _validate("starts may descend", "first > last || "),
    _validate("starts may begin anywhere", "(row == 0 && first != 0)", "false"),
    _validate("starts may end anywhere", "(row == rows - 1 && last != weight.blocks)", "false"),
    _validate("columns may be outside", "column < 0 || "),
    _validate("columns may repeat", "weight.index[j - 1] >= column", "weight.index[j - 1] > column"),
    _validate("rows may be outside", "if (here < 0) {", "if (false) {"),
    _validate("equal rows may be in any order", "before >= here", "before > here"),
    _validate("shorter rows may come first", "longer < 0 || "),
    _validate(
        "sources may be outside", "inside_or_none(mirrored.source[j], weight.blocks)", "mirrored.source[j]"
    ),
    _validate(
        "sources may name another column", "            weight.index[entry] != row)", "            false)"
    ),
    _validate(
        "only some rows are looked at",
        "row < args.rows; row += kValidateThreads",
        "row < args.rows; row += 2 * kValidateThreads",
    ),
]

UNCATCHABLE = [
    (
        _wgmma_grad("every entry begins a row", "(lane < Tile::kParts || row != row_before)", "true"),
        "grad_y comes once for every entry: the answer is the same, and only time is lost",
    ),
    (
        _wgmma_grad("entries past the last are looked up", "copies && entry < weight.blocks", "copies"),
        "what is read there, in the 256 bytes that an index is rounded up to, decides nothing that is stored",
    ),
    (
        _wgmma_grad("barriers are used before they are initialised", "  __syncthreads();\n"),
        "consumers begin when they have taken registers, and the warp that initialises gives back the last of these",
    ),
    (
        _small("warps share one ring", "shared + warp * Tile::kRingBytes;", "shared;"),
        "no warp waits for another one in the loop, so the emulator runs each to its end before the next begins",
    ),
    (
        _small_transposed(
            "lanes do not wait for each other", "    if constexpr (kTransposed) __syncwarp();\n"
        ),
        "ldmatrix is made by the whole warp, so the emulator has all lanes wait for their copies before it reads",
    ),
    (
        _validate(
            "rows of sources are not looked at", "if (of_row < 0) continue;", "if (of_row < -1) continue;"
        ),
        "the number in front of starts is read, which the emulator does not see; the fault is named all the same",
    ),
]

FAMILY = Family(
    name="block_sparse",
    support=("cuda/semi_structured/pack.cpp", "cpu/nm_decode/pack.cpp"),
    mutants=tuple(MUTANTS),
    uncatchable=tuple(UNCATCHABLE),
)
