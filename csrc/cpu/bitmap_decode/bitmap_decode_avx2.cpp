// Bitmap decode on AVX2, which has no expand: set bits one by one, scalar FMAs on four sums. Eight columns at a time
// through a table of permutations would win above half density only, where row lists are the better layout anyway.
#include <immintrin.h>

#include "cpu/bitmap_decode/bitmap_decode.h"

namespace sparsecore::bitmap_decode::avx2 {
namespace {

float load(const float* p) { return *p; }
float load(const BFloat16* p) { return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(p->bits << 16))); }
float load(const Float16* p) { return _cvtsh_ss(p->bits); }
float load(const int8_t* p) { return *p; }

template <typename T, int kTokens>
void run(const Row& row) {
  const T* value = static_cast<const T*>(row.values);
  __m128 sums[kTokens][2];
  for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = _mm_setzero_ps();
  for (int64_t w = 0; w < row.words; ++w) {
    const float* x = row.x + 64 * w;
    uint64_t bits = row.bitmap[w];
    const auto next = [&](int parity) {
      const __m128 weight = _mm_set_ss(load(value++));
      const float* column = x + __builtin_ctzll(bits);
      bits &= bits - 1;
      for (int t = 0; t < kTokens; ++t)
        sums[t][parity] = _mm_fmadd_ss(weight, _mm_load_ss(column + t * row.x_stride), sums[t][parity]);
    };
    while (bits & (bits - 1)) {
      next(0);
      next(1);
    }
    if (bits) next(0);
  }
  for (int t = 0; t < kTokens; ++t) row.sums[t * row.sums_stride] = _mm_cvtss_f32(_mm_add_ss(sums[t][0], sums[t][1]));
}

template <typename T>
void run_tokens(const Row& row, int tokens) {
  switch (tokens) {
    case 1: return run<T, 1>(row);
    case 2: return run<T, 2>(row);
    default: break;
  }
  Row part = row;
  for (int t = 0; t < tokens; t += 4) {
    part.x = row.x + t * row.x_stride;
    part.sums = row.sums + t * row.sums_stride;
    run<T, 4>(part);
  }
}

}  // namespace

void row_f32(const Row& row, int tokens) { run_tokens<float>(row, tokens); }
void row_bf16(const Row& row, int tokens) { run_tokens<BFloat16>(row, tokens); }
void row_f16(const Row& row, int tokens) { run_tokens<Float16>(row, tokens); }
void row_i8(const Row& row, int tokens) { run_tokens<int8_t>(row, tokens); }

}  // namespace sparsecore::bitmap_decode::avx2
