#include "roof.h"

namespace bench::scalar {

float fma_float32(int64_t rounds) {
  float sums[16] = {};
  const volatile float start = 0.5f;
  const float x = start, w = start;
  for (int64_t r = 0; r < rounds; ++r)
    for (float& sum : sums) sum = sum * x + w;
  float total = 0;
  for (float sum : sums) total += sum;
  return total;
}

}  // namespace bench::scalar
