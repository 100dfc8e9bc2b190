"""Mutants of the checks of loaded weights."""

from __future__ import annotations

from cuda_mutants.mutant import Family, Kernel

FAULTS = "cuda/linear/faults.cuh"

_shared = Kernel("SHARED", "cuda/shared_lists/validate_sm80.cuh").mutant
_groups = Kernel("GROUPS", "cuda/group_lists/validate_sm80.cuh").mutant
_bitmap = Kernel("BITMAP", "cuda/bitmap_decode/validate_sm80.cuh").mutant
_fault = Kernel("SHARED", FAULTS).mutant

MUTANTS = [
    # the first fault of a block
    _fault("no barrier between rounds of comparison", "    __syncthreads();\n"),
    _fault("half of the threads are not asked", "half = kValidateThreads / 2", "half = kValidateThreads / 4"),
    _fault("the last fault is named", "first = fault < first ? fault : first", "first = fault"),
    _fault("other threads' faults are not taken", "if (other < mine) mine = other;"),
    _fault("the high word is lost", "static_cast<uint64_t>(words.y) << 32 | words.x", "words.x"),
    _fault("places come before stages", "stage << 33 | place << 2 | kind", "place << 33 | stage << 2 | kind"),
    _fault("no fault is one", "where[1] = first == kNoFault ? -1 : ", "where[1] = "),
    _fault("every fault is of the starts", "(first & 3) +", "0 +"),
    _fault("bisection passes the record", "starts[first + half] < record", "starts[first + half] <= record"),
    _fault("bisection stops early", "while (count > 0)", "while (count > 1)"),
    _fault("every record begins a list", "return starts[first] == record;", "return true;"),
    _fault("no record begins a list", "return starts[first] == record;", "return false;"),
    # shared lists
    _shared("starts may begin anywhere", "(g == 0 && start != 0) || "),
    _shared("starts may descend", "start > next || "),
    _shared("starts may end anywhere", " || (g == args.groups && start != next)"),
    _shared("the last start is not looked at", "g <= args.groups;", "g < args.groups;"),
    _shared("a column past the end", "column >= args.k", "column > args.k"),
    _shared("columns may repeat", "weight.columns[r - 1] >= column", "weight.columns[r - 1] > column"),
    _shared(
        "lists may not begin low",
        "weight.columns[r - 1] >= column &&\n",
        "weight.columns[r - 1] >= column || \n",
    ),
    _shared(
        "the first records alone",
        "r < weight.records; r += kValidateThreads",
        "r < 64; r += kValidateThreads",
    ),
    # group lists
    _groups("starts may begin anywhere", "(i == 0 && start != 0) || "),
    _groups("starts may descend", "next < start || "),
    _groups("lists may be longer than panels", " || next - start > longest"),
    _groups(
        "panels need not follow one another", "place < groups ? blocks_of(panel) : 0", "blocks_of(panel)"
    ),
    _groups(
        "the last start may be anywhere",
        "i + 1 < starts ? w.starts[i + 1] : w.records",
        "w.starts[i + 1 < starts ? i + 1 : i]",
    ),
    _groups("the last panel is as wide as others", "panel < panels - 1 ?", "true ?"),
    _groups("starts of panels in any order", "faults.add(2 * panel, 0,", "faults.add(0, 0,"),
    _groups("order may leave its window", "order[place] >= width", "order[place] > width"),
    _groups(
        "the last window is as wide as others",
        "groups - first < w.window ? groups - first : w.window",
        "w.window",
    ),
    _groups("groups may have two places", "order[before] == order[place]", "false"),
    _groups("only the neighbour is compared", "taken = taken || order", "taken = order"),
    _groups("windows are not apart", "place / w.window * w.window", "place / (2 * w.window) * w.window"),
    _groups("order of another panel", "w.order + panel * groups", "w.order"),
    _groups("indices of 16 bits are read as 8", "lists.wide ?", "false ?"),
    _groups("indices past the last panel's end", "r < of_last_panel ?", "true ?"),
    _groups("a block too many", "block >= (r", "block > (r"),
    _groups("blocks may repeat", "index(r - 1) < block", "index(r - 1) <= block"),
    _groups(
        "lists of the last panel begin nowhere",
        "list_begins(w.starts, starts - 1, r)",
        "list_begins(w.starts, groups, r)",
    ),
    _groups("records of the first panel", "if (w.starts[middle * (groups + 1)] <= r) {", "if (false) {"),
    _groups("padding may be anything", "index(w.records) != 0", "false"),
    _groups("records without panels", "panels == 0 && w.records != 0", "false"),
    _groups(
        "the kind of fault is lost", "outside ? Status::kBadIndex : Status::kUnsorted", "Status::kUnsorted"
    ),
    # bitmaps
    _bitmap("starts may begin anywhere", "weight.row_ptr[0] != 0 || "),
    _bitmap("starts may end anywhere", " || weight.row_ptr[args.n] != weight.nnz"),
    _bitmap("bits past the end", "bits[words - 1] & beyond", "false"),
    _bitmap("every last word is cut", "args.k % kWordColumns ? ~uint64_t{0}", "true ? ~uint64_t{0}"),
    _bitmap("bits are not counted", "stored != count", "false"),
    _bitmap("a lane's bits alone", "count = __reduce_add_sync(0xffffffffu, count);"),
    _bitmap("the first words alone", "w < words; w += 32", "w < words; w += 64"),
    _bitmap("rows of the first warps alone", "row += kValidateThreads / 32", "row += kValidateThreads"),
    _bitmap(
        "starts that descend are a wrong count", "if (stored < 0) faults.add(0, 0, Status::kBadPointers);"
    ),
]

FAMILY = Family(
    name="validate",
    support=(
        "cpu/bitmap_decode/pack.cpp",
        "cpu/crew.cpp",
        "cpu/group_lists/pack.cpp",
        "cpu/nm_decode/pack.cpp",
        "cpu/parallel.cpp",
        "cpu/shared_lists/pack.cpp",
    ),
    mutants=tuple(MUTANTS),
    uncatchable=(),
)
