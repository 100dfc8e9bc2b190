// Row lists on AVX2: a tile is one to six registers of 8 tokens, or half a register for up to 4. Six registers in two
// sets, four weights and one of them spread take 14 of the 16 registers.
#include "cpu/row_lists/row_lists_x86.h"

namespace sparsecore::row_lists::avx2 {
namespace {

__m256 load8(const float* p) { return _mm256_loadu_ps(p); }
__m256 load8(const BFloat16* p) {
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}
__m256 load8(const Float16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
__m256 load8(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

// The first `count` of eight, the others zero and not read.
template <typename T>
__m256 load_first(const T* p, int64_t count) {
  T copy[8] = {};
  for (int64_t i = 0; i < count; ++i) copy[i] = p[i];
  return load8(copy);
}

struct Widening {
  static const float* widen(const float* values, int64_t, float*) { return values; }
  template <typename T>
  static const float* widen(const T* values, int64_t count, float* to) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) _mm256_store_ps(to + i, load8(values + i));
    if (i < count) _mm256_store_ps(to + i, load_first(values + i, count - i));
    return to;
  }
};

// Eight rows become eight columns.
SPARSECORE_INLINE void transpose8(__m256 (&r)[8]) {
  __m256 t[8];
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < 2; ++j) {
      const __m256d low = _mm256_castps_pd(t[4 * i + j]), high = _mm256_castps_pd(t[4 * i + 2 + j]);
      r[4 * i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
      r[4 * i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
    }
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x20);
    t[4 + c] = _mm256_permute2f128_ps(r[c], r[4 + c], 0x31);
  }
  for (int i = 0; i < 8; ++i) r[i] = t[i];
}

// to[c][t] = from[t][c], an 8 x 8 tile at a time; rows of `to` are `lanes` wide, of which those past `tokens` get 0.
template <typename T>
void transpose(const T* from, int64_t from_stride, int64_t tokens, int64_t columns, int64_t lanes, float* to,
               int64_t to_stride) {
  for (int64_t t = 0; t < lanes; t += 8) {
    const int64_t rows = tokens - t < 8 ? tokens - t : 8, kept = lanes - t;
    for (int64_t c = 0; c < columns; c += 8) {
      __m256 r[8];
      const T* tile = from + t * from_stride + c;
      float* out = to + c * to_stride + t;
      if (rows == 8 && columns - c >= 8) {
        for (int i = 0; i < 8; ++i) r[i] = load8(tile + i * from_stride);
        transpose8(r);
        for (int i = 0; i < 8; ++i) _mm256_storeu_ps(out + i * to_stride, r[i]);
        continue;
      }
      const int64_t present = columns - c < 8 ? columns - c : 8;
      for (int i = 0; i < 8; ++i) r[i] = i < rows ? load_first(tile + i * from_stride, present) : _mm256_setzero_ps();
      transpose8(r);
      for (int i = 0; i < present; ++i) {
        alignas(32) float column[8];
        _mm256_store_ps(column, r[i]);
        for (int64_t j = 0; j < kept && j < 8; ++j) out[i * to_stride + j] = column[j];
      }
    }
  }
}

void pack(const void* x, DType dtype, int64_t x_row_stride, int tokens, int columns, int lanes, void* panel) {
  float* to = static_cast<float*>(panel);
  switch (dtype) {
    case DType::kBFloat16:
      return transpose(static_cast<const BFloat16*>(x), x_row_stride, tokens, columns, lanes, to, lanes);
    case DType::kFloat16:
      return transpose(static_cast<const Float16*>(x), x_row_stride, tokens, columns, lanes, to, lanes);
    default: return transpose(static_cast<const float*>(x), x_row_stride, tokens, columns, lanes, to, lanes);
  }
}

void unpack(const float* sums, int64_t channels, int lanes, int tokens, float* rows, int64_t rows_stride) {
  transpose(sums, lanes, channels, tokens, channels, rows, rows_stride);
}

void tile(const Tile& tile) {
  switch (tile.lanes) {
    case 4: return ListLoop<Lanes4, 1, 4>::run<Widening>(tile);
    case 8: return ListLoop<Lanes8, 1, 4>::run<Widening>(tile);
    case 16: return ListLoop<Lanes8, 2, 2>::run<Widening>(tile);
    case 24: return ListLoop<Lanes8, 3, 1>::run<Widening>(tile);
    case 32: return ListLoop<Lanes8, 4, 1>::run<Widening>(tile);
    case 40: return ListLoop<Lanes8, 5, 1>::run<Widening>(tile);
    default: return ListLoop<Lanes8, 6, 1>::run<Widening>(tile);
  }
}

int granule(int64_t m) { return m <= 4 ? 4 : 8; }

// As on AVX-512, with six registers at most.
int max_lanes(int32_t block) {
  constexpr int kPanelFloats = 32 * 1024 / 4;
  const int lanes = kPanelFloats / block / 8 * 8;
  return lanes < 48 ? lanes : 48;
}

void gradient(const GradientTile& tile) {
  if (tile.lanes == 16) return GradientLoop<Lanes8, 2>::run(tile);
  return GradientLoop<Lanes8, 4>::run(tile);
}

}  // namespace

const Kernel kKernel = {Isa::kAvx2,
                        "avx2::row_lists",
                        "float32 bfloat16 float16 int8",
                        4,
                        granule,
                        max_lanes,
                        pack,
                        tile,
                        unpack,
                        32,
                        gradient,
                        single};

}  // namespace sparsecore::row_lists::avx2
