"""Mutants of group lists."""

from __future__ import annotations

from cuda_mutants.mutant import Family, Kernel

LISTS = "cuda/group_lists/lists.cuh"

_linear = Kernel("LINEAR", "cuda/group_lists/linear_sm80.cuh").mutant
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
    _linear("rows of a record are all the first", "walk.group * rows + r,", "walk.group * rows,"),
    _linear(
        "x of the panel's first turn for all", "turn % lists.panel_turns * cuda_linear::kTurnColumns +", "0 +"
    ),
    _linear(
        "x of the split's first panel for all", "panels.first + turn / lists.panel_turns", "panels.first"
    ),
    _lists("starts below zero are followed", "at < 0 ? 0 : ", place=0),
    _lists("starts past the end are followed", "at > records ? records : at", "at"),
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
    _lists("columns of blocks are not widened", "return index * lists.weight.cols;", "return index;"),
    # gradients
    _grad("no barrier after lists are emptied", "  __syncthreads();\n", place=0),
    _grad("columns of records in front of the turn", "column < begin || ", ""),
    _grad("columns past the turn", " || column >= begin + cuda_linear::kTurnColumns"),
    _grad("rows of a record are all the first", "walk.group * weight.rows + r;", "walk.group * weight.rows;"),
    _grad("columns of a record are all the first", "column - begin + c", "column - begin"),
    _grad("the padding record is not written", "if (blockIdx.x == 0 && blockIdx.y == 0)", "if (false)"),
    _grad("every panel is the first", "static_cast<int64_t>(panel) * weight.depth + begin", "begin"),
    _grad("lists of the first tile", "static_cast<int32_t>(channel / weight.rows), thread", "0, thread"),
    _grad("lists lie in the stages", "kGradListsOffset = GradTile::kSharedBytes", "kGradListsOffset = 0"),
]

UNCATCHABLE = [
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
