// int8 products on AVX2: vpmaddwd adds two exact products of int16 to each of 8 lanes, so a quad is two of them. (Its
// sibling for bytes saturates.) Half a row of sums, 32 pixels, is four registers, and lanes keep their order.
#include <immintrin.h>

#include "cpu/group_lists/dot.h"

namespace sparsecore::group_lists::avx2 {
namespace {

constexpr int kHalf = kDotLanes / 2;
constexpr int kRegisters = 4;  // of half a row of sums

__m256 load(const float* p) { return _mm256_loadu_ps(p); }
__m256 load(const BFloat16* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
__m256 load(const Float16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }

template <typename T>
uint32_t largest_of(const T* x, int64_t count) {
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
  __m256i found = _mm256_setzero_si256();
  const auto take = [&](const T* p) {
    found = _mm256_max_epi32(found, _mm256_and_si256(magnitude, _mm256_castps_si256(load(p))));
  };
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) take(x + i);
  if (i < count) {
    T rest[8] = {};
    for (int64_t j = i; j < count; ++j) rest[j - i] = x[j];
    take(rest);
  }
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), found);
  int32_t result = 0;
  for (const int32_t lane : lanes) result = lane > result ? lane : result;
  return static_cast<uint32_t>(result);
}

uint32_t largest(const void* x, DType dtype, int64_t count) {
  switch (dtype) {
    case DType::kBFloat16: return largest_of(static_cast<const BFloat16*>(x), count);
    case DType::kFloat16: return largest_of(static_cast<const Float16*>(x), count);
    default: return largest_of(static_cast<const float*>(x), count);
  }
}

// Eight quantised lanes as int32.
__m256i quantise8(const float* x, const float* inverse) {
  // The bound is the second operand of max, so that a NaN becomes it.
  const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(x), _mm256_loadu_ps(inverse));
  const __m256 cut = _mm256_min_ps(_mm256_max_ps(scaled, _mm256_set1_ps(-127.0f)), _mm256_set1_ps(127.0f));
  return _mm256_cvtps_epi32(cut);
}

void quantise(const float* x, const float* inverse, int columns, bool together, uint8_t* panel) {
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // what packing quarters has mixed
  for (int c = 0; c < columns; ++c) {
    alignas(32) uint8_t row[kDotLanes];
    for (int lane = 0; lane < kDotLanes; lane += 32) {
      const float* from = x + c * kDotLanes + lane;
      const __m256i low = _mm256_packs_epi32(quantise8(from, inverse + lane), quantise8(from + 8, inverse + lane + 8)),
                    high = _mm256_packs_epi32(quantise8(from + 16, inverse + lane + 16),
                                              quantise8(from + 24, inverse + lane + 24));
      _mm256_store_si256(reinterpret_cast<__m256i*>(row + lane),
                         _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), in_order));
    }
    if (together) {
      for (int lane = 0; lane < kDotLanes; ++lane) panel[(c / 4 * kDotLanes + lane) * 4 + c % 4] = row[lane];
    } else {
      for (int lane = 0; lane < kDotLanes; lane += 32)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(panel + c * kDotLanes + lane),
                            _mm256_load_si256(reinterpret_cast<const __m256i*>(row + lane)));
    }
  }
}

__m128i load16(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

// kRows rows of every place from row `first` on, over the pixels from `lane` on.
template <int kRows, bool kTogether>
void rows_of(const DotTile& a, int first, int lane) {
  for (int64_t p = 0; p < a.places; ++p) {
    const int64_t channel = int64_t{a.order[p]} * a.rows + first;
    int32_t* out = a.sums + channel * kDotLanes + lane;
    __m256i sums[kRows][kRegisters];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int j = 0; j < kRegisters; ++j)
        sums[r][j] = a.accumulate ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(out + r * kDotLanes + 8 * j))
                                  : _mm256_set1_epi32(a.start[channel + r]);
    for (int64_t q = a.starts[p]; q < a.starts[p + 1]; ++q) {
      __m256i pair[kRows][2];
#pragma GCC unroll 2
      for (int r = 0; r < kRows; ++r) {
        const __m128i four = _mm_cvtepi8_epi16(_mm_cvtsi32_si128(a.weights[q * a.rows + first + r]));
        pair[r][0] = _mm256_broadcastd_epi32(four);
        pair[r][1] = _mm256_broadcastd_epi32(_mm_srli_epi64(four, 32));
      }
#pragma GCC unroll 4
      for (int j = 0; j < kRegisters; ++j) {
        __m256i x[2];  // int16 pairs of columns 0, 1 and 2, 3 of eight pixels
        if constexpr (kTogether) {
          const uint8_t* from = a.panel + (int64_t{a.columns[q]} * kDotLanes + lane + 8 * j) * 4;
          // Quads of two pixels side by side: pairs of one pixel become neighbours of the other's.
          const __m256i two = _mm256_cvtepi8_epi16(load16(from)), next = _mm256_cvtepi8_epi16(load16(from + 16));
          const __m256i even = _mm256_castps_si256(
                            _mm256_shuffle_ps(_mm256_castsi256_ps(two), _mm256_castsi256_ps(next), 0x88)),
                        odd = _mm256_castps_si256(
                            _mm256_shuffle_ps(_mm256_castsi256_ps(two), _mm256_castsi256_ps(next), 0xdd));
          x[0] = _mm256_permute4x64_epi64(even, 0xd8);
          x[1] = _mm256_permute4x64_epi64(odd, 0xd8);
        } else {
          const uint16_t* columns = a.columns + q * 4;
          const auto eight = [&](int i) {
            return _mm_loadl_epi64(
                reinterpret_cast<const __m128i*>(a.panel + int64_t{columns[i]} * kDotLanes + lane + 8 * j));
          };
          x[0] = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(eight(0), eight(1)));
          x[1] = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(eight(2), eight(3)));
        }
#pragma GCC unroll 2
        for (int r = 0; r < kRows; ++r) {
          sums[r][j] = _mm256_add_epi32(sums[r][j], _mm256_madd_epi16(x[0], pair[r][0]));
          sums[r][j] = _mm256_add_epi32(sums[r][j], _mm256_madd_epi16(x[1], pair[r][1]));
        }
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int j = 0; j < kRegisters; ++j)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * kDotLanes + 8 * j), sums[r][j]);
  }
}

template <bool kTogether>
void tile_rows(const DotTile& a) {
  for (int lane = 0; lane < kDotLanes; lane += kHalf) {
    if (a.rows == 1)
      rows_of<1, kTogether>(a, 0, lane);
    else
      for (int first = 0; first < a.rows; first += 2) rows_of<2, kTogether>(a, first, lane);
  }
}

void tile(const DotTile& a) { a.together ? tile_rows<true>(a) : tile_rows<false>(a); }

void finish(const DotFinish& a) {
  for (int64_t c = 0; c < a.channels; ++c)
    for (int lane = 0; lane < kDotLanes; lane += 8) {
      int32_t* at = a.sums + c * kDotLanes + lane;
      const __m256 scale = _mm256_mul_ps(_mm256_loadu_ps(a.lane_scale + lane), _mm256_set1_ps(a.scale[c]));
      __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at))), scale);
      if (a.bias) value = _mm256_add_ps(value, _mm256_set1_ps(a.bias[c]));
      if (a.residual) value = _mm256_add_ps(value, _mm256_loadu_ps(a.residual + c * kDotLanes + lane));
      _mm256_storeu_ps(reinterpret_cast<float*>(at), value);
    }
}

}  // namespace

const DotKernel kInt8 = {Isa::kAvx2, "avx2::group_lists_int8", 0, largest, quantise, tile, finish};

}  // namespace sparsecore::group_lists::avx2
