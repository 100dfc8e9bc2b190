// Bitmap decode, columns in the lanes: 16 bits of the bitmap are the mask that spreads as many values (vexpandps) over
// the 16 columns they belong to; a masked load takes exactly those values, so nothing past the row is touched.
//
// Where a value starts depends on how many came before it. Population counts of the four quarters of a word are taken
// from the word itself, so the chain from word to word is one addition. Four sums a token, one per quarter, hide the
// latency of the FMA.
#include <immintrin.h>

#include "cpu/bitmap_decode/bitmap_decode.h"

namespace sparsecore::bitmap_decode::avx512 {
namespace {

__mmask16 first(unsigned count) { return static_cast<__mmask16>((1u << count) - 1); }

struct F32 {
  using Type = float;
  static __m512 load(const float* p, __mmask16 kept, unsigned) { return _mm512_maskz_expandloadu_ps(kept, p); }
};
struct Bf16 {
  using Type = BFloat16;
  static __m512 load(const BFloat16* p, __mmask16 kept, unsigned count) {
    const __m256i bits = _mm256_maskz_loadu_epi16(first(count), p);
    const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
    return _mm512_maskz_expand_ps(kept, _mm512_castsi512_ps(wide));
  }
};
struct F16 {
  using Type = Float16;
  static __m512 load(const Float16* p, __mmask16 kept, unsigned count) {
    return _mm512_maskz_expand_ps(kept, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), p)));
  }
};
struct I8 {
  using Type = int8_t;
  static __m512 load(const int8_t* p, __mmask16 kept, unsigned count) {
    const __m512i wide = _mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(count), p));
    return _mm512_maskz_expand_ps(kept, _mm512_cvtepi32_ps(wide));
  }
};

template <typename Weight, int kTokens>
void run(const Row& row) {
  constexpr int kSums = 4;
  const typename Weight::Type* values = static_cast<const typename Weight::Type*>(row.values);
  __m512 sums[kTokens][kSums];
  for (int t = 0; t < kTokens; ++t)
    for (int s = 0; s < kSums; ++s) sums[t][s] = _mm512_setzero_ps();
  for (int64_t w = 0; w < row.words; ++w) {
    const uint64_t bits = row.bitmap[w];
    if (!bits) continue;
    const float* x = row.x + 64 * w;
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      const uint64_t below = q ? bits & ((1ull << (16 * q)) - 1) : 0;
      const __mmask16 kept = static_cast<__mmask16>(bits >> (16 * q));
      const __m512 weight = Weight::load(values + _mm_popcnt_u64(below), kept, _mm_popcnt_u32(kept));
      for (int t = 0; t < kTokens; ++t)
        sums[t][q] = _mm512_fmadd_ps(weight, _mm512_loadu_ps(x + t * row.x_stride + 16 * q), sums[t][q]);
    }
    values += _mm_popcnt_u64(bits);
  }
  for (int t = 0; t < kTokens; ++t) {
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(sums[t][0], sums[t][1]), _mm512_add_ps(sums[t][2], sums[t][3]));
    row.sums[t * row.sums_stride] = _mm512_reduce_add_ps(sum);
  }
}

template <typename Weight>
void run_tokens(const Row& row, int tokens) {
  switch (tokens) {
    case 1: return run<Weight, 1>(row);
    case 2: return run<Weight, 2>(row);
    default: break;
  }
  Row part = row;  // the second pass of eight finds the row's values in the first-level cache
  for (int t = 0; t < tokens; t += 4) {
    part.x = row.x + t * row.x_stride;
    part.sums = row.sums + t * row.sums_stride;
    run<Weight, 4>(part);
  }
}

}  // namespace

void row_f32(const Row& row, int tokens) { run_tokens<F32>(row, tokens); }
void row_bf16(const Row& row, int tokens) { run_tokens<Bf16>(row, tokens); }
void row_f16(const Row& row, int tokens) { run_tokens<F16>(row, tokens); }
void row_i8(const Row& row, int tokens) { run_tokens<I8>(row, tokens); }

}  // namespace sparsecore::bitmap_decode::avx512
