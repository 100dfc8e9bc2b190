// Twelve chains hide the latency of two FMA units (4 to 5 cycles) and leave registers for the operands.
#include <immintrin.h>

#include "roof.h"

namespace bench::avx2 {

float fma_float32(int64_t rounds) {
  __m256 sums[12];
  for (auto& sum : sums) sum = _mm256_setzero_ps();
  __m256 x = _mm256_set1_ps(0.5f), w = _mm256_set1_ps(0.25f);
  for (int64_t r = 0; r < rounds; ++r) {
    __asm__ volatile("" : "+x"(x), "+x"(w));
#pragma GCC unroll 12
    for (int i = 0; i < 12; ++i) sums[i] = _mm256_fmadd_ps(sums[i], x, w);
  }
  for (int i = 1; i < 12; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  return _mm256_cvtss_f32(sums[0]);
}

}  // namespace bench::avx2
