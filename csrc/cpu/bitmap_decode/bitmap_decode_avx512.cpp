// Bitmap decode, columns in the lanes: 16 bits of the bitmap are the mask that spreads as many values (vexpandps) over
// the 16 columns they belong to. Four rows at a time share the activations, and their four chains of sums hide the
// latency of the FMA.
//
// Values are loaded sixteen at a time wherever sixteen may be read, and spread in registers: an expanding or masked
// load costs more than the unneeded lanes.
#include <immintrin.h>

#include "cpu/bitmap_decode/bitmap_decode.h"

namespace sparsecore::bitmap_decode::avx512 {
namespace {

// Up to 16 values as floats: all 16 where there is room, else the first `count`.
template <bool kRoomy>
__m512 load(const float* p, unsigned count) {
  return kRoomy ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
}
template <bool kRoomy>
__m256i load16(const void* p, unsigned count) {
  return kRoomy ? _mm256_loadu_si256(static_cast<const __m256i*>(p))
                : _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << count) - 1), p);
}
template <bool kRoomy>
__m512 load(const BFloat16* p, unsigned count) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load16<kRoomy>(p, count)), 16));
}
template <bool kRoomy>
__m512 load(const Float16* p, unsigned count) {
  return _mm512_cvtph_ps(load16<kRoomy>(p, count));
}
template <bool kRoomy>
__m512 load(const int8_t* p, unsigned count) {
  const __m128i bytes = kRoomy ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(p))
                               : _mm_maskz_loadu_epi8(static_cast<__mmask16>((1u << count) - 1), p);
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}

template <typename T, int kRows, int kTokens, bool kRoomy>
void run(const Rows& a) {
  const T* values[kRows];
  __m512 sums[kTokens][kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    values[r] = static_cast<const T*>(a.values) + a.starts[r];
    for (int t = 0; t < kTokens; ++t) sums[t][r] = _mm512_setzero_ps();
  }
  for (int64_t w = 0; w < a.words; ++w) {
    const float* columns = a.x + 64 * w;
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
      _mm_prefetch(reinterpret_cast<const char*>(values[r]) + 1024, _MM_HINT_T1);  // four streams are much for hardware
#pragma GCC unroll 4
    for (int q = 0; q < 4; ++q) {
      __m512 x[kTokens];
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) x[t] = _mm512_loadu_ps(columns + t * a.x_stride + 16 * q);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const unsigned bits = static_cast<uint16_t>(a.bitmap[r * a.words + w] >> (16 * q));
        const unsigned count = static_cast<unsigned>(_mm_popcnt_u32(bits));
        const __m512 weight = _mm512_maskz_expand_ps(static_cast<__mmask16>(bits), load<kRoomy>(values[r], count));
        values[r] += count;
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) sums[t][r] = _mm512_fmadd_ps(weight, x[t], sums[t][r]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r)
    for (int t = 0; t < kTokens; ++t) a.sums[t * a.sums_stride + r] = _mm512_reduce_add_ps(sums[t][r]);
}

template <typename T, int kTokens>
void run_rows(Rows a) {
  if (a.rows == kMaxRows && a.room) return run<T, kMaxRows, kTokens, true>(a);
  for (int r = 0; r < a.rows; ++r, ++a.starts, a.bitmap += a.words, ++a.sums) run<T, 1, kTokens, false>(a);
}

template <typename T>
void run_tokens(const Rows& rows, int tokens) {
  switch (tokens) {
    case 1: return run_rows<T, 1>(rows);
    case 2: return run_rows<T, 2>(rows);
    default: break;
  }
  Rows part = rows;  // the second pass of eight finds the values in the first-level cache
  for (int t = 0; t < tokens; t += 4) {
    part.x = rows.x + t * rows.x_stride;
    part.sums = rows.sums + t * rows.sums_stride;
    run_rows<T, 4>(part);
  }
}

int64_t count(const uint64_t* words, int64_t number) {
  int64_t total = 0;
  for (int64_t w = 0; w < number; ++w) total += _mm_popcnt_u64(words[w]);
  return total;
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kAvx512,
                        .name = "avx512::bitmap_decode",
                        .count = count,
                        .f32 = run_tokens<float>,
                        .bf16 = run_tokens<BFloat16>,
                        .f16 = run_tokens<Float16>,
                        .i8 = run_tokens<int8_t>};

}  // namespace sparsecore::bitmap_decode::avx512
