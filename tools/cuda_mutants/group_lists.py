"""Mutants of group lists."""

from __future__ import annotations

from cuda_mutants.mutant import Family, Kernel

LISTS = "cuda/group_lists/lists.cuh"

_linear = Kernel("LINEAR", "cuda/group_lists/linear_sm80.cuh").mutant
_small = Kernel("SMALL", "cuda/group_lists/linear_small_sm80.cuh").mutant
_lists = Kernel("LINEAR", LISTS).mutant
_grad = Kernel("GRAD", "cuda/group_lists/weight_grad_sm80.cuh").mutant

MUTANTS = [
    # the product
    _linear("no wait for copies", "ptx::cp_async_wait<Tile::kStages - 2>();"),
    _linear("copies are not committed", "    ptx::cp_async_commit();\n"),
    _linear("no barrier after lists are emptied", "__syncthreads();", place=0),
    _linear("no barrier after lists are found", "__syncthreads();", place=1),
    _linear("no barrier in the loop", "__syncthreads();", place=2),
    _linear(
        "the next weights are made before the barrier",
        "    __syncthreads();\n    load_stage(turn + Tile::kStages - 1);\n    expand(turn + 1);",
        "    expand(turn + 1);\n    __syncthreads();\n    load_stage(turn + Tile::kStages - 1);",
    ),
    _linear(
        "one tile of weights", "Tile::kWeights + turn % 2 * Tile::kWeightBytes", "Tile::kWeights", place=0
    ),
    _linear("lists of two panels in one place", "found + panel_of_split % 2 * kTileChannels", "found"),
    _linear("the lists of the next panel are not found", "      find(panel_of_split + 1);\n"),
    _linear("lists are not taken anew", "if (works) walk.left =", "if (works && turn == 0) walk.left ="),
    _linear("rows are not made zero", "chunk < rows * 8;", "chunk < 0;"),
    _linear("only some of a row is made zero", "chunk < rows * 8;", "chunk < rows * 7;"),
    _linear("columns of records in front of the turn", "column < begin || ", ""),
    _linear("columns are not counted from the turn", "2 * (column - begin + c)", "2 * (column + c)"),
    _linear("columns of a record are all the first", "column - begin + c", "column - begin"),
    _linear("row vectors are copied by elements", "      if (run_bits) {", "      if (false) {"),
    _linear(
        "every record has vectors",
        "args.row_vectors ? 3 : 0;",
        "lists.row_bits + lists.column_bits < 3 ? 0 : 3;",
    ),
    _lists("runs of a record are all the first", "- 1)) << run_bits;", "- 1)) * 0;"),
    _lists("runs are counted as elements", "+ lists.column_bits - run_bits;", "+ lists.column_bits;"),
    _linear("rows of a record are all the first", "walk.group * rows + r,", "walk.group * rows,"),
    _linear(
        "x of the panel's first turn for all", "turn % lists.panel_turns * cuda_linear::kTurnColumns +", "0 +"
    ),
    _linear(
        "x of the split's first panel for all", "panels.first + turn / lists.panel_turns", "panels.first"
    ),
    _lists("starts below zero are followed", "at < 0 ? 0 : ", place=0),
    _lists("starts past the end are followed", "at > records ? records : at", "at"),
    _lists("elements are all the first record's", "left.first + (e >> record_bits)", "left.first"),
    _lists("elements are counted through all records", "e & ((1 << record_bits) - 1)", "e"),
    _lists("a record has one column", "element >> lists.row_bits", "0"),
    _lists("a record has one row", "element & (lists.weight.rows - 1)", "0"),
    _lists(
        "places past the window are not looked at",
        "/ w.window * w.window + w.window",
        "/ w.window * w.window",
    ),
    _lists("places past the last are looked at", "at < place_end && at < lists.groups", "at < place_end"),
    _lists("groups of the tile's end are left out", "of_place < group_end", "of_place + 1 < group_end"),
    _lists("groups in front of the tile are written", "of_place >= group && "),
    _lists("groups behind the tile are written", " && of_place < group_end"),
    _lists("places are groups", "/ w.window * w.window + order[at]", "/ w.window * w.window + at % w.window"),
    _lists("records past the list are taken", "record < left.last && "),
    _lists("a record too many", "column(lists, record) < end", "column(lists, record) <= end"),
    _lists("records of other teams are counted", " & team);", ");"),
    _lists("one round for every list", "count == team_lanes);", "false);"),
    _lists("a record is skipped", "left.first += count;", "left.first += count + 1;"),
    _lists("indices of 16 bits are read as 8", "lists.wide ?", "false ?"),
    _lists("columns of blocks are not widened", "return index << lists.column_bits;", "return index;"),
    # few tokens
    _small("no wait for copies", "      ptx::cp_async_wait<Tile::kStages - 2>();\n"),
    _small(
        "waits for one copy too few", "cp_async_wait<Tile::kStages - 2>", "cp_async_wait<Tile::kStages - 1>"
    ),
    _small("copies are not committed", "      ptx::cp_async_commit();\n"),
    _small(
        "no barrier before a span", "    __syncthreads();  // everybody is done", "    // everybody is done"
    ),
    _small(
        "no barrier after x and lists are there", "    __syncthreads();\n\n    PieceWalk", "    PieceWalk"
    ),
    _small("lists are emptied beside their finding", "      __syncwarp();\n"),
    _small(
        "no barrier before sums overwrite rings", "  __syncthreads();\n  const int part", "  const int part"
    ),
    _small(
        "no barrier before sums are read",
        "  __syncthreads();\n  cuda_linear::finish_warp_sums",
        "  cuda_linear::finish_warp_sums",
    ),
    _small(
        "every piece goes to one place",
        "copy_next(stage == 0 ? Tile::kStages - 1 : stage - 1)",
        "copy_next(0)",
    ),
    _small("the ring is not gone round", "stage == Tile::kStages - 1 ? 0 : stage + 1", "stage"),
    _small(
        "threads share a place of values",
        "shared + Tile::kValues + (stage * Tile::kThreads + thread)",
        "shared + Tile::kValues + (stage * Tile::kThreads)",
    ),
    _small("values are copied past their end", "value_end - value, args", "16, args"),
    _small(
        "indices are copied past their end",
        "? copy_once<2 * Tile::kWindow>(from, index_end - index,",
        "? copy_once<2 * Tile::kWindow>(from, 16,",
    ),
    _small(
        "8-bit indices are copied past their end",
        ": copy_once<Tile::kWindow>(from, index_end - index,",
        ": copy_once<Tile::kWindow>(from, 16,",
    ),
    _small(
        "parts of words are copied as they are",
        "valid == 16 ? ptx::cp_async_hinted",
        "valid > 0 ? ptx::cp_async_hinted",
    ),
    _small("bytes of unaligned lists are all the first", "from[i + byte]))", "from[i]))"),
    _small("unaligned lists are vectors", "  if (vectors) {", "  if (true) {"),
    _small("slices are all the first", "+ slice * 16;", ";"),
    _small("sums of slices overlap", "group * weight.rows + slice * kRows + r", "group * weight.rows + r"),
    _small("shares of a list take the same pieces", "    piece_ = list_share_.number;", "    piece_ = 0;"),
    _small("shares of the panels take the same", "panel_(of_panels.number)", "panel_(0)"),
    _small("every group is the first", "found_(found + group)", "found_(found)"),
    _small("the next piece is another share's", "piece_ += list_share_.shares;", "piece_ += 1;"),
    _small(
        "a list ends a piece early",
        "panel_ < panels_ && piece_ >= pieces_",
        "panel_ < panels_ && piece_ + 1 >= pieces_",
    ),
    _small("panels are not left out", "panel_ += panel_shares_;", "panel_ += 1;"),
    _small(
        "lists begin with their first piece",
        "lead_ = static_cast<int>(first % Tile::kColumns);",
        "lead_ = 0;",
    ),
    _small(
        "columns in front of the list are taken",
        "piece_ * Tile::kColumns - lead_ + i)",
        "piece_ * Tile::kColumns + i)",
    ),
    _small(
        "columns of other lists are taken",
        "const bool kept = at.has(i) && column",
        "const bool kept = column",
    ),
    _small("columns outside of the panel are taken", "at.has(i) && column < weight.depth", "at.has(i)"),
    _small(
        "weights that are not the list's count",
        "kept ? weights[i * kRows + r] : 0.0f",
        "weights[i * kRows + r]",
    ),
    _small(
        "the zero column is not written",
        "Tile::kSpanColumns * Tile::kColumnBytes + 4 * i, 0);",
        "Tile::kSpanColumns * Tile::kColumnBytes + 4 * i, 0xffffffff);",
    ),
    _small("panels of a span are all the first", "at.panel() * weight.depth;", "0;"),
    _small(
        "the span's x is the first's", "token, span * weight.depth,", "token, panels.first * weight.depth,"
    ),
    _small(
        "the span's lists are the first's",
        "static_cast<int32_t>(span) + panel,",
        "static_cast<int32_t>(panels.first) + panel,",
    ),
    _small(
        "windows of indices begin with the piece",
        "/ Tile::kWindow * Tile::kWindow * index_bytes",
        "* index_bytes",
    ),
    _small(
        "records are all the first", ">> lists.column_bits) % Tile::kWindow;", ">> lists.column_bits) * 0;"
    ),
    _small(
        "windows have four records", "const uint32_t low = record & 4 ?", "const uint32_t low = record & 8 ?"
    ),
    _small(
        "indices of odd records are even ones'", "0x10 + 0x22 * (record & 3)", "0x10 + 0x22 * (record & 2)"
    ),
    _small("columns of blocks are not widened", "(block << lists.column_bits) +", "block +"),
    _small("columns of a block are all the first", "& (weight.cols - 1u))", "& 0u)"),
    _small("indices of 16 bits are read as 8", "  if (wide) {", "  if (false) {"),
    _small(
        "odd columns of x are even ones", "__byte_perm(even, odd, 0x7632)", "__byte_perm(even, odd, 0x5410)"
    ),
    _small("odd tokens are even ones", "token_pair(args, token + t + 1,", "token_pair(args, token + t,"),
    _small("tokens past m are read", "token >= args.p.m || column", "column"),
    _small("columns past k are read", "token >= args.p.m || column >= args.p.k", "token >= args.p.m"),
    _small("pairs past k are read", "const bool both = column + 1 < args.p.k;", "const bool both = true;"),
    _small("x is loaded as pairs wherever it begins", "if (args.x_vectors && both)", "if (both)"),
    _small(
        "columns are looked for in their order", "column, !decltype(single_columns)::value)", "column, false)"
    ),
    _small("columns of single weights change places", "weight.cols > 1, keep", "true, keep"),
    _small("neighbours that change places are not exchanged", "if (place % 2) {", "if (false) {"),
    _small(
        "neighbours that change places lie one place on",
        "place / 2 * 4 * kTokens",
        "(place / 2 + place % 2) * 4 * kTokens",
    ),
    _small("half of the columns are loaded", "i += 2 * kThreads", "i += 4 * kThreads"),
    _small("the first token tile for all", "blockIdx.x % args.token_tiles) * kTokens", "0) * kTokens"),
    # gradients
    _grad("no barrier after lists are emptied", "  __syncthreads();\n", place=0),
    _grad("columns of records in front of the turn", "column < begin || ", ""),
    _grad("columns past the turn", " || column >= begin + cuda_linear::kTurnColumns"),
    _grad("rows of a record are all the first", "walk.group * weight.rows + r;", "walk.group * weight.rows;"),
    _grad("columns of a record are all the first", "column - begin + c", "column - begin"),
    _grad("the padding record is not written", "if (blockIdx.x == 0 && blockIdx.y == 0)", "if (false)"),
    _grad("every panel is the first", "static_cast<int64_t>(panel) * weight.depth + begin", "begin"),
    _grad(
        "lists of the first tile",
        "static_cast<int32_t>(channel / weight.rows), kTileChannels",
        "0, kTileChannels",
    ),
    _grad("lists lie in the stages", "kGradListsOffset = GradTile::kSharedBytes", "kGradListsOffset = 0"),
]

UNCATCHABLE = [
    (
        _small(
            "threads share a place of indices",
            "shared + Tile::kIndices + (stage * Tile::kThreads + thread)",
            "shared + Tile::kIndices + (stage * Tile::kThreads)",
        ),
        "no thread waits for another one within a span, so the emulator runs each to its end before the next begins",
    ),
    (
        _small(
            "damaged lists are as long as they say",
            "list.last - list.first < most ? list.last - list.first : most",
            "list.last - list.first",
        ),
        "records past the list's own are the weight's as well; a damaged list only takes longer, and more columns than "
        "an int holds take a weight of gigabytes",
    ),
    (
        _small("lists are not emptied", "of_panel[i] = {0, 0};", ";"),
        "what shared memory holds before is one word everywhere on the emulator, and so an empty list; only groups "
        "outside of the matrix, and those that a damaged order leaves out, keep it",
    ),
    (
        _linear(
            "panels past the last are looked for",
            "if (panels.first + panel_of_split < panels.last)",
            "if (true)",
        ),
        "the order behind the last panel's is read, which the emulator does not see; nobody takes these lists",
    ),
    (
        _linear("turns past the last are expanded", "    if (turn >= turns) return;\n"),
        "the weights of one turn more are made, in the tile that nobody reads any more",
    ),
]

FAMILY = Family(name="group_lists", support=(), mutants=tuple(MUTANTS), uncatchable=tuple(UNCATCHABLE))
