// Group lists on AVX2: eight pixels a register, sixteen registers, no masks.
#include <cstring>

#include "cpu/group_lists/group_lists_x86.h"
#include "cpu/row_lists/row_lists.h"

namespace sparsecore::group_lists::avx2 {
namespace {

struct Lanes8 {
  using F = __m256;
  using Mask = int;  // tiles are whole registers: ignored
  static constexpr int kLanes = 8;
  static Mask all() { return 0; }
  static Mask first(int) { return 0; }
  static F zero() { return _mm256_setzero_ps(); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load(const float* p, Mask) { return _mm256_loadu_ps(p); }
  static void store(float* p, F a, Mask) { _mm256_storeu_ps(p, a); }
  static F splat(const float* p) { return _mm256_broadcast_ss(p); }
  static F splat(float a) { return _mm256_set1_ps(a); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F madd(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F four(const float* p) { return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p)); }
  template <int I>
  static F pick(F four) {
    return _mm256_permute_ps(four, 0x55 * I);
  }
  // Twelve sums, three of x and a weight take all registers: records must not overlap.
  static constexpr bool roomy(int v, int w) { return v * w <= 10; }
  template <int V, int W>
  static SPARSECORE_INLINE void settle(F (&sums)[V][W]) {
    if constexpr (!roomy(V, W))
      for (auto& row : sums)
#pragma GCC unroll 8
        for (F& sum : row) __asm__("" : "+x"(sum));
  }
  // Lane j of the result is the sum of the lanes of sums[j].
  static SPARSECORE_INLINE F reduce(F (&sums)[8]) {
    for (int i = 0; i < 4; ++i)
      sums[i] = add(_mm256_unpacklo_ps(sums[2 * i], sums[2 * i + 1]), _mm256_unpackhi_ps(sums[2 * i], sums[2 * i + 1]));
    for (int i = 0; i < 2; ++i) {
      const __m256d a = _mm256_castps_pd(sums[2 * i]), b = _mm256_castps_pd(sums[2 * i + 1]);
      sums[i] = add(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
    }
    return add(_mm256_permute2f128_ps(sums[0], sums[1], 0x20), _mm256_permute2f128_ps(sums[0], sums[1], 0x31));
  }
  static SPARSECORE_INLINE void add_to(float* out, F sum, int64_t count, bool accumulate) {
    const __m256i lanes =
        _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    if (accumulate) sum = add(sum, _mm256_maskload_ps(out, lanes));
    _mm256_maskstore_ps(out, lanes, sum);
  }
};

// 1 x 6 and two sets: 12 sums + weight. 2 x 5: 10 sums + 5 x + weight. 4 x 3: 12 sums + 3 x + weight.
void tile(const Tile& tile) {
  switch (tile.rows) {
    case 1: return run_width<Lanes8, 1, 6>(tile);
    case 2: return run_width<Lanes8, 2, 5>(tile);
    case 4: return run_width<Lanes8, 4, 3>(tile);
    default: return run_width<Lanes8, 4, 3, true>(tile);
  }
}

int max_lanes(int rows, int, bool) { return rows >= 4 ? 24 : rows == 2 ? 40 : 48; }

void pack(const void* x, DType dtype, int64_t x_row_stride, int tokens, int columns, int lanes, float* panel) {
  row_lists::avx2::kKernel.pack(x, dtype, x_row_stride, tokens, columns, lanes, panel);
}

void unpack(const float* sums, int64_t channels, int lanes, int tokens, float* rows, int64_t rows_stride) {
  row_lists::avx2::kKernel.unpack(sums, channels, lanes, tokens, rows, rows_stride);
}

__m256 load8(const BFloat16* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
__m256 load8(const Float16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
__m256 load8(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

template <typename T>
void widen_as(const T* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(to + i, load8(from + i));
  if (i == count) return;
  T rest[8] = {};
  std::memcpy(rest, from + i, (count - i) * sizeof(T));
  float wide[8];
  _mm256_storeu_ps(wide, load8(rest));
  std::memcpy(to + i, wide, (count - i) * sizeof(float));
}

void widen(const void* from, DType dtype, int64_t count, float* to) {
  switch (dtype) {
    case DType::kBFloat16: return widen_as(static_cast<const BFloat16*>(from), count, to);
    case DType::kFloat16: return widen_as(static_cast<const Float16*>(from), count, to);
    case DType::kInt8: return widen_as(static_cast<const int8_t*>(from), count, to);
    default: std::memcpy(to, from, count * sizeof(float));
  }
}

}  // namespace

const Kernel kKernel = {Isa::kAvx2,
                        "avx2::group_lists",
                        "float32 bfloat16 float16 int8",
                        8,
                        false,
                        max_lanes,
                        tile,
                        pack,
                        unpack,
                        widen,
                        32,
                        GradientLoop<Lanes8>::run,
                        nullptr,
                        true};

}  // namespace sparsecore::group_lists::avx2
