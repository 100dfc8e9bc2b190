// The tile of the AVX-512 dot-product files: 32-bit lanes, each a pair of bfloat16 or a quad of int8 products.
//
//   vector 64   6 tokens x 4 registers of sums, vector 32  12 x 2, vector 16  16 x 1: at least 16 chains, where the
//   instructions need 10 to 12 to hide their latency
#pragma once

#include <immintrin.h>

#include "cpu/shared_lists/shared_lists.h"

namespace sparsecore::shared_lists {
namespace {

// Dot: a register type R, zero(), and product(sums, x, weights).
template <typename Dot, int kTokens, int kWide>
void dot_tile_of(const DotTile& a) {
  using R = typename Dot::R;
  const char* weights = static_cast<const char*>(a.interleaved);
  const int32_t* x = static_cast<const int32_t*>(a.steps);
  int32_t* out = static_cast<int32_t*>(a.sums);
  R sums[kTokens][kWide];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v)
      sums[t][v] = a.accumulate ? Dot::load(out + t * a.sums_stride + v * 16)
                   : a.start    ? Dot::load(a.start + v * 16)
                                : Dot::zero();
  for (int64_t step = 0; step < a.count; ++step, weights += 64 * kWide, x += kDotTokens) {
    __m512i w[kWide];
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v) w[v] = _mm512_loadu_si512(weights + v * 64);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const __m512i columns = _mm512_set1_epi32(x[t]);
#pragma GCC unroll 4
      for (int v = 0; v < kWide; ++v) sums[t][v] = Dot::product(sums[t][v], columns, w[v]);
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v) Dot::store(out + t * a.sums_stride + v * 16, sums[t][v]);
}

template <typename Dot, int kWide, int kTokens>
void dot_tile_up_to(const DotTile& a) {
  if constexpr (kTokens > 1)
    if (a.tokens < kTokens) return dot_tile_up_to<Dot, kWide, kTokens - 1>(a);
  dot_tile_of<Dot, kTokens, kWide>(a);
}

inline int dot_tile_tokens(int vector) { return vector >= 64 ? 6 : vector == 32 ? 12 : 16; }

template <typename Dot>
void dot_tile(const DotTile& a) {
  switch (a.vector) {
    case 64: return dot_tile_up_to<Dot, 4, 6>(a);
    case 32: return dot_tile_up_to<Dot, 2, 12>(a);
    default: return dot_tile_up_to<Dot, 1, 16>(a);
  }
}

}  // namespace
}  // namespace sparsecore::shared_lists
