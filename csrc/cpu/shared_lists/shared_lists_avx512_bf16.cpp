// bfloat16 activations and weights, two kept columns a step: sums += w0 x0 + w1 x1 in float32, where the core runs
// vdpbf16ps at twice the rate of float32 products.
//
// A panel row holds the 32 tokens of a column so that one unpack of two rows gives 16 tokens in order: token t < 16 at
// place t / 4 * 8 + t % 4, token 16 + t four places later.
#include "cpu/shared_lists/dot_tile_avx512.h"
#include "cpu/shared_lists/transpose_avx512.h"

namespace sparsecore::shared_lists::avx512_bf16 {
namespace {

struct Dot {
  using R = __m512;
  static R zero() { return _mm512_setzero_ps(); }
  static R load(const int32_t* p) { return _mm512_loadu_ps(p); }
  static void store(int32_t* p, R value) { _mm512_storeu_ps(p, value); }
  static R product(R sums, __m512i x, __m512i w) { return _mm512_dpbf16_ps(sums, (__m512bh)w, (__m512bh)x); }
};

// Places of a panel row, taken from two registers of 16 tokens x (even column, odd column).
inline __m512i places(int odd) {
  alignas(64) uint16_t index[32];
  for (int t = 0; t < 16; ++t) {
    index[t / 4 * 8 + t % 4] = static_cast<uint16_t>(2 * t + odd);
    index[t / 4 * 8 + 4 + t % 4] = static_cast<uint16_t>(32 + 2 * t + odd);
  }
  return _mm512_load_si512(index);
}

void pack(const void* x, DType, int64_t x_row_stride, int tokens, int64_t k, void* panel, float*) {
  const uint16_t* from = static_cast<const uint16_t*>(x);
  uint16_t* to = static_cast<uint16_t*>(panel);
  const __m512i even = places(0), odd = places(1);
  for (int64_t c = 0; c < k; c += 32) {
    const int64_t width = k - c < 32 ? k - c : 32;
    const __mmask32 inside = static_cast<__mmask32>((uint64_t{1} << width) - 1);
    __m512 low[16], high[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      low[i] = i < tokens ? _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(inside, from + i * x_row_stride + c))
                          : _mm512_setzero_ps();
    }
    transpose(low);
    if (tokens > 16) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i)
        high[i] = 16 + i < tokens
                      ? _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(inside, from + (16 + i) * x_row_stride + c))
                      : _mm512_setzero_ps();
      transpose(high);
    } else {
      for (__m512& row : high) row = _mm512_setzero_ps();
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      const __m512i a = _mm512_castps_si512(low[i]), b = _mm512_castps_si512(high[i]);
      uint16_t* row = to + (c + 2 * i) * kDotTokens;
      if (2 * i < width) _mm512_storeu_si512(row, _mm512_permutex2var_epi16(a, even, b));
      if (2 * i + 1 < width) _mm512_storeu_si512(row + kDotTokens, _mm512_permutex2var_epi16(a, odd, b));
    }
  }
}

// [2, vector] -> [vector, 2], 32 channels at a time, or the 16 there are.
void interleave(const void* values, int64_t records, int vector, void* interleaved) {
  const uint16_t* from = static_cast<const uint16_t*>(values);
  char* to = static_cast<char*>(interleaved);
  alignas(64) uint16_t index[32];
  for (int i = 0; i < 32; ++i) index[i] = static_cast<uint16_t>(i % 2 * 32 + i / 2);
  const __m512i low = _mm512_load_si512(index), high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  const __mmask32 lanes = vector >= 32 ? 0xffffffffu : 0xffffu;
  for (int64_t r = 0; r < records; r += 2, from += 2 * vector) {
    const __mmask32 second = r + 1 < records ? lanes : 0;
    for (int v = 0; v < vector; v += 32) {
      const __m512i a = _mm512_maskz_loadu_epi16(lanes, from + v);
      const __m512i b = _mm512_maskz_loadu_epi16(second, from + vector + v);
      _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, low, b));
      to += 64;
      if (vector == 16) break;
      _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, high, b));
      to += 64;
    }
  }
}

void gather(const void* panel, const uint16_t* columns, int64_t records, void* steps) {
  const uint16_t* from = static_cast<const uint16_t*>(panel);
  char* to = static_cast<char*>(steps);
  for (int64_t r = 0; r < records; r += 2, to += 128) {
    const __m512i a = _mm512_loadu_si512(from + columns[r] * kDotTokens);
    const __m512i b = r + 1 < records ? _mm512_loadu_si512(from + columns[r + 1] * kDotTokens) : _mm512_setzero_si512();
    _mm512_storeu_si512(to, _mm512_unpacklo_epi16(a, b));
    _mm512_storeu_si512(to + 64, _mm512_unpackhi_epi16(a, b));
  }
}

}  // namespace

const DotKernel kBFloat16 = {.isa = Isa::kAvx512Bf16,
                             .name = "avx512_bf16::shared_lists_bf16",
                             .weights = DType::kBFloat16,
                             .needs_fast_dot = true,
                             .min_vector = 16,
                             .min_tokens = 12,
                             .depth = 2,
                             .offset = 0,
                             .tile_tokens = dot_tile_tokens,
                             .pack = pack,
                             .interleave = interleave,
                             .gather = gather,
                             .tile = dot_tile<Dot>};

}  // namespace sparsecore::shared_lists::avx512_bf16
