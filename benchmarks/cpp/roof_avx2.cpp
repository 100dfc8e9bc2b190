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

float fma_loaded_float32(int64_t rounds) {
  alignas(64) static float memory[kLoadedFloats];
  for (float& x : memory) x = 0.5f;  // pages that were never written are all one page of zeros
  __m256 sums[8];
  for (auto& sum : sums) sum = _mm256_setzero_ps();
  __m256 w = _mm256_set1_ps(0.25f);
  for (int64_t r = 0; r < rounds; ++r) {
    const float* x = memory;
    __asm__ volatile("" : "+x"(w), "+r"(x));
    for (const float* end = x + kLoadedFloats; x < end; x += 64)
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) sums[i] = _mm256_fmadd_ps(w, _mm256_load_ps(x + 8 * i), sums[i]);
  }
  for (int i = 1; i < 8; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
  return _mm256_cvtss_f32(sums[0]);
}

}  // namespace bench::avx2
