// The loops over lists, compiled by the AVX2 and the AVX-512 file, each with its own registers.
//
// A tile is V rows of a group x W registers of pixels: V * W sums stay in registers while a list passes. A record costs
// W loads from x and V broadcast weights for its V * W products. Groups of more rows than V pass their list again. With
// one row there are two sets of sums, for even and odd records, added at the end: few chains of additions would show
// their latency.
#pragma once

#include <immintrin.h>

#include "cpu/group_lists/group_lists.h"

#define SPARSECORE_INLINE inline __attribute__((always_inline))

namespace sparsecore::group_lists {
namespace {

// L: lanes of a register; kBytes: indices are uint8 and blocks have one column, which is the fast way.
template <typename L, int V, int W, bool kBytes>
struct ListLoop {
  using F = typename L::F;
  static constexpr int kSets = V == 1 && kBytes ? 2 : 1;

  // The last register of a tile may have fewer lanes than the others.
  static SPARSECORE_INLINE F load(const float* p, int w, typename L::Mask last) {
    return w + 1 < W ? L::load(p + w * L::kLanes) : L::load(p + w * L::kLanes, last);
  }

  // One column of one record.
  static SPARSECORE_INLINE void add(const float* values, const float* x, typename L::Mask last, F (&sums)[V][W]) {
    F column[W];
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w) column[w] = load(x, w, last);
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const F value = L::splat(values + v);
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) sums[v][w] = L::madd(value, column[w], sums[v][w]);
    }
  }

  static SPARSECORE_INLINE const float* at(const float* x, int64_t index, int64_t pitch) {
    return reinterpret_cast<const float*>(reinterpret_cast<const char*>(x) + index * pitch);
  }

  // Records [begin, end) of one column each.
  static SPARSECORE_INLINE void add_list(const Tile& tile, const float* values, int64_t begin, int64_t end,
                                         typename L::Mask last, F (&sums)[kSets][V][W]) {
    const uint8_t* index = static_cast<const uint8_t*>(tile.index) + begin;
    const float* x = tile.x;
    const int64_t pitch = tile.x_stride * static_cast<int64_t>(sizeof(float)), rows = tile.rows;
    values += begin * rows;
    constexpr int kUnroll = V * W <= 8 ? 4 : 2;
    int64_t left = end - begin;
    for (; left >= kUnroll; left -= kUnroll, index += kUnroll, values += kUnroll * rows)
#pragma GCC unroll 4
      for (int i = 0; i < kUnroll; ++i) add(values + i * rows, at(x, index[i], pitch), last, sums[i % kSets]);
    if (kUnroll == 4 && (left & 2)) {
      add(values, at(x, index[0], pitch), last, sums[0]);
      add(values + rows, at(x, index[1], pitch), last, sums[1 % kSets]);
      index += 2, values += 2 * rows;
    }
    if (left & 1) add(values, at(x, index[0], pitch), last, sums[0]);
  }

  static SPARSECORE_INLINE void add_blocks(const Tile& tile, const float* values, int64_t begin, int64_t end,
                                           typename L::Mask last, F (&sums)[kSets][V][W]) {
    const int64_t rows = tile.rows, cols = tile.cols, pitch = tile.x_stride * static_cast<int64_t>(sizeof(float));
    const float* value = values + begin * cols * rows;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t block =
          tile.wide_index ? static_cast<const uint16_t*>(tile.index)[i] : static_cast<const uint8_t*>(tile.index)[i];
      const float* x = at(tile.x, block * cols, pitch);
      for (int64_t j = 0; j < cols; ++j, value += rows, x = at(x, 1, pitch)) add(value, x, last, sums[0]);
    }
  }

  static SPARSECORE_INLINE F finished(const Finish& finish, F sum, F scale, F bias, const float* residual, int w,
                                      typename L::Mask last) {
    sum = L::add(L::mul(sum, scale), bias);
    if (residual) sum = L::add(sum, load(residual, w, last));
    if (finish.hard_swish) {
      const F gate = L::min(L::splat(6.0f), L::max(L::splat(0.0f), L::add(sum, L::splat(3.0f))));
      return L::mul(L::mul(sum, gate), L::splat(1.0f / 6.0f));
    }
    // The bound is the first operand, so that a NaN in the sum passes.
    return L::min(L::splat(finish.high), L::max(L::splat(finish.low), sum));
  }

  static SPARSECORE_INLINE void store(const Tile& tile, int64_t channel, float* out, typename L::Mask last,
                                      const F (&sums)[W]) {
    const Finish* finish = tile.finish;
    if (!finish) {
#pragma GCC unroll 8
      for (int w = 0; w < W; ++w) L::store(out + w * L::kLanes, sums[w], w + 1 < W ? L::all() : last);
      return;
    }
    const F scale = L::splat(finish->scale ? finish->scale[channel] : 1.0f),
            bias = L::splat(finish->bias ? finish->bias[channel] : 0.0f);
    const float* residual = finish->residual ? finish->residual + channel * finish->residual_stride : nullptr;
#pragma GCC unroll 8
    for (int w = 0; w < W; ++w)
      L::store(out + w * L::kLanes, finished(*finish, sums[w], scale, bias, residual, w, last),
               w + 1 < W ? L::all() : last);
  }

  static void run(const Tile& tile) {
    const typename L::Mask last = L::first(tile.lanes - (W - 1) * L::kLanes);
    const int64_t base = tile.starts[0];
    for (int64_t p = 0; p < tile.places; ++p) {
      const int64_t begin = tile.starts[p] - base, end = tile.starts[p + 1] - base;
      for (int part = 0; part < tile.rows; part += V) {
        const int64_t channel = tile.order[p] * int64_t{tile.rows} + part;
        const int64_t present = tile.channels - channel < V ? tile.channels - channel : V;
        float* out = tile.sums + channel * tile.sums_stride;
        F sums[kSets][V][W];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v)
#pragma GCC unroll 8
          for (int w = 0; w < W; ++w) {
            sums[0][v][w] = L::zero();
            if (kSets == 2) sums[kSets - 1][v][w] = L::zero();
          }
        if (tile.accumulate) {
#pragma GCC unroll 8
          for (int v = 0; v < V; ++v)
            if (v < present)
#pragma GCC unroll 8
              for (int w = 0; w < W; ++w) sums[0][v][w] = load(out + v * tile.sums_stride, w, last);
        }
        if constexpr (kBytes)
          add_list(tile, tile.values + part, begin, end, last, sums);
        else
          add_blocks(tile, tile.values + part, begin, end, last, sums);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
          if (kSets == 2)
#pragma GCC unroll 8
            for (int w = 0; w < W; ++w) sums[0][v][w] = L::add(sums[0][v][w], sums[kSets - 1][v][w]);
          if (v < present) store(tile, channel + v, out + v * tile.sums_stride, last, sums[0][v]);
        }
      }
    }
  }
};

template <typename L, int V, int W>
void run_tile(const Tile& tile) {
  if (tile.cols == 1 && !tile.wide_index)
    ListLoop<L, V, W, true>::run(tile);
  else
    ListLoop<L, V, W, false>::run(tile);
}

// Tiles of 1 .. W registers.
template <typename L, int V, int W>
void run_width(const Tile& tile) {
  if constexpr (W > 1) {
    if (tile.lanes <= (W - 1) * L::kLanes) return run_width<L, V, W - 1>(tile);
  }
  run_tile<L, V, W>(tile);
}

// Gradient: L::kLanes values follow each other in memory, whatever their rows and columns; their products with x become
// one register of sums.
template <typename L>
struct GradientLoop {
  using F = typename L::F;

  static SPARSECORE_INLINE F product(const float* grad, const float* x, int lanes) {
    F sum = L::mul(L::load(grad), L::load(x));
    for (int l = L::kLanes; l < lanes; l += L::kLanes) sum = L::madd(L::load(grad + l), L::load(x + l), sum);
    return sum;
  }

  template <typename Index>
  static void run(const GradientTile& tile, const Index* index) {
    const int64_t rows = tile.rows, cols = tile.cols, record = rows * cols, base = tile.starts[0];
    for (int64_t p = 0; p < tile.places; ++p) {
      const float* grad = tile.grad + tile.order[p] * rows * tile.lanes;
      const int64_t end = (tile.starts[p + 1] - base) * record;
      int64_t i = tile.starts[p] - base, j = 0, r = 0;  // of the next value
      for (int64_t value = i * record; value < end; value += L::kLanes) {
        F sums[L::kLanes];
        const int64_t count = end - value < L::kLanes ? end - value : L::kLanes;
        for (int64_t s = 0; s < L::kLanes; ++s) {
          sums[s] = s < count ? product(grad + r * tile.lanes, tile.x + (index[i] * cols + j) * tile.lanes, tile.lanes)
                              : L::zero();
          if (++r < rows) continue;
          r = 0;
          if (++j < cols) continue;
          j = 0, ++i;
        }
        L::add_to(tile.out + value, L::reduce(sums), count, tile.accumulate);
      }
    }
  }

  static void run(const GradientTile& tile) {
    if (tile.wide_index)
      run(tile, static_cast<const uint16_t*>(tile.index));
    else
      run(tile, static_cast<const uint8_t*>(tile.index));
  }
};

}  // namespace
}  // namespace sparsecore::group_lists
