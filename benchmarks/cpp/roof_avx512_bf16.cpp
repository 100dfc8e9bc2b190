#include <immintrin.h>

#include "roof.h"

namespace bench::avx512_bf16 {

float dot_bfloat16(int64_t rounds) {
  __m512 sums[16];
  for (auto& sum : sums) sum = _mm512_setzero_ps();
  __m512i x = _mm512_set1_epi16(0x3e00), w = _mm512_set1_epi16(0x3e80);  // 0.125 and 0.25
  for (int64_t r = 0; r < rounds; ++r) {
    __asm__ volatile("" : "+v"(x), "+v"(w));
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      sums[i] = _mm512_dpbf16_ps(sums[i], reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
  }
  for (int i = 1; i < 16; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
  return _mm512_cvtss_f32(sums[0]);
}

}  // namespace bench::avx512_bf16
