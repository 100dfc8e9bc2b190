// Chains of steps that run band by band: a few rows of an image go through all steps of a chain before the next rows
// do, so that what lies between the steps stays in the level 2 cache and never needs memory as a whole.
//
// Between two steps of a chain lies a rolling value: a buffer of the few rows that the later step still reads. Before
// new rows are written behind the kept ones, the kept ones move to the front. Nothing is computed twice, and every
// output has the bits that a run of whole steps gives.
//
// Steps are joined where what lies between them is too large for the cache, has one reader and is no output.
#pragma once

#include <vector>

#include "cpu/network/graph.h"

namespace sparsecore::network {

// A step's share of a band.
struct Share {
  int64_t kept = 0;            // first row that the reader of the value still wants; the buffer begins there
  int64_t begin = 0, end = 0;  // new rows
};

struct Chain {
  int first = 0, last = 0;                // steps; every step but the last writes a rolling value
  std::vector<int64_t> roofs;             // rows that the buffer of each rolling value holds, by step
  std::vector<std::vector<Share>> bands;  // by step
};

// In the order of their steps.
std::vector<Chain> find_chains(const Graph& graph);

// Rows [begin, end) of what a window reads for rows [begin, end) of its output.
struct Rows {
  int64_t begin, end;
};
Rows rows_read(const Window& window, int64_t begin, int64_t end);

}  // namespace sparsecore::network
