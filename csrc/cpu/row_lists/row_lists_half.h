// Row lists with products in float16: twice the lanes of float32 for the same registers and loads.
//
//   panel  [kPanelRows, lanes] float16       weights: narrowed to float16, each stored twice in 32 bits
//
// Sums stay in float16 for at most kPiece places of a list, in two sets, and are then widened and added to the float32
// sums. On normally distributed data the error of a sum is then below 1.5e-3 of its standard deviation. A partial sum
// past 65504 overflows, as do weights and activations past it.
//
// H is the vocabulary of one instruction set; the tests have one in software, as processors with float16 arithmetic are
// rare:
//   Vec, kLanes; zero(), load(const uint16_t*), add(a, b), madd(a, b, c) = a * b + c
//   Four four(const uint32_t* pairs), pick<I>(Four)   the I-th of four weights in every lane
//   add_widened(Vec, float* sums, bool accumulate)    kLanes floats
//   narrow(const T* values, count, uint32_t* pairs)
#pragma once

#include "cpu/row_lists/row_lists.h"

namespace sparsecore::row_lists {
namespace {

constexpr int64_t kPiece = 64;

template <typename H, int V>
struct HalfLoop {
  using Vec = typename H::Vec;
  static constexpr int kWidth = V * H::kLanes;

  static inline __attribute__((always_inline)) void add_one(Vec value, uint8_t offset, const uint16_t* panel,
                                                            Vec (&sums)[V]) {
    const uint16_t* x = panel + static_cast<int64_t>(offset) * kWidth;
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) sums[v] = H::madd(value, H::load(x + v * H::kLanes), sums[v]);
  }

  static inline __attribute__((always_inline)) void add_piece(const uint32_t* pairs, const uint8_t* offsets,
                                                              int64_t count, const uint16_t* panel, float* out,
                                                              bool accumulate) {
    Vec even[V], odd[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) even[v] = odd[v] = H::zero();
    int64_t i = 0;
    for (; i + 4 <= count; i += 4) {
      const typename H::Four four = H::four(pairs + i);
      add_one(H::template pick<0>(four), offsets[i], panel, even);
      add_one(H::template pick<1>(four), offsets[i + 1], panel, odd);
      add_one(H::template pick<2>(four), offsets[i + 2], panel, even);
      add_one(H::template pick<3>(four), offsets[i + 3], panel, odd);
    }
    for (; i < count; ++i) {
      const uint32_t same[4] = {pairs[i], pairs[i], pairs[i], pairs[i]};
      add_one(H::template pick<0>(H::four(same)), offsets[i], panel, even);
    }
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) H::add_widened(H::add(even[v], odd[v]), out + v * H::kLanes, accumulate);
  }

  template <typename T>
  static void run(const Tile& tile, const T* values) {
    alignas(64) uint32_t pairs[kPanelRows];
    const uint16_t* panel = static_cast<const uint16_t*>(tile.panel);
    for (int64_t o = 0; o < tile.lists.channels; ++o) {
      const int64_t begin = tile.lists.starts[o], count = tile.lists.starts[o + 1] - begin;
      const uint8_t* offsets = tile.lists.offsets + begin;
      float* out = tile.sums + o * kWidth;
      H::narrow(values + begin, count, pairs);
      bool accumulate = tile.accumulate;
      int64_t i = 0;
      do {  // once even where the list is empty: its sums are then zero, or stay
        const int64_t piece = count - i < kPiece ? count - i : kPiece;
        add_piece(pairs + i, offsets + i, piece, panel, out, accumulate);
        accumulate = true;
        i += piece;
      } while (i < count);
    }
  }

  static void run(const Tile& tile) {
    switch (tile.lists.weights) {
      case DType::kBFloat16: return run(tile, static_cast<const BFloat16*>(tile.lists.values));
      case DType::kFloat16: return run(tile, static_cast<const Float16*>(tile.lists.values));
      case DType::kInt8: return run(tile, static_cast<const int8_t*>(tile.lists.values));
      default: return run(tile, static_cast<const float*>(tile.lists.values));
    }
  }
};

}  // namespace
}  // namespace sparsecore::row_lists
