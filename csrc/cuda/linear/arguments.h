// What the kernels of all weight formats are given of the dense side, and the units they count in.
#pragma once

#include <cstdint>

#include "cuda/common/elements.h"
#include "sparsecore/linear_cuda.h"

namespace sparsecore::cuda_linear {

constexpr int kRowBytes = 128;               // of a row of x, what one block of inputs covers
constexpr int kTurnColumns = kRowBytes / 2;  // and as many inputs of 16 bits

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Arguments {
  DeviceLinear p;
  int32_t splits = 1, token_tiles = 0, channel_tiles = 0;
  bool x_vectors = false;  // every row of x begins at a multiple of 16 bytes
  bool y_vectors = false;  // and of y, and of the residual
};

// Partial sums: [splits, m, padded_channels(n)], float or int32.
constexpr int64_t padded_channels(int64_t n) { return ceil_div(n, 8) * 8; }
constexpr int64_t partial_sum_bytes(int splits, int64_t m, int64_t n) {
  return splits > 1 ? splits * m * padded_channels(n) * 4 : 0;
}

// The work of a persistent block after this one, or `works` where there is none: index + step may be past 2^31 - 1.
constexpr int work_after(int index, int step, int works) { return step < works - index ? index + step : works; }

// Blocks of inputs [first, last) of one split.
struct BlockRange {
  int64_t first, last;
};
constexpr BlockRange split_range(int64_t k_blocks, int split, int splits) {
  return {k_blocks * split / splits, k_blocks * (split + 1) / splits};
}

}  // namespace sparsecore::cuda_linear
