// The sums of a tile: T output rows of one vector of columns. Every input row is loaded once and added to all the
// output rows that want it; an output gathers its taps in their order, whatever the tile.
#pragma once

#include "cpu/each.h"
#include "cpu/planes/finish.h"

namespace sparsecore::planes {
namespace {

// `taps.template load<i>(x)` fills x[K] with the K horizontal shifts of input row i of the tile.
template <typename V, int K, int S, int T, typename Taps>
__attribute__((always_inline)) inline void sum_tile(const Taps& taps, const typename V::F* weight, typename V::F bias,
                                                    typename V::F (&sums)[T]) {
  using F = typename V::F;
  each<T>([&]<size_t t>() { sums[t] = bias; });
  each<(T - 1) * S + K>([&]<size_t i>() {
    F x[K];
    taps.template load<i>(x);
    each<T>([&]<size_t t>() {
      constexpr int kTapRow = static_cast<int>(i) - static_cast<int>(t) * S;
      if constexpr (kTapRow >= 0 && kTapRow < K)
        each<K>([&]<size_t j>() { sums[t] = V::madd(x[j], weight[kTapRow * K + j], sums[t]); });
    });
  });
}

// Calls tile(std::integral_constant<int, T>(), row) so that rows [begin, end) are covered by tall tiles, then lower.
template <int Tall, typename Tile>
inline void for_tiles(int64_t begin, int64_t end, Tile&& tile) {
  int64_t r = begin;
  for (; r + Tall <= end; r += Tall) tile(std::integral_constant<int, Tall>(), r);
  if constexpr (Tall > 2)
    for (; r + 2 <= end; r += 2) tile(std::integral_constant<int, 2>(), r);
  if constexpr (Tall > 1)
    for (; r < end; ++r) tile(std::integral_constant<int, 1>(), r);
}

// Columns [0, width) in vectors: the last one begins earlier instead of being shorter, where it can. What it computes
// twice is the same twice.
template <typename V>
inline int64_t column_blocks(int64_t width) {
  return (width + V::kLanes - 1) / V::kLanes;
}
template <typename V>
inline int64_t column_of_block(int64_t block, int64_t width) {
  const int64_t column = block * V::kLanes;
  return column + V::kLanes <= width || width < V::kLanes ? column : width - V::kLanes;
}

}  // namespace
}  // namespace sparsecore::planes
