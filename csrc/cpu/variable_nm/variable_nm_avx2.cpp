// Variable N:16, 16 outputs in two registers of eight, one after the other.
//
// vpermps picks among eight floats by the low three bits of a lane; a block's 16 inputs take two of them, and the
// fourth bit of the index, shifted to the sign, chooses. Even and odd slots have their own sums: 4 tokens take 8 sums,
// and the windows are loaded where they are used, from the first-level cache.
#include <immintrin.h>

#include "cpu/variable_nm/variable_nm.h"
#include "cpu/wide_avx2.h"

namespace sparsecore::variable_nm::avx2 {
namespace {

__m256 pick(const float* x, __m256i place) {
  const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(x), place);
  const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(x + 8), place);
  return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(place, 28)));
}

template <typename T, int kTokens>
struct Run {
  const T* values;
  const uint8_t* indices;
  __m256 sums[kTokens][2];

  template <int kN>
  void sparse(const Tile& tile, const int32_t* columns, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const float* x = tile.x + int64_t{columns[i]} * kBlock;
      for (int pair = 0; pair < kN / 2; ++pair, indices += kBlock, values += 2 * kBlock) {
        const __m256i even = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(indices)));
        const __m256i odd = _mm256_srli_epi32(even, 4);
        const __m256 first = WideAvx2::load(values), second = WideAvx2::load(values + kBlock);
        for (int t = 0; t < kTokens; ++t) {
          sums[t][0] = _mm256_fmadd_ps(first, pick(x + t * tile.x_stride, even), sums[t][0]);
          sums[t][1] = _mm256_fmadd_ps(second, pick(x + t * tile.x_stride, odd), sums[t][1]);
        }
      }
    }
  }

  void dense(const Tile& tile, const int32_t* columns, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      const float* x = tile.x + int64_t{columns[i]} * kBlock;
      for (int s = 0; s < kBlock; ++s, values += kBlock) {
        const __m256 weight = WideAvx2::load(values);
        for (int t = 0; t < kTokens; ++t)
          sums[t][s % 2] = _mm256_fmadd_ps(weight, _mm256_set1_ps(x[t * tile.x_stride + s]), sums[t][s % 2]);
      }
    }
  }
};

template <typename T, int kTokens>
void run(const Tile& tile) {
  for (int half = 0; half < 2; ++half) {
    Run<T, kTokens> state;
    state.values = static_cast<const T*>(tile.values) + 8 * half;
    state.indices = tile.indices + 8 * half;
    for (int t = 0; t < kTokens; ++t) state.sums[t][0] = state.sums[t][1] = _mm256_setzero_ps();
    state.template sparse<2>(tile, tile.columns[0], tile.counts[0]);
    state.template sparse<4>(tile, tile.columns[1], tile.counts[1]);
    state.template sparse<8>(tile, tile.columns[2], tile.counts[2]);
    state.dense(tile, tile.columns[3], tile.counts[3]);
    for (int t = 0; t < kTokens; ++t)
      _mm256_storeu_ps(tile.sums + t * tile.sums_stride + 8 * half, _mm256_add_ps(state.sums[t][0], state.sums[t][1]));
  }
}

template <typename T>
void run_tokens(const Tile& tile, int tokens) {
  switch (tokens) {
    case 1: return run<T, 1>(tile);
    case 2: return run<T, 2>(tile);
    default: break;
  }
  // four tokens are what 16 registers hold; the second pass finds the tile's weights in the caches
  Tile part = tile;
  for (int t = 0; t < tokens; t += 4) {
    part.x = tile.x + t * tile.x_stride;
    part.sums = tile.sums + t * tile.sums_stride;
    run<T, 4>(part);
  }
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kAvx2,
                        .name = "avx2::variable_nm",
                        .f32 = run_tokens<float>,
                        .bf16 = run_tokens<BFloat16>,
                        .f16 = run_tokens<Float16>,
                        .i8 = run_tokens<int8_t>};

}  // namespace sparsecore::variable_nm::avx2
