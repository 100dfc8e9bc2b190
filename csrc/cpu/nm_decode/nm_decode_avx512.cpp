// N:M decode, 16 channels in the lanes of one register.
//
// The codes of 16 channels for one slot lie in the low bits of a register of words that is shifted right by `bits` from
// slot to slot. vpermps reads the low 4 bits of each lane, vpermi2ps the low 5, so for m = 16 and 32 the junk above the
// code needs no mask; for smaller m one AND removes it. Per 16 weights: a load, a shift, an AND, and per token a
// permute and an FMA, which is far below the time memory takes to bring the weights. Even and odd slots of a group have
// their own sums, which hides the latency of the FMA.
#include <immintrin.h>

#include "cpu/nm_decode/nm_decode.h"
#include "cpu/wide_avx512.h"

namespace sparsecore::nm_decode::avx512 {
namespace {

// The hardware's prefetching ends at every page and falls behind the arithmetic; asking ahead makes up for it.
void prefetch(const void* values) { _mm_prefetch(static_cast<const char*>(values) + 4096, _MM_HINT_T1); }

// kWide: m > 16, windows of two registers.
template <typename T, int kTokens, bool kWide>
void run(const Tile& tile) {
  const T* values = static_cast<const T*>(tile.values);
  const uint32_t* words = tile.codes;
  const __m512i mask = _mm512_set1_epi32((1 << tile.bits) - 1);
  const __m128i bits = _mm_cvtsi32_si128(tile.bits);
  __m512 sums[kTokens][2];
  for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = _mm512_setzero_ps();
  __m512i code = _mm512_setzero_si512();
  int left = 0;  // codes not used yet in `code`
  const float* x = tile.x;
  for (int64_t g = 0; g < tile.groups; ++g, x += tile.m) {
    __m512 low[kTokens], high[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      low[t] = _mm512_loadu_ps(x + t * tile.x_stride);
      high[t] = kWide ? _mm512_loadu_ps(x + t * tile.x_stride + 16) : low[t];
    }
    const auto slot = [&](int parity) {
      if (left == 0) {
        code = _mm512_loadu_si512(words);
        words += kTile;
        left = tile.per_word;
      }
      const __m512i place = _mm512_and_si512(code, mask);
      code = _mm512_srl_epi32(code, bits);
      --left;
      const __m512 weight = WideAvx512::load(values);
      prefetch(values);
      values += kTile;
      for (int t = 0; t < kTokens; ++t) {
        const __m512 picked =
            kWide ? _mm512_permutex2var_ps(low[t], place, high[t]) : _mm512_permutexvar_ps(place, low[t]);
        sums[t][parity] = _mm512_fmadd_ps(weight, picked, sums[t][parity]);
      }
    };
    int j = 0;
    for (; j + 2 <= tile.n_kept; j += 2) {
      slot(0);
      slot(1);
    }
    if (j < tile.n_kept) slot(g & 1);
  }
  for (int t = 0; t < kTokens; ++t)
    _mm512_storeu_ps(tile.sums + t * tile.sums_stride, _mm512_add_ps(sums[t][0], sums[t][1]));
}

// Groups of four and of eight, where codes fill whole words of 16 and 10: kBlock groups end where a word does, and all
// of them are unrolled. Their windows are broadcast so often that no code needs its mask: vpermilps reads the low 2
// bits of a lane, vpermps the low 4, of which the highest chooses between two copies.
template <int kM>
__m512 window(const float* x) {
  return kM == 4 ? _mm512_broadcast_f32x4(_mm_loadu_ps(x)) : _mm512_broadcast_f32x8(_mm256_loadu_ps(x));
}
template <int kM>
__m512 pick(__m512 window, __m512i code) {
  return kM == 4 ? _mm512_permutevar_ps(window, code) : _mm512_permutexvar_ps(code, window);
}

template <typename T, int kTokens, int kKept, int kM>
void run_unrolled(const Tile& tile) {
  constexpr int kBits = kM == 4 ? 2 : 3, kPerWord = 32 / kBits, kBlock = kPerWord / kKept;
  static_assert(kPerWord % kKept == 0);
  const T* values = static_cast<const T*>(tile.values);
  const uint32_t* words = tile.codes;
  __m512 sums[kTokens][2];
  for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = _mm512_setzero_ps();
  const float* x = tile.x;
  for (int64_t g = 0; g < tile.groups; g += kBlock, words += kTile) {
    __m512i code = _mm512_loadu_si512(words);
    const auto group = [&](int parity) {
      __m512 windows[kTokens];
      for (int t = 0; t < kTokens; ++t) windows[t] = window<kM>(x + t * tile.x_stride);
      for (int j = 0; j < kKept; ++j) {
        const __m512 weight = WideAvx512::load(values);
        prefetch(values);
        values += kTile;
        for (int t = 0; t < kTokens; ++t) {
          __m512& sum = sums[t][kKept % 2 == 0 ? j % 2 : parity];
          sum = _mm512_fmadd_ps(weight, pick<kM>(windows[t], code), sum);
        }
        code = _mm512_srli_epi32(code, kBits);
      }
      x += kM;
    };
    if (tile.groups - g >= kBlock) {
#pragma GCC unroll 16
      for (int i = 0; i < kBlock; ++i) group(i & 1);
    } else {
      for (int i = 0; i < tile.groups - g; ++i) group(i & 1);
    }
  }
  for (int t = 0; t < kTokens; ++t)
    _mm512_storeu_ps(tile.sums + t * tile.sums_stride, _mm512_add_ps(sums[t][0], sums[t][1]));
}

template <typename T, int kTokens>
void choose(const Tile& tile) {
  if (tile.m == 4 && tile.n_kept == 2) return run_unrolled<T, kTokens, 2, 4>(tile);
  if (tile.m == 4 && tile.n_kept == 1) return run_unrolled<T, kTokens, 1, 4>(tile);
  if (tile.m == 8 && tile.n_kept == 2) return run_unrolled<T, kTokens, 2, 8>(tile);
  if (tile.m == 8 && tile.n_kept == 1) return run_unrolled<T, kTokens, 1, 8>(tile);
  if (tile.m > 16) return run<T, kTokens, true>(tile);
  return run<T, kTokens, false>(tile);
}

template <typename T>
void run_tokens(const Tile& tile, int tokens) {
  switch (tokens) {
    case 1: return choose<T, 1>(tile);
    case 2: return choose<T, 2>(tile);
    case 4: return choose<T, 4>(tile);
    default: return choose<T, 8>(tile);
  }
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kAvx512,
                        .name = "avx512::nm_decode",
                        .f32 = run_tokens<float>,
                        .bf16 = run_tokens<BFloat16>,
                        .f16 = run_tokens<Float16>,
                        .i8 = run_tokens<int8_t>};

}  // namespace sparsecore::nm_decode::avx512
