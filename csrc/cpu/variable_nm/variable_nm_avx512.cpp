// Variable N:16, 16 outputs in the lanes of one register, a block's 16 inputs in another.
//
// vpermps reads the low four bits of each lane: the indices of two slots, widened from bytes, serve the first as they
// are and the second after one shift. Per 32 weights: a load and a shift of indices, two loads of weights, and per
// token two permutes and two FMAs. Even and odd slots have their own sums, which hides half the latency of the FMA. A
// dense block broadcasts its inputs one by one instead. 8 tokens: 16 sums + 8 windows + indices + 2 weights of 32
// registers.
#include <immintrin.h>

#include "cpu/variable_nm/variable_nm.h"

namespace sparsecore::variable_nm::avx512 {
namespace {

struct F32 {
  using Type = float;
  static __m512 load(const float* p) { return _mm512_loadu_ps(p); }
};
struct Bf16 {
  using Type = BFloat16;
  static __m512 load(const BFloat16* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
};
struct F16 {
  using Type = Float16;
  static __m512 load(const Float16* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
};
struct I8 {
  using Type = int8_t;
  static __m512 load(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
};

template <typename Weight, int kTokens>
struct Run {
  const typename Weight::Type* values;
  const uint8_t* indices;
  __m512 sums[kTokens][2];

  // The hardware's prefetching ends at every page and falls behind the arithmetic; asking ahead makes up for it.
  __m512 next() {
    const __m512 weight = Weight::load(values);
    _mm_prefetch(reinterpret_cast<const char*>(values) + 4096, _MM_HINT_T1);
    values += kBlock;
    return weight;
  }

  template <int kN>
  void sparse(const Tile& tile, const int32_t* columns, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const float* x = tile.x + int64_t{columns[i]} * kBlock;
      __m512 windows[kTokens];
      for (int t = 0; t < kTokens; ++t) windows[t] = _mm512_loadu_ps(x + t * tile.x_stride);
      for (int pair = 0; pair < kN / 2; ++pair, indices += kBlock) {
        const __m512i even = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(indices)));
        const __m512i odd = _mm512_srli_epi32(even, 4);
        const __m512 first = next(), second = next();
        for (int t = 0; t < kTokens; ++t) {
          sums[t][0] = _mm512_fmadd_ps(first, _mm512_permutexvar_ps(even, windows[t]), sums[t][0]);
          sums[t][1] = _mm512_fmadd_ps(second, _mm512_permutexvar_ps(odd, windows[t]), sums[t][1]);
        }
      }
    }
  }

  void dense(const Tile& tile, const int32_t* columns, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const float* x = tile.x + int64_t{columns[i]} * kBlock;
      for (int s = 0; s < kBlock; ++s) {
        const __m512 weight = next();
        for (int t = 0; t < kTokens; ++t)
          sums[t][s % 2] = _mm512_fmadd_ps(weight, _mm512_set1_ps(x[t * tile.x_stride + s]), sums[t][s % 2]);
      }
    }
  }
};

template <typename Weight, int kTokens>
void run(const Tile& tile) {
  Run<Weight, kTokens> state;
  state.values = static_cast<const typename Weight::Type*>(tile.values);
  state.indices = tile.indices;
  for (int t = 0; t < kTokens; ++t) state.sums[t][0] = state.sums[t][1] = _mm512_setzero_ps();
  state.template sparse<2>(tile, tile.columns[0], tile.counts[0]);
  state.template sparse<4>(tile, tile.columns[1], tile.counts[1]);
  state.template sparse<8>(tile, tile.columns[2], tile.counts[2]);
  state.dense(tile, tile.columns[3], tile.counts[3]);
  for (int t = 0; t < kTokens; ++t)
    _mm512_storeu_ps(tile.sums + t * tile.sums_stride, _mm512_add_ps(state.sums[t][0], state.sums[t][1]));
}

template <typename Weight>
void run_tokens(const Tile& tile, int tokens) {
  switch (tokens) {
    case 1: return run<Weight, 1>(tile);
    case 2: return run<Weight, 2>(tile);
    case 4: return run<Weight, 4>(tile);
    default: return run<Weight, 8>(tile);
  }
}

}  // namespace

void tile_f32(const Tile& tile, int tokens) { run_tokens<F32>(tile, tokens); }
void tile_bf16(const Tile& tile, int tokens) { run_tokens<Bf16>(tile, tokens); }
void tile_f16(const Tile& tile, int tokens) { run_tokens<F16>(tile, tokens); }
void tile_i8(const Tile& tile, int tokens) { run_tokens<I8>(tile, tokens); }

}  // namespace sparsecore::variable_nm::avx512
