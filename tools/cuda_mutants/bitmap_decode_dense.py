"""Mutants of the kernels between the bitmap and the dense matrix."""

from __future__ import annotations

from cuda_mutants.mutant import Family, Kernel

DENSE = "cuda/bitmap_decode/dense_sm80.cuh"

_dense = Kernel("DENSE", DENSE).mutant

MUTANTS = (
    _dense(
        "parts in front are not counted", "word < first; word += 32) before", "word < 0; word += 32) before"
    ),
    _dense("a lane counts one word in front", "word < first; word += 32", "word < first; word += 100000"),
    _dense("counts in front stay apart", "before += __shfl_xor_sync", "(void)__shfl_xor_sync"),
    _dense(
        "words past the row are read",
        "first + lane < args.words ? bits[first + lane] : 0",
        "bits[first + lane]",
    ),
    _dense("counts are not added up", "if (lane >= distance) through += other;", "(void)other;"),
    _dense("counts of other lanes wrap around", "if (lane >= distance) through", "through"),
    _dense("a word's values begin behind it", "before + through - count", "before + through"),
    _dense("rows begin with the first value", "static_cast<uint32_t>(args.weight.row_ptr[row]) + ", ""),
    _dense("every word is the first", "static_cast<uint32_t>(own), word)", "static_cast<uint32_t>(own), 0)"),
    _dense("every word's upper half is the first's", "(own >> 32), word)", "(own >> 32), 0)"),
    _dense("every word's values are the first's", "own_place, word)", "own_place, 0)"),
    _dense("a lane counts its own bit", "(1u << lane) - 1", "(2u << lane) - 1"),
    _dense(
        "the lower half's bits are not passed", "__popc(low) + __popc(high & below)", "__popc(high & below)"
    ),
    _dense("both halves are the lower", "visit(column + 32, high", "visit(column, high"),
    _dense("bits of the lower half twice", "high >> lane & 1", "low >> lane & 1"),
    _dense("parts are 31 words", "word < kPartWords", "word < kPartWords - 1"),
    _dense("rows past n are visited", "return *row < args.n;", "return true;"),
    _dense("columns past k are stored", "if (column < args.k) dense", "dense"),
    _dense(
        "values past the last are read", "kept && place < args.weight.nnz ? converted", "kept ? converted"
    ),
    _dense(
        "weights that are not kept are stored",
        "kept && place < args.weight.nnz ?",
        "place < args.weight.nnz ?",
    ),
    _dense("columns past k are taken", "kept && column < args.k && place", "kept && place"),
    _dense(
        "values past the last are stored", "column < args.k && place < args.weight.nnz)", "column < args.k)"
    ),
    _dense("columns that are not kept are taken", "if (kept && column", "if (column"),
)

# Harmless on the emulator, and why it stands in the source all the same.
UNCATCHABLE = (
    (
        _dense("words past the row are visited", " && first + word < args.words"),
        "their columns lie past k, which every visitor leaves out: the bound saves the time",
    ),
)

FAMILY = Family(
    "bitmap_decode_dense",
    support=(
        "cpu/bitmap_decode/pack.cpp",
        "cuda/semi_structured/pack.cpp",
        "cuda/semi_structured/window_lift.cpp",
        "cpu/nm_decode/pack.cpp",
    ),
    mutants=MUTANTS,
    uncatchable=UNCATCHABLE,
)
