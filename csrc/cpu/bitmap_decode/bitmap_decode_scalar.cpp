// The specification of the bitmap decode kernel: set bits one by one.
#include "cpu/bitmap_decode/bitmap_decode.h"
#include "cpu/narrow.h"

namespace sparsecore::bitmap_decode::scalar {
namespace {

template <typename T>
void run(const Rows& a, int tokens) {
  for (int r = 0; r < a.rows; ++r)
    for (int t = 0; t < tokens; ++t) {
      const T* value = static_cast<const T*>(a.values) + a.starts[r];
      const uint64_t* bitmap = a.bitmap + r * a.words;
      const float* x = a.x + t * a.x_stride;
      float sum = 0.0f;
      for (int64_t w = 0; w < a.words; ++w)
        for (uint64_t bits = bitmap[w]; bits; bits &= bits - 1)
          sum += widen(*value++) * x[64 * w + __builtin_ctzll(bits)];
      a.sums[t * a.sums_stride + r] = sum;
    }
}

int64_t count(const uint64_t* words, int64_t number) {
  int64_t total = 0;
  for (int64_t w = 0; w < number; ++w) total += __builtin_popcountll(words[w]);
  return total;
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kScalar,
                        .name = "scalar::bitmap_decode",
                        .count = count,
                        .f32 = run<float>,
                        .bf16 = run<BFloat16>,
                        .f16 = run<Float16>,
                        .i8 = run<int8_t>};

}  // namespace sparsecore::bitmap_decode::scalar
