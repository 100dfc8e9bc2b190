#include <immintrin.h>

#include "roof.h"

namespace bench::avx512 {

float fma_float32(int64_t rounds) {
  __m512 sums[16];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  __m512 x = _mm512_set1_ps(0.5f), w = _mm512_set1_ps(0.25f);
  for (int64_t r = 0; r < rounds; ++r) {
    __asm__ volatile("" : "+v"(x), "+v"(w));
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) sums[i] = _mm512_fmadd_ps(sums[i], x, w);
  }
  for (int i = 1; i < 16; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

float fma_loaded_float32(int64_t rounds) {
  alignas(64) static float memory[kLoadedFloats];
  for (float& x : memory) x = 0.5f;  // pages that were never written are all one page of zeros
  __m512 sums[16];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  __m512 w = _mm512_set1_ps(0.25f);
  for (int64_t r = 0; r < rounds; ++r) {
    const float* x = memory;
    __asm__ volatile("" : "+v"(w), "+r"(x));
    for (const float* end = x + kLoadedFloats; x < end; x += 256)
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) sums[i] = _mm512_fmadd_ps(w, _mm512_load_ps(x + 16 * i), sums[i]);
  }
  for (int i = 1; i < 16; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

}  // namespace bench::avx512
