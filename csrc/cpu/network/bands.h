// Chains of steps that run band by band: a few rows of an image go through all steps of a chain before the next rows
// do, so that what lies between the steps stays in the level 2 cache and never needs memory as a whole.
//
// Between two steps of a chain lies a rolling value: a buffer of the few rows that the later step still reads. Before
// new rows are written behind the kept ones, the kept ones move to the front. Every output has the bits
// that a run of whole steps gives.
//
// Several threads share a chain by parts of its last value's rows. Each part has its own buffers and computes the rows
// it needs beyond its borders again, so that parts never wait for each other; a row has the same bits whoever computes
// it.
//
// Steps are joined where what lies between them is too large for the cache, has one reader and is no output, but not
// before a convolution that does better to overwrite its residual.
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
  int first = 0, last = 0;     // steps; every step but the last writes a rolling value
  int64_t rows = 0;            // of the last value, in one band
  std::vector<int64_t> roofs;  // rows that the buffer of each rolling value holds, by step
};

// The shares of every step, band by band, that give rows [begin, end) of the last value.
using Bands = std::vector<std::vector<Share>>;
Bands cut_bands(const Graph& graph, const Chain& chain, int64_t begin, int64_t end);

// In the order of their steps.
std::vector<Chain> find_chains(const Graph& graph);

// Rows [begin, end) of what a window reads for rows [begin, end) of its output.
struct Rows {
  int64_t begin, end;
};
Rows rows_read(const Window& window, int64_t begin, int64_t end);

}  // namespace sparsecore::network
