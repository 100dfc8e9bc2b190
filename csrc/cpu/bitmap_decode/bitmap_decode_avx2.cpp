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
void run(const Rows& a, int r) {
  const T* value = static_cast<const T*>(a.values) + a.starts[r];
  const uint64_t* bitmap = a.bitmap + r * a.words;
  __m128 sums[kTokens][2];
  for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = _mm_setzero_ps();
  for (int64_t w = 0; w < a.words; ++w) {
    const float* x = a.x + 64 * w;
    uint64_t bits = bitmap[w];
    const auto next = [&](int parity) {
      const __m128 weight = _mm_set_ss(load(value++));
      const float* column = x + __builtin_ctzll(bits);
      bits &= bits - 1;
      for (int t = 0; t < kTokens; ++t)
        sums[t][parity] = _mm_fmadd_ss(weight, _mm_load_ss(column + t * a.x_stride), sums[t][parity]);
    };
    while (bits & (bits - 1)) {
      next(0);
      next(1);
    }
    if (bits) next(0);
  }
  for (int t = 0; t < kTokens; ++t) a.sums[t * a.sums_stride + r] = _mm_cvtss_f32(_mm_add_ss(sums[t][0], sums[t][1]));
}

template <typename T>
void run_tokens(const Rows& rows, int tokens) {
  for (int r = 0; r < rows.rows; ++r) {
    if (tokens == 1) {
      run<T, 1>(rows, r);
    } else if (tokens == 2) {
      run<T, 2>(rows, r);
    } else {
      Rows part = rows;
      for (int t = 0; t < tokens; t += 4) {
        part.x = rows.x + t * rows.x_stride;
        part.sums = rows.sums + t * rows.sums_stride;
        run<T, 4>(part, r);
      }
    }
  }
}

int64_t count(const uint64_t* words, int64_t number) {
  int64_t total = 0;
  for (int64_t w = 0; w < number; ++w) total += __builtin_popcountll(words[w]);
  return total;
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kAvx2,
                        .name = "avx2::bitmap_decode",
                        .count = count,
                        .f32 = run_tokens<float>,
                        .bf16 = run_tokens<BFloat16>,
                        .f16 = run_tokens<Float16>,
                        .i8 = run_tokens<int8_t>};

}  // namespace sparsecore::bitmap_decode::avx2
