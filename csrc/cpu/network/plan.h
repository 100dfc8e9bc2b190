// Where every value lies while a network runs: one arena, offsets planned once.
//
// A value lives from the step that writes it to the last one that reads it; an input is fetched just before its first
// reader and an output handed over right after its writer, so neither outlives its use. Values whose lives do not meet
// share memory: one after the other is put into the smallest gap that takes it, in the best of a few orders.
// Element-wise steps work in place where nobody needs their operand afterwards. A convolution may overwrite its
// residual, but has to set it aside tile by tile then: it does so where that makes the arena smaller, and not in a
// chain. What the steps of a chain read and write lives as long as the chain.
//
// Planes are whole cache lines apart. A kernel walks the same pixels of many planes, so their distance in lines is odd:
// whatever the tile, the planes then spread evenly over the sets of the level 1 cache. Planes of up to four lines
// follow each other without a gap, which spreads them as well.
#pragma once

#include "cpu/network/bands.h"

namespace sparsecore::network {

constexpr int64_t kArenaSlack = 64;  // readable floats behind the last value

// Elements between the planes of a value; 1 for a vector.
int64_t plane_stride(const Shape& shape);
// Elements that a value takes in the arena.
int64_t arena_elements(const Shape& shape);

// The same for a buffer of `rows` rows of a rolling value (bands.h).
int64_t rolling_stride(const Shape& shape, int64_t rows);
int64_t rolling_elements(const Shape& shape, int64_t rows);

struct Placement {
  int64_t offset = -1;        // in floats, a multiple of kPlaneLanes; -1: nowhere in the arena
  int input = -1;             // the input whose array is read where the caller has it, or -1
  bool hwc = false;           // and holds pixels
  int first = -1, last = -1;  // the steps between which it lives
  int64_t rows = -1;          // of the buffer of a rolling value; -1: all of them
};

struct Plan {
  std::vector<Placement> values;
  int64_t elements = 0;  // of the arena, slack included
};

Plan plan_arena(const Graph& graph, const std::vector<Chain>& chains);

}  // namespace sparsecore::network
