// int8 weights, activations quantised per token (quantise.h), two kept columns a step, both widened to int16: vpmaddwd
// gives w0 q0 + w1 q1 exactly, where the byte product of this level (vpmaddubsw) would saturate.
//
// A panel row holds the 32 tokens of a column as int16, each half of 16 so that unpacks of two rows give tokens in
// order: tokens 0..3 at places 0..3, 4..7 at 8..11, 8..11 at 4..7, 12..15 at 12..15.
#include "cpu/quantise.h"
#include "cpu/shared_lists/lanes_avx2.h"
#include "cpu/shared_lists/shared_lists.h"

namespace sparsecore::shared_lists::avx2 {
namespace {

int tile_tokens(int) { return 6; }

template <typename T>
uint32_t largest_bits(const T* row, int64_t k) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i largest = _mm256_setzero_si256();
  for (int64_t c = 0; c < k; c += 8) {
    const __m256i bits = _mm256_castps_si256(load_first(row + c, k - c));
    largest = _mm256_max_epi32(largest, _mm256_and_si256(magnitude, bits));
  }
  uint32_t lanes[8], result = 0;
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), largest);
  for (const uint32_t lane : lanes) result = lane > result ? lane : result;
  return result;
}

template <typename T>
void pack_from(const T* x, int64_t x_row_stride, int tokens, int64_t k, int16_t* panel, float* scales) {
  float inverse[kDotTokens];
  for (int t = 0; t < tokens; ++t) {
    const TokenScale scale = token_scale(largest_bits(x + t * x_row_stride, k));
    scales[t] = scale.scale;
    inverse[t] = scale.inverse;
  }
  for (int first = 0; first < tokens; first += 8) {
    const int count = tokens - first < 8 ? tokens - first : 8;
    int16_t* places = panel + first / 16 * 16 + first % 16 / 2;
    for (int64_t c = 0; c < k; c += 8) {
      __m256 rows[8];
      for (int i = 0; i < 8; ++i) {
        const __m256 value = i < count ? load_first(x + (first + i) * x_row_stride + c, k - c) : _mm256_setzero_ps();
        const __m256 scaled = _mm256_mul_ps(value, _mm256_set1_ps(i < count ? inverse[first + i] : 0.0f));
        rows[i] = _mm256_castsi256_ps(_mm256_cvtps_epi32(scaled));
      }
      transpose(rows);
      for (int i = 0; i < 8 && c + i < k; ++i) {
        const __m256i q = _mm256_castps_si256(rows[i]);
        const __m128i low = _mm256_castsi256_si128(q), high = _mm256_extracti128_si256(q, 1);
        int16_t* to = places + (c + i) * kDotTokens;
        _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi32(low, low));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 8), _mm_packs_epi32(high, high));
      }
    }
  }
}

void pack(const void* x, DType dtype, int64_t x_row_stride, int tokens, int64_t k, void* panel, float* scales) {
  int16_t* to = static_cast<int16_t*>(panel);
  switch (dtype) {
    case DType::kFloat32: return pack_from(static_cast<const float*>(x), x_row_stride, tokens, k, to, scales);
    case DType::kBFloat16: return pack_from(static_cast<const BFloat16*>(x), x_row_stride, tokens, k, to, scales);
    case DType::kFloat16: return pack_from(static_cast<const Float16*>(x), x_row_stride, tokens, k, to, scales);
    case DType::kInt8: return;  // no activations of that type
  }
}

// [2, vector] int8 -> [vector, 2] int16.
void interleave(const void* values, int64_t records, int vector, void* interleaved) {
  const int8_t* from = static_cast<const int8_t*>(values);
  __m256i* to = static_cast<__m256i*>(interleaved);
  const auto row = [&](int64_t r, int v) {
    if (r >= records) return _mm256_setzero_si256();
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + r * vector + v)));
  };
  for (int64_t r = 0; r < records; r += 2)
    for (int v = 0; v < vector; v += 16, to += 2) {
      const __m256i a = row(r, v), b = row(r + 1, v);
      const __m256i low = _mm256_unpacklo_epi16(a, b), high = _mm256_unpackhi_epi16(a, b);
      _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
      _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
    }
}

void gather(const void* panel, const uint16_t* columns, int64_t records, void* steps) {
  const int16_t* from = static_cast<const int16_t*>(panel);
  __m256i* to = static_cast<__m256i*>(steps);
  for (int64_t r = 0; r < records; r += 2)
    for (int half = 0; half < kDotTokens; half += 16, to += 2) {
      const auto row = [&](int64_t i) {
        if (i >= records) return _mm256_setzero_si256();
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + columns[i] * kDotTokens + half));
      };
      const __m256i a = row(r), b = row(r + 1);
      _mm256_storeu_si256(to, _mm256_unpacklo_epi16(a, b));
      _mm256_storeu_si256(to + 1, _mm256_unpackhi_epi16(a, b));
    }
}

// 6 tokens x 2 registers, for the 16 channels from `first`.
template <int kTokens>
void slice_of(const DotTile& a, int first) {
  const int32_t* weights = static_cast<const int32_t*>(a.interleaved) + first;
  const int32_t* x = static_cast<const int32_t*>(a.steps);
  int32_t* out = static_cast<int32_t*>(a.sums) + first;
  const auto at = [&](int t, int v) { return reinterpret_cast<__m256i*>(out + t * a.sums_stride + v * 8); };
  __m256i sums[kTokens][2];
#pragma GCC unroll 6
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) sums[t][v] = a.accumulate ? _mm256_loadu_si256(at(t, v)) : _mm256_setzero_si256();
  for (int64_t step = 0; step < a.count; ++step, weights += a.vector, x += kDotTokens) {
    const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
    const __m256i w1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + 8));
#pragma GCC unroll 6
    for (int t = 0; t < kTokens; ++t) {
      const __m256i columns = _mm256_set1_epi32(x[t]);
      sums[t][0] = _mm256_add_epi32(sums[t][0], _mm256_madd_epi16(w0, columns));
      sums[t][1] = _mm256_add_epi32(sums[t][1], _mm256_madd_epi16(w1, columns));
    }
  }
#pragma GCC unroll 6
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) _mm256_storeu_si256(at(t, v), sums[t][v]);
}

template <int kTokens>
void slice_up_to(const DotTile& a, int first) {
  if constexpr (kTokens > 1)
    if (a.tokens < kTokens) return slice_up_to<kTokens - 1>(a, first);
  slice_of<kTokens>(a, first);
}

void tile(const DotTile& a) {
  for (int first = 0; first < a.vector; first += 16) slice_up_to<6>(a, first);
}

}  // namespace

const DotKernel kInt8 = {.isa = Isa::kAvx2,
                         .name = "avx2::shared_lists_int8",
                         .weights = DType::kInt8,
                         .needs_fast_dot = false,
                         .min_vector = 16,
                         .min_tokens = 1,
                         .depth = 2,
                         .offset = 0,
                         .tile_tokens = tile_tokens,
                         .pack = pack,
                         .interleave = interleave,
                         .gather = gather,
                         .tile = tile};

}  // namespace sparsecore::shared_lists::avx2
