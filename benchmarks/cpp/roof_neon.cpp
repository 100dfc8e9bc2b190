#include <arm_neon.h>

#include "roof.h"

namespace bench::neon {

float fma_float32(int64_t rounds) {
  float32x4_t sums[16];
  for (auto& sum : sums) sum = vdupq_n_f32(0);
  float32x4_t x = vdupq_n_f32(0.5f), w = vdupq_n_f32(0.25f);
  for (int64_t r = 0; r < rounds; ++r) {
    __asm__ volatile("" : "+w"(x), "+w"(w));
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) sums[i] = vfmaq_f32(sums[i], x, w);
  }
  for (int i = 1; i < 16; ++i) sums[0] = vaddq_f32(sums[0], sums[i]);
  return vgetq_lane_f32(sums[0], 0);
}

}  // namespace bench::neon
