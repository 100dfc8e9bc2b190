// sums[t][v] = sum over records r of values[r][v] * x[t][columns[r]], sixteen channels v a register.
//
//   vector 64   6 tokens x 4 registers: 24 sums + 4 weights + 1 broadcast = 29 of 32 registers
//   vector 32   12 x 2: 24 + 2 + 1       vector 16   24 x 1: 24 + 1, x as a memory operand
//
// Loads per 24 products: 10, 14 and 25, so vectors 64 and 32 are bound by arithmetic and 16 just so. Six rows are few
// enough to be read where they lie; 12 and 24 rows a power of two apart would share one cache set, hence the panel.
#include <immintrin.h>

#include "cpu/shared_lists/shared_lists.h"
#include "cpu/shared_lists/transpose_avx512.h"

namespace sparsecore::shared_lists::avx512 {
namespace {

inline __m512 load(const float* p) { return _mm512_loadu_ps(p); }
inline __m512 load(const BFloat16* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}
inline __m512 load(const Float16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline __m512 load(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

inline __m512 load_first(const float* p, __mmask16 lanes) { return _mm512_maskz_loadu_ps(lanes, p); }
inline __m512 load_first(const BFloat16* p, __mmask16 lanes) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, p)), 16));
}
inline __m512 load_first(const Float16* p, __mmask16 lanes) {
  return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, p));
}
inline __m512 load_first(const int8_t* p, __mmask16 lanes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(lanes, p)));
}

int tile_tokens(int vector) { return vector >= 64 ? 6 : vector == 32 ? 12 : 24; }

Layout layout(int vector) { return vector >= 64 ? Layout::kRows : Layout::kColumns; }

// kTokens x kWide registers of sums.
template <typename T, int kTokens, int kWide, Layout kLayout>
void tile_of(const FloatTile& a) {
  const T* values = static_cast<const T*>(a.values);
  __m512 sums[kTokens][kWide];
#pragma GCC unroll 32
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v)
      sums[t][v] = a.start ? _mm512_loadu_ps(a.start + t * a.start_stride + v * 16) : _mm512_setzero_ps();
  const float* rows[kTokens];
#pragma GCC unroll 32
  for (int t = 0; t < kTokens; ++t) rows[t] = a.x + t * a.token_stride;
  const char* ahead = a.prefetch;
  for (int64_t r = 0; r < a.records; ++r) {
    const int64_t c = a.columns[r];
    if (ahead) {
      _mm_prefetch(ahead, _MM_HINT_T1);
      _mm_prefetch(ahead + 64, _MM_HINT_T1);
      ahead += a.prefetch_step;
    }
    __m512 w[kWide];
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v) w[v] = load(values + r * (16 * kWide) + v * 16);
#pragma GCC unroll 32
    for (int t = 0; t < kTokens; ++t) {
      const __m512 x = _mm512_set1_ps(kLayout == Layout::kRows ? rows[t][c] : a.x[c * kTokens + t]);
#pragma GCC unroll 4
      for (int v = 0; v < kWide; ++v) sums[t][v] = _mm512_fmadd_ps(w[v], x, sums[t][v]);
    }
  }
#pragma GCC unroll 32
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v) _mm512_storeu_ps(a.sums + t * a.sums_stride + v * 16, sums[t][v]);
}

template <typename T, int kWide, Layout kLayout, int kTokens>
void tile_up_to(const FloatTile& a) {
  if constexpr (kTokens > 1)
    if (a.tokens < kTokens) return tile_up_to<T, kWide, kLayout, kTokens - 1>(a);
  tile_of<T, kTokens, kWide, kLayout>(a);
}

// Weights of 16 and 8 bits are widened in registers by every tile: that runs beside the products on other ports.
template <typename T>
void tile_typed(const FloatTile& a) {
  switch (a.vector) {
    case 64: return tile_up_to<T, 4, Layout::kRows, 6>(a);
    case 32: return tile_up_to<T, 2, Layout::kColumns, 12>(a);
    default: return tile_up_to<T, 1, Layout::kColumns, 24>(a);
  }
}

void tile(const FloatTile& a) {
  switch (a.weights) {
    case DType::kFloat32: return tile_typed<float>(a);
    case DType::kBFloat16: return tile_typed<BFloat16>(a);
    case DType::kFloat16: return tile_typed<Float16>(a);
    case DType::kInt8: return tile_typed<int8_t>(a);
  }
}

template <typename T>
void widen_from(const T* from, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) _mm512_storeu_ps(to + i, load(from + i));
  if (i < count) {
    const __mmask16 lanes = static_cast<__mmask16>((1u << (count - i)) - 1);
    _mm512_mask_storeu_ps(to + i, lanes, load_first(from + i, lanes));
  }
}

void widen(const void* from, DType dtype, int64_t count, float* to) {
  switch (dtype) {
    case DType::kFloat32: return widen_from(static_cast<const float*>(from), count, to);
    case DType::kBFloat16: return widen_from(static_cast<const BFloat16*>(from), count, to);
    case DType::kFloat16: return widen_from(static_cast<const Float16*>(from), count, to);
    case DType::kInt8: return widen_from(static_cast<const int8_t*>(from), count, to);
  }
}

template <typename T>
void pack_from(const T* x, int64_t x_row_stride, int tokens, int64_t k, float* panel) {
  for (int first = 0; first < tokens; first += 16) {
    const int count = tokens - first < 16 ? tokens - first : 16;
    const __mmask16 kept = static_cast<__mmask16>((1u << count) - 1);
    for (int64_t c = 0; c < k; c += 16) {
      const int64_t width = k - c < 16 ? k - c : 16;
      const __mmask16 inside = static_cast<__mmask16>((1u << width) - 1);
      __m512 rows[16];
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        rows[i] = i < count ? load_first(x + (first + i) * x_row_stride + c, inside) : _mm512_setzero_ps();
      transpose(rows);
      float* to = panel + c * tokens + first;
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        if (i < width) _mm512_mask_storeu_ps(to + i * tokens, kept, rows[i]);
    }
  }
}

void pack_columns(const void* x, DType dtype, int64_t x_row_stride, int tokens, int64_t k, float* panel) {
  switch (dtype) {
    case DType::kFloat32: return pack_from(static_cast<const float*>(x), x_row_stride, tokens, k, panel);
    case DType::kBFloat16: return pack_from(static_cast<const BFloat16*>(x), x_row_stride, tokens, k, panel);
    case DType::kFloat16: return pack_from(static_cast<const Float16*>(x), x_row_stride, tokens, k, panel);
    case DType::kInt8: return;  // no activations of that type
  }
}

// kRecords x kWide registers of gradients; tokens pass, their channels loaded, their columns broadcast.
template <int kRecords, int kWide>
void gradient_of(const GradientTile& a, int64_t record) {
  float* out = a.out + record * (16 * kWide);
  __m512 sums[kRecords][kWide];
  const float* columns[kRecords];
#pragma GCC unroll 24
  for (int r = 0; r < kRecords; ++r) {
    columns[r] = a.x + a.columns[record + r];
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v)
      sums[r][v] = a.accumulate ? _mm512_loadu_ps(out + (r * kWide + v) * 16) : _mm512_setzero_ps();
  }
  for (int64_t t = 0; t < a.tokens; ++t) {
    __m512 slope[kWide];
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v) slope[v] = _mm512_loadu_ps(a.grad_y + t * a.grad_y_stride + v * 16);
#pragma GCC unroll 24
    for (int r = 0; r < kRecords; ++r) {
      const __m512 x = _mm512_set1_ps(columns[r][t * a.x_stride]);
#pragma GCC unroll 4
      for (int v = 0; v < kWide; ++v) sums[r][v] = _mm512_fmadd_ps(slope[v], x, sums[r][v]);
    }
  }
#pragma GCC unroll 24
  for (int r = 0; r < kRecords; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < kWide; ++v) _mm512_storeu_ps(out + (r * kWide + v) * 16, sums[r][v]);
}

template <int kRecords, int kWide>
void gradient_wide(const GradientTile& a) {
  int64_t r = 0;
  for (; r + kRecords <= a.records; r += kRecords) gradient_of<kRecords, kWide>(a, r);
  for (; r < a.records; ++r) gradient_of<1, kWide>(a, r);
}

void gradient(const GradientTile& a) {
  switch (a.vector) {
    case 64: return gradient_wide<6, 4>(a);
    case 32: return gradient_wide<10, 2>(a);
    default: return gradient_wide<12, 1>(a);
  }
}

}  // namespace

const Kernel kKernel = {.isa = Isa::kAvx512,
                        .name = "avx512::shared_lists",
                        .weights = "float32 bfloat16 float16 int8",
                        .min_vector = 16,
                        .widen_above = INT32_MAX,
                        .tile_tokens = tile_tokens,
                        .layout = layout,
                        .pack_columns = pack_columns,
                        .widen = widen,
                        .tile = tile,
                        .gradient = gradient};

}  // namespace sparsecore::shared_lists::avx512
