// Variable N:16, 16 outputs in the lanes of one register, a block's 16 inputs in another.
//
// vpermps reads the low four bits of each lane: the indices of two slots, widened from bytes, serve the first as they
// are and the second after one shift. Per 32 weights: a load and a shift of indices, two loads of weights, and per
// token two permutes and two FMAs. Even and odd slots have their own sums, which hides half the latency of the FMA. A
// dense block broadcasts its inputs one by one instead. 8 tokens: 16 sums + 8 windows + indices + 2 weights of 32
// registers.
#include <immintrin.h>

#include "cpu/variable_nm/variable_nm.h"
#include "cpu/wide_avx512.h"

namespace sparsecore::variable_nm::avx512 {
namespace {

template <typename T, int kTokens>
struct Run {
  const T* values;
  const uint8_t* indices;
  __m512 sums[kTokens][2];

  // The hardware's prefetching ends at every page and falls behind the arithmetic; asking ahead makes up for it.
  __m512 next() {
    const __m512 weight = WideAvx512::load(values);
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

template <typename T, int kTokens>
void run(const Tile& tile) {
  Run<T, kTokens> state;
  state.values = static_cast<const T*>(tile.values);
  state.indices = tile.indices;
  for (int t = 0; t < kTokens; ++t) state.sums[t][0] = state.sums[t][1] = _mm512_setzero_ps();
  state.template sparse<2>(tile, tile.columns[0], tile.counts[0]);
  state.template sparse<4>(tile, tile.columns[1], tile.counts[1]);
  state.template sparse<8>(tile, tile.columns[2], tile.counts[2]);
  state.dense(tile, tile.columns[3], tile.counts[3]);
  for (int t = 0; t < kTokens; ++t)
    _mm512_storeu_ps(tile.sums + t * tile.sums_stride, _mm512_add_ps(state.sums[t][0], state.sums[t][1]));
}

template <typename T>
void run_tokens(const Tile& tile, int tokens) {
  switch (tokens) {
    case 1: return run<T, 1>(tile);
    case 2: return run<T, 2>(tile);
    case 4: return run<T, 4>(tile);
    default: return run<T, 8>(tile);
  }
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kAvx512,
                        .name = "avx512::variable_nm",
                        .f32 = run_tokens<float>,
                        .bf16 = run_tokens<BFloat16>,
                        .f16 = run_tokens<Float16>,
                        .i8 = run_tokens<int8_t>};

}  // namespace sparsecore::variable_nm::avx512
