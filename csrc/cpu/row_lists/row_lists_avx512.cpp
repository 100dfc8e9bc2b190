// Row lists on AVX-512: a tile is one to four registers of 16 tokens, or one narrower register for up to 4 or 8 tokens.
//
// Every weight costs V loads from the panel, which must stay in the level 1 cache, and its own overhead once: wide
// tiles are better until the panel no longer fits. 32 KB are the smallest such cache among these cores.
#include "cpu/row_lists/row_lists_x86.h"
#include "cpu/row_lists/transpose_avx512.h"

namespace sparsecore::row_lists::avx512 {
namespace {

struct Lanes16 {
  using F = __m512;
  static constexpr int kLanes = 16;
  static F zero() { return _mm512_setzero_ps(); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F a) { _mm512_storeu_ps(p, a); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F madd(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F splat(const float* p) { return _mm512_set1_ps(*p); }
  static F four(const float* p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
  template <int I>
  static F pick(F four) {
    return _mm512_permute_ps(four, 0x55 * I);
  }
  // Lane j of the result is the sum of the lanes of sums[j].
  static SPARSECORE_INLINE F reduce(F (&sums)[16]) {
    for (int i = 0; i < 8; ++i)
      sums[i] = add(_mm512_unpacklo_ps(sums[2 * i], sums[2 * i + 1]), _mm512_unpackhi_ps(sums[2 * i], sums[2 * i + 1]));
    for (int i = 0; i < 4; ++i) {
      const __m512d a = _mm512_castps_pd(sums[2 * i]), b = _mm512_castps_pd(sums[2 * i + 1]);
      sums[i] = add(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    // Register i now holds sums 4 i .. 4 i + 3 of each quarter.
    for (int i = 0; i < 2; ++i)
      sums[i] = add(_mm512_shuffle_f32x4(sums[2 * i], sums[2 * i + 1], 0x88),
                    _mm512_shuffle_f32x4(sums[2 * i], sums[2 * i + 1], 0xdd));
    return add(_mm512_shuffle_f32x4(sums[0], sums[1], 0x88), _mm512_shuffle_f32x4(sums[0], sums[1], 0xdd));
  }
  static SPARSECORE_INLINE void add_to(float* out, F sum, int64_t count, bool accumulate) {
    const __mmask16 lanes = static_cast<__mmask16>((1u << count) - 1);
    if (accumulate) sum = add(sum, _mm512_maskz_loadu_ps(lanes, out));
    _mm512_mask_storeu_ps(out, lanes, sum);
  }
};

struct Widening {
  static const float* widen(const float* values, int64_t, float*) { return values; }
  template <typename T>
  static const float* widen(const T* values, int64_t count, float* to) {
    for (int64_t i = 0; i < count; i += 16) _mm512_store_ps(to + i, load16(values + i, first(count - i)));
    return to;
  }
};

void store16(float* p, __m512 a, __mmask16 lanes) { _mm512_mask_storeu_ps(p, lanes, a); }
void store16(Float16* p, __m512 a, __mmask16 lanes) {
  _mm256_mask_storeu_epi16(p, lanes, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
void store16(float* p, __m512 a) { _mm512_storeu_ps(p, a); }
void store16(Float16* p, __m512 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

// to[c][t] = from[t][c], a 16 x 16 tile at a time; rows of `to` are `lanes` wide, of which those past `tokens` get 0.
template <typename T, typename To>
void transpose(const T* from, int64_t from_stride, int64_t tokens, int64_t columns, int64_t lanes, To* to,
               int64_t to_stride) {
  for (int64_t t = 0; t < lanes; t += 16) {
    const __mmask16 kept = first(lanes - t);
    const int64_t rows = tokens - t < 16 ? tokens - t : 16;
    for (int64_t c = 0; c < columns; c += 16) {
      __m512 r[16];
      const T* tile = from + t * from_stride + c;
      To* out = to + c * to_stride + t;
      if (rows == 16 && columns - c >= 16) {
        for (int i = 0; i < 16; ++i) r[i] = load16(tile + i * from_stride, 0xffff);
        transpose16(r);
        for (int i = 0; i < 16; ++i) store16(out + i * to_stride, r[i]);
      } else {
        const __mmask16 present = first(columns - c);
        for (int i = 0; i < 16; ++i) r[i] = i < rows ? load16(tile + i * from_stride, present) : _mm512_setzero_ps();
        transpose16(r);
        for (int i = 0; i < 16; ++i)
          if (c + i < columns) store16(out + i * to_stride, r[i], kept);
      }
    }
  }
}

template <typename To>
void pack_as(const void* x, DType dtype, int64_t x_row_stride, int tokens, int columns, int lanes, void* panel) {
  To* to = static_cast<To*>(panel);
  switch (dtype) {
    case DType::kBFloat16:
      return transpose(static_cast<const BFloat16*>(x), x_row_stride, tokens, columns, lanes, to, lanes);
    case DType::kFloat16:
      return transpose(static_cast<const Float16*>(x), x_row_stride, tokens, columns, lanes, to, lanes);
    default: return transpose(static_cast<const float*>(x), x_row_stride, tokens, columns, lanes, to, lanes);
  }
}

void tile(const Tile& tile) {
  switch (tile.lanes) {
    case 4: return ListLoop<Lanes4, 1, 4>::run<Widening>(tile);
    case 8: return ListLoop<Lanes8, 1, 4>::run<Widening>(tile);
    case 16: return ListLoop<Lanes16, 1, 4>::run<Widening>(tile);
    case 32: return ListLoop<Lanes16, 2, 2>::run<Widening>(tile);
    case 48: return ListLoop<Lanes16, 3, 1>::run<Widening>(tile);
    default: return ListLoop<Lanes16, 4, 1>::run<Widening>(tile);
  }
}

int granule(int64_t m) { return m <= 4 ? 4 : m <= 8 ? 8 : 16; }

int max_lanes(int32_t block) {
  constexpr int kPanelFloats = 32 * 1024 / 4;
  const int lanes = kPanelFloats / block / 16 * 16;
  return lanes < 64 ? lanes : 64;
}

void gradient(const GradientTile& tile) {
  switch (tile.lanes) {
    case 16: return GradientLoop<Lanes16, 1>::run(tile);
    case 32: return GradientLoop<Lanes16, 2>::run(tile);
    default: return GradientLoop<Lanes16, 4>::run(tile);
  }
}

}  // namespace

void pack_half(const void* x, DType dtype, int64_t x_row_stride, int tokens, int columns, int lanes, void* panel) {
  pack_as<Float16>(x, dtype, x_row_stride, tokens, columns, lanes, panel);
}

void unpack(const float* sums, int64_t channels, int lanes, int tokens, float* rows, int64_t rows_stride) {
  transpose(sums, lanes, channels, tokens, channels, rows, rows_stride);
}

const Kernel kKernel = {Isa::kAvx512,
                        "avx512::row_lists",
                        "float32 bfloat16 float16 int8",
                        4,
                        granule,
                        max_lanes,
                        pack_as<float>,
                        tile,
                        unpack,
                        64,
                        gradient,
                        single};

}  // namespace sparsecore::row_lists::avx512
