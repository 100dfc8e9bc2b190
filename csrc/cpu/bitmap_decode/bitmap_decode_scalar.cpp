// The specification of the bitmap decode kernel: set bits one by one.
#include "cpu/bitmap_decode/bitmap_decode.h"
#include "cpu/narrow.h"

namespace sparsecore::bitmap_decode::scalar {
namespace {

template <typename T>
void run(const Row& row, int tokens) {
  for (int t = 0; t < tokens; ++t) {
    const T* value = static_cast<const T*>(row.values);
    const float* x = row.x + t * row.x_stride;
    float sum = 0.0f;
    for (int64_t w = 0; w < row.words; ++w)
      for (uint64_t bits = row.bitmap[w]; bits; bits &= bits - 1)
        sum += widen(*value++) * x[64 * w + __builtin_ctzll(bits)];
    row.sums[t * row.sums_stride] = sum;
  }
}

}  // namespace

void row_f32(const Row& row, int tokens) { run<float>(row, tokens); }
void row_bf16(const Row& row, int tokens) { run<BFloat16>(row, tokens); }
void row_f16(const Row& row, int tokens) { run<Float16>(row, tokens); }
void row_i8(const Row& row, int tokens) { run<int8_t>(row, tokens); }

}  // namespace sparsecore::bitmap_decode::scalar
