// N:M decode, 16 channels in two registers of eight.
//
// vpermps picks among eight floats; a window of m floats takes ceil(m / 8) of them, and the pick of the right eight is
// blended in by comparing the upper code bits.
#include <immintrin.h>

#include "cpu/nm_decode/nm_decode.h"
#include "cpu/wide_avx2.h"

namespace sparsecore::nm_decode::avx2 {
namespace {

template <int kParts>
__m256 pick(const float* x, __m256i place) {
  __m256 picked = _mm256_permutevar8x32_ps(_mm256_loadu_ps(x), place);
  for (int part = 1; part < kParts; ++part) {
    const __m256 other = _mm256_permutevar8x32_ps(_mm256_loadu_ps(x + 8 * part), place);
    const __m256i here = _mm256_cmpeq_epi32(_mm256_srli_epi32(place, 3), _mm256_set1_epi32(part));
    picked = _mm256_blendv_ps(picked, other, _mm256_castsi256_ps(here));
  }
  return picked;
}

template <typename T, int kTokens, int kParts>
void run_half(const Tile& tile, int half) {
  const T* values = static_cast<const T*>(tile.values) + 8 * half;
  const uint32_t* words = tile.codes + 8 * half;
  const __m256i mask = _mm256_set1_epi32((1 << tile.bits) - 1);
  const __m128i bits = _mm_cvtsi32_si128(tile.bits);
  __m256 sums[kTokens][2];
  for (int t = 0; t < kTokens; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_ps();
  __m256i code = _mm256_setzero_si256();
  int left = 0;
  const float* x = tile.x;
  for (int64_t g = 0; g < tile.groups; ++g, x += tile.m) {
    const auto slot = [&](int parity) {
      if (left == 0) {
        code = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(words));
        words += kTile;
        left = tile.per_word;
      }
      const __m256i place = _mm256_and_si256(code, mask);
      code = _mm256_srl_epi32(code, bits);
      --left;
      const __m256 weight = WideAvx2::load(values);
      values += kTile;
      for (int t = 0; t < kTokens; ++t)
        sums[t][parity] = _mm256_fmadd_ps(weight, pick<kParts>(x + t * tile.x_stride, place), sums[t][parity]);
    };
    int j = 0;
    for (; j + 2 <= tile.n_kept; j += 2) {
      slot(0);
      slot(1);
    }
    if (j < tile.n_kept) slot(g & 1);
  }
  for (int t = 0; t < kTokens; ++t)
    _mm256_storeu_ps(tile.sums + t * tile.sums_stride + 8 * half, _mm256_add_ps(sums[t][0], sums[t][1]));
}

template <typename T, int kTokens>
void run(const Tile& tile) {
  for (int half = 0; half < 2; ++half) {
    if (tile.m <= 8) {
      run_half<T, kTokens, 1>(tile, half);
    } else if (tile.m <= 16) {
      run_half<T, kTokens, 2>(tile, half);
    } else {
      run_half<T, kTokens, 4>(tile, half);
    }
  }
}

template <typename T>
void run_tokens(const Tile& tile, int tokens) {
  switch (tokens) {
    case 1: return run<T, 1>(tile);
    case 2: return run<T, 2>(tile);
    default: break;
  }
  // four tokens are what 16 registers hold; the second pass finds the tile's weights in the first-level cache
  Tile part = tile;
  for (int t = 0; t < tokens; t += 4) {
    part.x = tile.x + t * tile.x_stride;
    part.sums = tile.sums + t * tile.sums_stride;
    run<T, 4>(part);
  }
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kAvx2,
                        .name = "avx2::nm_decode",
                        .f32 = run_tokens<float>,
                        .bf16 = run_tokens<BFloat16>,
                        .f16 = run_tokens<Float16>,
                        .i8 = run_tokens<int8_t>};

}  // namespace sparsecore::nm_decode::avx2
