"""Mutants of products over gathered inputs: shared lists and V:N:M."""

from __future__ import annotations

from cuda_mutants.mutant import Family, Kernel

TILED = "cuda/gathered/matmul_sm80.cuh"
SMALL = "cuda/gathered/matmul_small_sm80.cuh"
TRANSPOSE = "cuda/gathered/transpose_sm80.cuh"
TILES = "cuda/gathered/tiles.cuh"
ARGUMENTS = "cuda/gathered/arguments.h"
LISTS = "cuda/shared_lists/shared_lists.h"
RECORDS = "cuda/shared_lists/weights_sm80.cuh"
GRADIENT = "cuda/shared_lists/weight_grad_sm80.cuh"
UNPACK = "cuda/shared_lists/unpack_sm80.cuh"
VNM = "cuda/vnm/weights_sm80.cuh"
WGMMA = "cuda/gathered/matmul_sm90.cuh"
EPILOGUE = "cuda/linear/epilogue.cuh"
VNM_WGMMA = "cuda/vnm/weights_sm90.cuh"
PICKED = "cuda/vnm/picked_sm90.cuh"
CLUSTER = "cuda/linear/block_cluster.cuh"

_tiled = Kernel("TILED", TILED).mutant
_small = Kernel("SMALL", SMALL).mutant
_gradient = Kernel("GRADIENT", GRADIENT).mutant
_unpack = Kernel("UNPACK", UNPACK).mutant
_vnm = Kernel("VNM", VNM).mutant
_vnm_small = Kernel("VNM_SMALL", VNM).mutant
_wgmma = Kernel("WGMMA", WGMMA).mutant
_vnm_wgmma = Kernel("VNM_WGMMA", VNM_WGMMA).mutant
_picked = Kernel("PICKED", PICKED).mutant

MUTANTS = [
    # x transposed
    _tiled("x: no wait for copies", "  ptx::cp_async_wait<0>();\n", file=TRANSPOSE),
    _tiled("x: no barrier before the tile is transposed", "  __syncthreads();\n", place=0, file=TRANSPOSE),
    _tiled("x: no barrier before columns are read", "  __syncthreads();\n", place=1, file=TRANSPOSE),
    _tiled(
        "x: tokens past m are read",
        "token + row < args.rows ? args.columns - first : 0",
        "args.columns - first",
        file=TRANSPOSE,
    ),
    _tiled(
        "x: inputs past k are read",
        "left >= kChunk ? kChunk : left > 0 ? static_cast<int>(left) : 0",
        "kChunk",
        file=TRANSPOSE,
    ),
    _tiled("x: elements past k are read", "if (i < valid) words", "words", file=TRANSPOSE),
    _tiled(
        "x: unaligned rows are copied sixteen bytes at a time",
        "if (args.vectors) {",
        "if (true) {",
        file=TRANSPOSE,
    ),
    _tiled("x: inputs past k are written", "column + row < args.columns && ", file=TRANSPOSE),
    _tiled("x: tokens past the pitch are written", " && to < pitch)", ")", file=TRANSPOSE),
    _tiled("x: both halves hold the same tokens", "4 * half + i", "i", file=TRANSPOSE),
    _gradient(
        "x: the padding of tokens is not zero",
        "token + row < args.rows ? args.columns - first : 0",
        "(token + row < args.rows ? args.columns - first : args.columns - first > 0 ? 1 : 0)",
        file=TRANSPOSE,
    ),
    # lists and gathering
    _tiled("columns past the end of a list are read", "if (i >= length) return -1;", file=ARGUMENTS),
    _tiled("columns past k are read", "return found < k ? found : -1;", "return found;", file=ARGUMENTS),
    _tiled(
        "tokens past the pitch are gathered", "columns[i] >= 0 && at < pitch", "columns[i] >= 0", file=TILES
    ),
    _tiled(
        "rows that the list lacks are gathered", "columns[i] >= 0 && at < pitch", "at < pitch", file=TILES
    ),
    _tiled("what is lacking stays as it was", "source, exists ? 16 : 0);", "source, 16);", file=TILES),
    _tiled(
        "all rows of a thread gather the first column",
        "xt + columns[i] * pitch",
        "xt + columns[0] * pitch",
        file=TILES,
    ),
    _tiled(
        "the list ends where group_ptr says", "end < weight.records ? end : weight.records", "end", file=LISTS
    ),
    # many tokens
    _tiled("no wait for copies", "    ptx::cp_async_wait<Tile::kStages - 2>();\n"),
    _tiled(
        "waits for one copy too few", "cp_async_wait<Tile::kStages - 2>", "cp_async_wait<Tile::kStages - 1>"
    ),
    _tiled("copies are not committed", "    ptx::cp_async_commit();\n"),
    _tiled("no barrier in the loop", "    __syncthreads();\n", place=0),
    _tiled("columns are not read ahead", "      gather.fetch(list, turn + 1, thread);\n"),
    _tiled(
        "columns are read a turn late",
        "gather.fetch(list, turn + 1, thread)",
        "gather.fetch(list, turn, thread)",
    ),
    _tiled(
        "the ring has one stage", "(turn - range.first) % Tile::kStages * Tile::kStageBytes", "0", place=0
    ),
    _tiled("no barrier before sums overwrite stages", "  __syncthreads();\n#pragma", "#pragma"),
    _tiled("no barrier before sums are read", "  __syncthreads();\n\n  constexpr", "\n  constexpr"),
    _tiled("all warps take the first tokens", "warp * Tile::kColumns, lane", "0, lane"),
    _tiled(
        "tokens past m are stored", "left < kRows ? static_cast<int>(left) : kRows", "kRows", file=EPILOGUE
    ),
    _tiled("channels past n are stored", " || first >= linear.p.n) return;", ") return;"),
    _tiled("channels past the vector are stored", "chunk >= Weights::channels(args) || "),
    _tiled("records past the end are copied", "row < left && channel", "channel", file=RECORDS),
    _tiled("channels past the vector are copied", " && channel < args.weight.vector;", ";", file=RECORDS),
    _tiled(
        "both halves of a fragment hold the same channels",
        "2 * slice + lane / 8 % 2",
        "2 * slice",
        file=RECORDS,
    ),
    _tiled(
        "both steps take the same inputs",
        "ptx::mma<T>(sums, a[1], {b[2], b[3]})",
        "ptx::mma<T>(sums, a[1], {b[0], b[1]})",
        file=RECORDS,
    ),
    # few tokens
    _small("no wait for copies", "    ptx::cp_async_wait<Tile::kStages - 2>();\n"),
    _small(
        "waits for one copy too few", "cp_async_wait<Tile::kStages - 2>", "cp_async_wait<Tile::kStages - 1>"
    ),
    _small("copies are not committed", "    ptx::cp_async_commit();\n"),
    _small("no barrier before sums overwrite rings", "  __syncthreads();\n", place=0),
    _small("no barrier before sums are read", "  __syncthreads();\n", place=1),
    _small("the ring has one stage", "ring + turn % Tile::kStages * Tile::kStageBytes", "ring", place=0),
    _small("warps take the same turns", "turn * Tile::kWarps + warp", "turn * Tile::kWarps"),
    _small(
        "columns of the wrong turn",
        "gather.fetch(list, place_in_list(turn + 1), lane)",
        "gather.fetch(list, place_in_list(turn), lane)",
    ),
    _small("tokens past m are stored", "token >= linear.p.m || "),
    _small("channels past the vector are stored", "to >= Weights::channels(args) || "),
    _small("channels past n are stored", " || channel + to >= linear.p.n) continue", ") continue"),
    _small("a warp's sums are left out", "w < Tile::kWarps; ++w", "w < Tile::kWarps - 1; ++w"),
    _small("splits write in one place", "(blockIdx.y * linear.p.m + token)", "(token)"),
    # the gradient of the weights
    _gradient("no wait for copies", "      ptx::cp_async_wait<Tile::kStages - 2>();\n"),
    _gradient(
        "waits for one copy too few", "cp_async_wait<Tile::kStages - 2>", "cp_async_wait<Tile::kStages - 1>"
    ),
    _gradient("copies are not committed", "      ptx::cp_async_commit();\n"),
    _gradient("no barrier in the loop", "      __syncthreads();\n"),
    _gradient("no barrier between parts", "    __syncthreads();\n\n#pragma", "\n#pragma"),
    _gradient("tokens past the pitch are copied", "rows[i] && at < args.pitch", "rows[i]"),
    _gradient(
        "channels past n are read",
        "row < args.weight.vector && channel + row < args.n",
        "row < args.weight.vector",
    ),
    _gradient("channels past the vector are stored", " && to < args.weight.vector)", ")"),
    _gradient("records past the list are stored", "record < list.length && "),
    _gradient("parts are left out", "part += gridDim.y", "part += 2 * gridDim.y"),
    _gradient(
        "both steps take the same tokens", "{b[i][2 * step], b[i][2 * step + 1]}", "{b[i][0], b[i][1]}"
    ),
    _gradient(
        "warps take the same records", "Tile::kChannels + 16 * warp + 8 * i", "Tile::kChannels + 8 * i"
    ),
    # the dense weight
    _unpack("no barrier before places are noted", "  __syncthreads();\n", place=0),
    _unpack("no barrier before places are read", "  __syncthreads();\n", place=1),
    _unpack(
        "channels past n are written",
        "args.n - channel < args.weight.vector ? args.n - channel : args.weight.vector",
        "args.weight.vector",
    ),
    _unpack(
        "inputs past k are written",
        "args.k - first < kUnpackWindow ? args.k - first : kUnpackWindow",
        "kUnpackWindow",
    ),
    _unpack("records of the next group are noted", "i < records.last && ", ""),
    _unpack("columns before the window are noted", "    if (args.weight.columns[i] >= first)\n"),
    _unpack("columns behind the window are noted", " && args.weight.columns[i] < first + width;", ";"),
    # V:N:M
    _vnm("one selector for both spans", "if (span == 0) {", "if (true) {"),
    _vnm(
        "metadata of the next slice",
        "kValueBytes + slice * kSliceMetadataBytes",
        "kValueBytes + (slice + 1) % kSlices * kSliceMetadataBytes",
    ),
    _vnm(
        "metadata is not copied", "i < kStageBytes; i += kThreads * 16", "i < kValueBytes; i += kThreads * 16"
    ),
    _vnm("both spans have the same values", "span_of_turn * 512 + "),
    _vnm(
        "every tile starts at the first slice of its block",
        "* kBlockSlices + slice % kBlockSlices",
        "* kBlockSlices",
    ),
    _vnm(
        "every run has the first run's columns",
        "args.weight.columns + run * args.weight.picked",
        "args.weight.columns",
    ),
    _vnm_small(
        "blocks of inputs follow those of channels",
        "slice / kBlockSlices * args.k_blocks + turn",
        "slice / kBlockSlices + turn",
    ),
    _vnm_small("one selector for both spans", "if (span == 0) {", "if (true) {"),
    # wgmma
    _wgmma("no wait for a stage", "    ptx::mbarrier_wait(&full[stage], phase);\n"),
    _wgmma("no wait for an empty stage", "    ptx::mbarrier_wait(&empty[stage], phase ^ 1);\n"),
    _wgmma("the producer waits for the wrong phase", "phase ^ 1);", "phase);"),
    _wgmma("consumers wait for the wrong phase", "&full[stage], phase);", "&full[stage], phase ^ 1);"),
    _wgmma("the producer does not arrive", "    ptx::mbarrier_arrive(&full[turn % Tile::kStages]);\n"),
    _wgmma("the producer arrives before its copies are done", "      ptx::cp_async_wait<Tile::kAhead>();\n"),
    _wgmma(
        "waits for one copy too few",
        "ptx::cp_async_wait<Tile::kAhead>()",
        "ptx::cp_async_wait<Tile::kAhead + 1>()",
    ),
    _wgmma("the last turns are handed over before their copies are done", "  ptx::cp_async_wait<0>();\n"),
    _wgmma("the last turn is not handed over", "left > 0; --left", "left > 1; --left"),
    _wgmma("copies are not committed", "    ptx::cp_async_commit();\n"),
    _wgmma(
        "half of the producer is enough",
        "Tile::kStages, Tile::kProducers,",
        "Tile::kStages, Tile::kProducers / 2,",
    ),
    _wgmma("one consumer's arrivals are enough", "kConsumerWarps = 8", "kConsumerWarps = 4"),
    _wgmma("an arrival too many is asked for", "kConsumerWarps = 8", "kConsumerWarps = 9"),
    _wgmma("barriers are used before they are initialised", "  __syncthreads();\n"),
    _wgmma("no fence between the proxies", "    ptx::fence_proxy_async_shared();\n"),
    _wgmma(
        "the reader fences instead of the writers",
        "    ptx::fence_proxy_async_shared();\n",
        further=(
            (
                "ptx::mbarrier_wait(&full[stage], phase);\n",
                "ptx::mbarrier_wait(&full[stage], phase);\n      ptx::fence_proxy_async_shared();\n",
            ),
        ),
    ),
    _wgmma(
        "the producer fences before its copies are done",
        "      ptx::cp_async_wait<Tile::kAhead>();\n      hand_over(turn - Tile::kAhead);",
        "      ptx::fence_proxy_async_shared();\n      ptx::cp_async_wait<Tile::kAhead>();\n"
        "      ptx::mbarrier_arrive(&full[(turn - Tile::kAhead) % Tile::kStages]);",
    ),
    _wgmma("no fence before the products", "    weights[kBuffer].fence(sums);\n"),
    _wgmma("products are not committed", "    ptx::wgmma_commit();\n"),
    _wgmma("no wait in the loop", "    ptx::wgmma_wait<1>();\n"),
    _wgmma("sums are read before the products are done", "  ptx::wgmma_wait<0>(sums);\n"),
    _wgmma(
        "the stage in use is given back", "empty[(turn - 1) % Tile::kStages]", "empty[turn % Tile::kStages]"
    ),
    _wgmma(
        "stages are not given back",
        "if (at > range.first && lane == 0) ptx::mbarrier_arrive",
        "if (false) ptx::mbarrier_arrive",
    ),
    _wgmma(
        "tokens past the pitch are gathered",
        "has_tokens = token + chunk * kChunk < pitch",
        "has_tokens = true",
    ),
    _wgmma(
        "rows that the list lacks are gathered", "exists = found >= 0 && has_tokens", "exists = has_tokens"
    ),
    _wgmma("what is lacking stays as it was", "source, exists ? 16 : 0);", "source, 16);"),
    _wgmma(
        "a warp's rows gather its first column", "column, kRows * i + row_of_warp)", "column, row_of_warp)"
    ),
    _wgmma("rows of a warp gather the same column", "column, kRows * i + row_of_warp)", "column, kRows * i)"),
    _wgmma("warps fetch the same columns", "(lane / kRows * 4 + warp)", "(lane / kRows * 4)"),
    _wgmma("columns are not read ahead", "    find_turn();\n    if (turn", "    if (turn"),
    _wgmma(
        "the columns are those of the turn before",
        "    ++at;\n    find_turn();",
        "    find_turn();\n    ++at;",
    ),
    _wgmma(
        "works are left out by the producer",
        "next = cuda_linear::work_after(index, gridDim.x, works)",
        "next = cuda_linear::work_after(index, 2 * gridDim.x, works)",
    ),
    _wgmma(
        "works are left out by the consumers",
        "index = cuda_linear::work_after(index, gridDim.x, works)",
        "index = cuda_linear::work_after(index, 2 * gridDim.x, works)",
    ),
    _wgmma(
        "the second work begins with the first turn of the first",
        "      at = work.range.first;\n",
        "      at = 0;\n",
    ),
    _wgmma(
        "phases begin anew with every work",
        "    const BlockRange& range = work.range;\n",
        "    const BlockRange& range = work.range;\n    turn = 0;\n",
    ),
    _wgmma(
        "the last turn's stage is not given back",
        "    if (range.first < range.last && lane == 0) ptx::mbarrier_arrive(&empty[(turn - 1) % Tile::kStages]);\n",
    ),
    _wgmma("no barrier before sums are read", "      ptx::named_barrier_sync(1 + consumer, 128);\n", place=1),
    _wgmma("sums are staged in the ring", "shared + Tile::kRingBytes + consumer", "shared + consumer"),
    _wgmma("both consumers take the same tokens", "from + first_token / 64 * kTileBytes", "from"),
    _wgmma("eights of inputs lie elsewhere", "kTileBytes, 8 * kRowBytes)", "kTileBytes, 4 * kRowBytes)"),
    _wgmma("all products take the first inputs", "first * kRowBytes >> 4", "0 * first"),
    _wgmma(
        "tokens past m are stored", "left < kRows ? static_cast<int>(left) : kRows", "kRows", file=EPILOGUE
    ),
    _wgmma("channels past n are stored", "if (first < linear.p.n) {", "if (true) {"),
    _vnm_wgmma("no wait in the loop", "    ptx::wgmma_wait<1>();\n", file=WGMMA),
    _vnm_wgmma("two groups may be unfinished", "wgmma_wait<1>", "wgmma_wait<2>", file=WGMMA),
    _vnm_wgmma(
        "weights are loaded while they are read",
        "weights[kBuffer ^ 1].load",
        "weights[kBuffer].load",
        file=WGMMA,
    ),
    _vnm_wgmma(
        "weights past the last block are loaded", "if (at + 1 < range.last) weights", "weights", file=WGMMA
    ),
    _vnm_wgmma(
        "both consumers take the first tokens", "from + first_token / 64 * kTileBytes", "from", file=WGMMA
    ),
    _vnm_wgmma(
        "sixty-fours of tokens lie elsewhere",
        "kTileBytes, 8 * kRowBytes)",
        "2 * kTileBytes, 8 * kRowBytes)",
        file=WGMMA,
    ),
    _vnm_wgmma(
        "both consumers take the same channels", "tile * kChannelGroups + group", "tile * kChannelGroups"
    ),
    _vnm_wgmma(
        "sums overwrite those that are being read",
        "      ptx::named_barrier_sync(1 + consumer, 128);\n",
        place=0,
        file=WGMMA,
    ),
    _vnm_wgmma(
        "both consumers stage in one place",
        "Tile::kRingBytes + consumer * Tile::kSumsBytes",
        "Tile::kRingBytes",
        file=WGMMA,
    ),
    _vnm_wgmma("all parts are the first", "sums[part * 32 + e]", "sums[e]", file=WGMMA),
    _vnm_wgmma("weights of channels past n are read", "(n_block < last ? n_block : last)", "n_block"),
    _vnm_wgmma("one selector for both spans", "wgmma_sparse<T, 1, ", "wgmma_sparse<T, 0, "),
    _vnm_wgmma("both spans take the same inputs", "tokens + gathered::sm90::rows_on(32)", "tokens"),
    _vnm_wgmma("the warps have the same slice", " * kBlockSlices + slice;", " * kBlockSlices;"),
    # picked from whole tiles
    _picked("no wait for a window", "      ptx::mbarrier_wait(&full[at.stage], at.phase);\n"),
    _picked("no wait for an empty stage", "        ptx::mbarrier_wait(&empty[at.stage], at.phase ^ 1);\n"),
    _picked("the producer waits for the wrong phase", "at.phase ^ 1);", "at.phase);"),
    _picked(
        "consumers wait for the wrong phase", "&full[at.stage], at.phase);", "&full[at.stage], at.phase ^ 1);"
    ),
    _picked("phases do not alternate", "    phase ^= 1;\n"),
    _picked("the ring is a stage longer", "if (++stage < stages) return;", "if (++stage <= stages) return;"),
    _picked(
        "the window in use is given back",
        "give_back(&empty[read], lane)",
        "give_back(&empty[at.stage], lane)",
    ),
    _picked("windows are not given back", "if (read >= 0) cluster", "if (false) cluster"),
    _picked(
        "windows are given back before they are read",
        "      read = at.stage;\n",
        "      cluster.give_back(&empty[at.stage], lane);\n",
    ),
    _picked(
        "a window is given back twice",
        "if (read >= 0) cluster",
        "if (read >= 0 || at.stage == 0) read = 0, cluster",
    ),
    _picked(
        "one block's arrivals are enough", "Tile::kConsumerWarps * cluster.blocks", "Tile::kConsumerWarps"
    ),
    _picked(
        "half of the consumers is enough", "1, Tile::kConsumerWarps * cl", "1, Tile::kConsumerWarps / 2 * cl"
    ),
    _picked(
        "an arrival too many is asked for", "* cluster.blocks);\n    ptx", "* cluster.blocks + 1);\n    ptx"
    ),
    _picked("barriers are not made known to the copy engine", "    ptx::fence_mbarrier_init();\n"),
    _picked("barriers are used before they are initialised", "  cluster.meet();\n", place=0),
    _picked("a block ends while the other copies into it", "  if (cluster.blocks > 1) cluster.meet();\n"),
    _picked(
        "fewer bytes are expected than come",
        "expect_bytes(&full[at.stage], window_bytes(args.group))",
        "expect_bytes(&full[at.stage], window_bytes(args.group) / 2)",
    ),
    _picked(
        "both halves hold the first tokens",
        "static_cast<int32_t>(work.token) + half * kHalfTokens",
        "static_cast<int32_t>(work.token)",
    ),
    _picked("both spans bring the first window", "(2 * k_block + span) * inputs", "(2 * k_block) * inputs"),
    _picked("both blocks copy the first part", "inputs + first_input};", "inputs};"),
    _picked("a part lies where the other does", "(half * inputs + first_input) * k", "(half * inputs) * k"),
    _picked("both halves lie in one place", "(half * inputs + first_input) * k", "(first_input) * k"),
    _picked(
        "windows lie one stage on",
        "Tile::kRing + at.stage * window_bytes(args.group);\n#",
        "Tile::kRing + (at.stage + 1) % stages * window_bytes(args.group);\n#",
    ),
    _picked("a part is copied to its own block alone", "(1 << blocks) - 1", "1 << rank", file=CLUSTER),
    _picked(
        "a stage is given back to one block alone",
        "if (lane < blocks) ptx",
        "if (lane == 0) ptx",
        file=CLUSTER,
    ),
    _picked(
        "both blocks make the same channels",
        "cluster.blocks + cluster.rank) * channels",
        "cluster.blocks) * channels",
        file=CLUSTER,
    ),
    _picked(
        "all token tiles are the first",
        "(group * kGroup + in_group % width)",
        "(group * kGroup)",
        file=CLUSTER,
    ),
    _picked("all channel tiles are the first", "(in_group / width)", "(0 * in_group / width)", file=CLUSTER),
    _picked(
        "works are left out by the producer",
        "index = cluster.work_after(index, works)",
        "index += 2 * cluster.count()",
        place=0,
    ),
    _picked(
        "works are left out by the consumers",
        "index = cluster.work_after(index, works)",
        "index += 2 * cluster.count()",
        place=1,
    ),
    _picked(
        "every work begins with the first block",
        "k_block = static_cast<int>(work.range.first);",
        "k_block = 0;",
    ),
    _picked("weights past the last block's are asked for", "n_block + i < n_blocks; ++i", "true; ++i"),
    _picked(
        "values past the last block of inputs are asked for",
        "(n_block + i) * args.k_blocks + k_block;\n",
        "(n_block + i) * args.k_blocks + k_block + 1;\n",
    ),
    _picked("weights of channels past n are read", "channel / kSliceChannels < slices ? ", "true ? "),
    _picked("picks of channels past n are read", "(channel < last ? channel : last)", "channel"),
    _picked("every run has the first run's picks", "run * args.weight.picked + k", "0 * run + k"),
    _picked(
        "picks begin anew with every split",
        "args.weight.picked + k_block * kBlockInputs + lane;",
        "args.weight.picked + lane;",
    ),
    _picked(
        "the list of a split ends later",
        "args.weight.picked - k_block * kBlockInputs) - lane",
        "args.weight.picked) - lane",
    ),
    _picked(
        "places past the picks are read",
        "span * kSpan < left ? picks[span * kSpan] : kNoColumn",
        "picks[span * kSpan]",
    ),
    _picked("lanes take the same pick", "k_block * kBlockInputs + lane;", "k_block * kBlockInputs;"),
    _picked("both spans have the same picks", "picks[span * kSpan]", "picks[0]"),
    _picked("both spans have the same values", "slice * kSliceVectors + span * 32", "slice * kSliceVectors"),
    _picked("the slices of a block are its first", "* kBlockSlices + slice % kBlockSlices", "* kBlockSlices"),
    _picked(
        "blocks of inputs follow those of channels",
        "(slice / kBlockSlices * args.k_blocks + k_block)",
        "(slice / kBlockSlices + k_block)",
    ),
    _picked("metadata of the next slice", "metadata[slice * 32];", "metadata[(slice + 1) % kSlices * 32];"),
    _picked("metadata stays at the first block", "    metadata += kBlockSlices * 32;\n"),
    _picked("values stay at the first block", "    values += kBlockSlices * kSliceVectors;\n"),
    _picked("picks stay at the first block", "    picks += kBlockInputs;\n"),
    _picked("the list never ends", "    left -= kBlockInputs;\n"),
    _picked("one selector for both spans", "mma_sparse<T, kSelector>", "mma_sparse<T, 0>"),
    _picked("weights past the last block are loaded", "      if (left > 1) {\n", "      {\n"),
    _picked(
        "the second span's weights are the next block's",
        "      weights.load(spans[1], 1);\n      multiply(std::integral_constant<int, 0>());\n",
        "      multiply(std::integral_constant<int, 0>());\n",
    ),
    _picked("metadata of the block before", "        weights.load_metadata(next_metadata);\n"),
    _picked(
        "metadata is overwritten while it is in use",
        "        weights.load_metadata(next_metadata);\n",
        "        weights.load_metadata(metadata);\n",
    ),
    _picked(
        "the next work begins with weights of this one",
        "    if (const int next = cluster.work_after(index, works); next < works) load_first(next);\n",
    ),
    _picked(
        "a pick outside of its window is read",
        "const bool exists = input < static_cast<uint32_t>(inputs);",
        "const bool exists = true;",
    ),
    _picked(
        "a missing pick reads the first input",
        "                                  : Tile::kZeros;",
        "                                  : Tile::kRing;",
    ),
    _picked("the zeros are not written", "  if (threadIdx.x < kPickedRowBytes / 4) ptx", "  if (false) ptx"),
    _picked(
        "half of the zeros are written",
        "threadIdx.x < kPickedRowBytes / 4)",
        "threadIdx.x < kPickedRowBytes / 8)",
    ),
    _picked("all warps read the first tokens", "warp_token / kHalfTokens * half_bytes", "0 * half_bytes"),
    _picked("warps of 128 tokens read the first half twice", "row + chunk / 8 * half_bytes", "row"),
    _picked(
        "missing picks have a second half",
        "exists ? inputs * kPickedRowBytes : 0;",
        "inputs * kPickedRowBytes;",
    ),
    _picked(
        "rows are not swizzled",
        "swizzled<Swizzle::k128>(static_cast<int>(input), 0)",
        "input * kPickedRowBytes",
    ),
    _picked("all columns are the first", "^ (chunk % 8 * 16)", "^ (0 * chunk)"),
    _picked("a column's tokens are the next one's", "column + 1);\n#", "column + 2);\n#"),
    _picked("windows do not move on", "      window += inputs;\n"),
    _picked(
        "a split begins at the first window",
        "(2 * work.range.first * inputs)",
        "(0 * work.range.first * inputs)",
    ),
    _picked("no barrier before sums are read", "      __syncwarp();\n      const", "      const"),
    _picked("all parts are the first", "sums[slice][part + column][e]", "sums[slice][column][e]"),
    _picked("tokens past m are stored", " && first_row + row < linear.p.m;", ";"),
    _picked("channels past n are stored", "      if (any)\n"),
    _picked("sums are staged over the zeros", "kZeros = 128, kSums = 256", "kZeros = 128, kSums = 128"),
]

UNCATCHABLE = [
    (
        _picked("warps stage in one place", "Tile::kSums + warp * Tile::kSumsBytes", "Tile::kSums"),
        "a warp meets no other between its stores and its loads, and the emulator changes warps where they meet",
    ),
    (
        _picked(
            "weights of a work past the last are loaded",
            "next < works) load",
            "true) load",
        ),
        "they are those of the last channels, and nothing multiplies them. With as many tokens as eight tiles have the "
        "schedule would divide by the width of a group that is not there",
    ),
    (
        _tiled("turns past the last are loaded", "if (turn < range.last) {", "if (true) {"),
        "they are zeros, copied into places of the ring that nobody reads. On a device they would race with the sums; "
        "here a copy that nobody waits for happens at once or after the sums have been read",
    ),
    (
        _small("turns past the last are loaded", "if (place_in_list(turn) < range.last) {", "if (true) {"),
        "as for many tokens",
    ),
    (
        _small("no warp barrier in the loop", "    __syncwarp();\n"),
        "ldmatrix is itself a meeting of all lanes: none reads before every lane has waited, and none loads again "
        "before all have read. The barrier orders the lanes' memory, of which the emulator has one view",
    ),
    (
        _small(
            "rings of the warps overlap",
            "shared + warp * Tile::kRingBytes",
            "shared + warp * Tile::kStageBytes",
        ),
        "a warp meets no other inside its loop, and the emulator changes warps where they meet",
    ),
]

FAMILY = Family(
    name="gathered",
    support=("cuda/semi_structured/pack.cpp", "cpu/nm_decode/pack.cpp"),
    mutants=tuple(MUTANTS),
    uncatchable=tuple(UNCATCHABLE),
)
