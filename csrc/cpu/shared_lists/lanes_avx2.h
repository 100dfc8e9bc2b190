// Eight float lanes for the AVX2 files of this family: widening loads and an 8 x 8 transpose.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "sparsecore/types.h"

namespace sparsecore::shared_lists {
namespace {

inline __m256 load(const float* p) { return _mm256_loadu_ps(p); }
inline __m256 load(const BFloat16* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
inline __m256 load(const Float16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline __m256 load(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

// The first `count` of eight; the rest is zero and not read.
template <typename T>
__m256 load_first(const T* p, int64_t count) {
  if (count >= 8) return load(p);
  T copy[8] = {};
  if (count > 0) std::memcpy(copy, p, static_cast<size_t>(count) * sizeof(T));
  return load(copy);
}

// rows[i] holds elements 0..7 of row i; afterwards rows[c] holds element c of rows 0..7.
inline void transpose(__m256 (&rows)[8]) {
  __m256 pairs[8], fours[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 2
  for (int b = 0; b < 8; b += 4)
#pragma GCC unroll 2
    for (int high = 0; high < 2; ++high) {
      fours[b + 2 * high] = _mm256_shuffle_ps(pairs[b + high], pairs[b + 2 + high], 0x44);
      fours[b + 2 * high + 1] = _mm256_shuffle_ps(pairs[b + high], pairs[b + 2 + high], 0xee);
    }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    rows[j] = _mm256_permute2f128_ps(fours[j], fours[4 + j], 0x20);
    rows[j + 4] = _mm256_permute2f128_ps(fours[j], fours[4 + j], 0x31);
  }
}

}  // namespace
}  // namespace sparsecore::shared_lists
