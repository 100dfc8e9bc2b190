// 16 x 16 transposes of 32-bit elements, for the AVX-512 files of this family.
#pragma once

#include <immintrin.h>

namespace sparsecore::shared_lists {
namespace {

// rows[i] holds elements 0..15 of row i; afterwards rows[c] holds element c of rows 0..15.
inline void transpose(__m512 (&rows)[16]) {
  __m512 pairs[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  __m512 fours[16];  // fours[4 * b + j]: rows 4 b .. 4 b + 3 of elements j, j + 4, j + 8, j + 12
#pragma GCC unroll 4
  for (int b = 0; b < 4; ++b)
#pragma GCC unroll 2
    for (int high = 0; high < 2; ++high) {
      const __m512d p = _mm512_castps_pd(pairs[4 * b + high]), q = _mm512_castps_pd(pairs[4 * b + 2 + high]);
      fours[4 * b + 2 * high] = _mm512_castpd_ps(_mm512_unpacklo_pd(p, q));
      fours[4 * b + 2 * high + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p, q));
    }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512 a = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0x44);
    const __m512 b = _mm512_shuffle_f32x4(fours[j], fours[4 + j], 0xee);
    const __m512 c = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0x44);
    const __m512 d = _mm512_shuffle_f32x4(fours[8 + j], fours[12 + j], 0xee);
    rows[j] = _mm512_shuffle_f32x4(a, c, 0x88);
    rows[j + 4] = _mm512_shuffle_f32x4(a, c, 0xdd);
    rows[j + 8] = _mm512_shuffle_f32x4(b, d, 0x88);
    rows[j + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}

}  // namespace
}  // namespace sparsecore::shared_lists
