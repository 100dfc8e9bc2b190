#include <immintrin.h>

#include "roof.h"

namespace bench::avx512_fp16 {

float fma_float16(int64_t rounds) {
  __m512h sums[16];
  for (auto& sum : sums) sum = _mm512_setzero_ph();
  __m512h x = _mm512_castsi512_ph(_mm512_set1_epi16(0x3800)), w = _mm512_castsi512_ph(_mm512_set1_epi16(0x3400));
  for (int64_t r = 0; r < rounds; ++r) {
    __asm__ volatile("" : "+v"(x), "+v"(w));
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) sums[i] = _mm512_fmadd_ph(sums[i], x, w);
  }
  for (int i = 1; i < 16; ++i) sums[0] = _mm512_add_ph(sums[0], sums[i]);
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm512_castsi512_si128(_mm512_castph_si512(sums[0]))));
}

}  // namespace bench::avx512_fp16
