// int8 weights, activations quantised per token (quantise.h), four kept columns a step: vpdpbusd adds
// w0 u0 + w1 u1 + w2 u2 + w3 u3 to an int32 lane, u = q + 128. Exact: 255 * 127 * 65536 columns fit in 31 bits.
#include "cpu/quantise.h"
#include "cpu/shared_lists/dot_tile_avx512.h"
#include "cpu/shared_lists/transpose_avx512.h"

namespace sparsecore::shared_lists::avx512_vnni {
namespace {

struct Dot {
  using R = __m512i;
  static R zero() { return _mm512_setzero_si512(); }
  static R load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void store(int32_t* p, R value) { _mm512_storeu_si512(p, value); }
  static R product(R sums, __m512i x, __m512i w) { return _mm512_dpbusd_epi32(sums, x, w); }
};

inline __m512 load(const float* p, __mmask16 lanes) { return _mm512_maskz_loadu_ps(lanes, p); }
inline __m512 load(const BFloat16* p, __mmask16 lanes) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, p)), 16));
}
inline __m512 load(const Float16* p, __mmask16 lanes) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, p)); }

// The first `count` lanes, none where count is not positive.
inline __mmask16 first_lanes(int64_t count) {
  return count >= 16 ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
}

template <typename T>
uint32_t largest_bits(const T* row, int64_t k) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i a = _mm512_setzero_si512(), b = a;
  int64_t c = 0;
  for (; c + 32 <= k; c += 32) {
    a = _mm512_max_epi32(a, _mm512_and_si512(magnitude, _mm512_castps_si512(load(row + c, 0xffff))));
    b = _mm512_max_epi32(b, _mm512_and_si512(magnitude, _mm512_castps_si512(load(row + c + 16, 0xffff))));
  }
  for (; c < k; c += 16)
    a = _mm512_max_epi32(a, _mm512_and_si512(magnitude, _mm512_castps_si512(load(row + c, first_lanes(k - c)))));
  return static_cast<uint32_t>(_mm512_reduce_max_epi32(_mm512_max_epi32(a, b)));
}

// `count` columns of a token, at most 64 of them, as int8. The packs work in 128-bit lanes: 32-bit element 4 L + j of
// the result holds columns 16 j + 4 L .. + 3.
template <typename T>
__m512i quantise64(const T* row, int64_t count, __m512 inverse) {
  __m512i q[4];
  if (count >= 64) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) q[j] = _mm512_cvtps_epi32(_mm512_mul_ps(load(row + 16 * j, 0xffff), inverse));
  } else {
    for (int j = 0; j < 4; ++j)
      q[j] = _mm512_cvtps_epi32(_mm512_mul_ps(load(row + 16 * j, first_lanes(count - 16 * j)), inverse));
  }
  return _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
}

template <typename T>
void pack_from(const T* x, int64_t x_row_stride, int tokens, int64_t k, uint8_t* panel, float* scales) {
  float inverse[kDotTokens];
  for (int t = 0; t < tokens; ++t) {
    const TokenScale scale = token_scale(largest_bits(x + t * x_row_stride, k));
    scales[t] = scale.scale;
    inverse[t] = scale.inverse;
  }
  // Two columns of 32 tokens from two registers of 16 tokens x 4 columns.
  alignas(64) uint8_t index[2][64];
  for (int pair = 0; pair < 2; ++pair)
    for (int i = 0; i < 64; ++i)
      index[pair][i] = static_cast<uint8_t>((i % 32 < 16 ? 0 : 64) + i % 16 * 4 + pair * 2 + i / 32);
  const __m512i first = _mm512_load_si512(index[0]), second = _mm512_load_si512(index[1]);
  const __m512i offset = _mm512_set1_epi8(static_cast<char>(0x80));
  for (int64_t c = 0; c < k; c += 64) {
    __m512 half[2][16];
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < 16; ++i) {
        const int t = 16 * h + i;
        half[h][i] = t < tokens
                         ? _mm512_castsi512_ps(quantise64(x + t * x_row_stride + c, k - c, _mm512_set1_ps(inverse[t])))
                         : _mm512_setzero_ps();
      }
      if (16 * h < tokens) transpose(half[h]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      const int64_t column = c + 16 * (i % 4) + i / 4 * 4;
      const __m512i a = _mm512_xor_si512(offset, _mm512_castps_si512(half[0][i]));
      const __m512i b = _mm512_xor_si512(offset, _mm512_castps_si512(half[1][i]));
      const __m512i low = _mm512_permutex2var_epi8(a, first, b), high = _mm512_permutex2var_epi8(a, second, b);
      uint8_t* to = panel + column * kDotTokens;
      // Rows of 32 bytes; those past column k do not exist.
      _mm512_mask_storeu_epi32(to, first_lanes((k - column) * 8), low);
      _mm512_mask_storeu_epi32(to + 64, first_lanes((k - column - 2) * 8), high);
    }
  }
}

void pack(const void* x, DType dtype, int64_t x_row_stride, int tokens, int64_t k, void* panel, float* scales) {
  uint8_t* to = static_cast<uint8_t*>(panel);
  switch (dtype) {
    case DType::kFloat32: return pack_from(static_cast<const float*>(x), x_row_stride, tokens, k, to, scales);
    case DType::kBFloat16: return pack_from(static_cast<const BFloat16*>(x), x_row_stride, tokens, k, to, scales);
    case DType::kFloat16: return pack_from(static_cast<const Float16*>(x), x_row_stride, tokens, k, to, scales);
    case DType::kInt8: return;  // no activations of that type
  }
}

// Four rows of 64 channels: bytes of two rows pairwise, then pairs of two such.
void interleave64(const int8_t* from, int64_t records, char* to) {
  alignas(64) uint8_t index[64];
  alignas(64) uint16_t pair_index[32];
  for (int i = 0; i < 64; ++i) index[i] = static_cast<uint8_t>(i % 2 * 64 + i / 2);
  for (int i = 0; i < 32; ++i) pair_index[i] = static_cast<uint16_t>(i % 2 * 32 + i / 2);
  const __m512i low = _mm512_load_si512(index), high = _mm512_add_epi8(low, _mm512_set1_epi8(32));
  const __m512i low2 = _mm512_load_si512(pair_index), high2 = _mm512_add_epi16(low2, _mm512_set1_epi16(16));
  const auto row = [&](int64_t r) { return r < records ? _mm512_loadu_si512(from + r * 64) : _mm512_setzero_si512(); };
  for (int64_t r = 0; r < records; r += 4, to += 256) {
    const __m512i a = row(r), b = row(r + 1), c = row(r + 2), d = row(r + 3);
    const __m512i ab = _mm512_permutex2var_epi8(a, low, b), cd = _mm512_permutex2var_epi8(c, low, d);
    const __m512i ab2 = _mm512_permutex2var_epi8(a, high, b), cd2 = _mm512_permutex2var_epi8(c, high, d);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(ab, low2, cd));
    _mm512_storeu_si512(to + 64, _mm512_permutex2var_epi16(ab, high2, cd));
    _mm512_storeu_si512(to + 128, _mm512_permutex2var_epi16(ab2, low2, cd2));
    _mm512_storeu_si512(to + 192, _mm512_permutex2var_epi16(ab2, high2, cd2));
  }
}

void interleave(const void* values, int64_t records, int vector, void* interleaved) {
  const int8_t* from = static_cast<const int8_t*>(values);
  char* to = static_cast<char*>(interleaved);
  if (vector == 64) return interleave64(from, records, to);
  alignas(64) uint8_t index[64];  // byte j of row i % 4, side by side
  for (int i = 0; i < 64; ++i) index[i] = static_cast<uint8_t>(i % 4 * 16 + i / 4);
  const __m512i order = _mm512_load_si512(index);
  const auto row = [&](int64_t r, int v) {
    return r < records ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + r * vector + v)) : _mm_setzero_si128();
  };
  for (int64_t r = 0; r < records; r += 4)
    for (int v = 0; v < vector; v += 16, to += 64) {
      __m512i rows = _mm512_castsi128_si512(row(r, v));
      rows = _mm512_inserti32x4(rows, row(r + 1, v), 1);
      rows = _mm512_inserti32x4(rows, row(r + 2, v), 2);
      rows = _mm512_inserti32x4(rows, row(r + 3, v), 3);
      _mm512_storeu_si512(to, _mm512_permutexvar_epi8(order, rows));
    }
}

void gather(const void* panel, const uint16_t* columns, int64_t records, void* steps) {
  const uint8_t* from = static_cast<const uint8_t*>(panel);
  char* to = static_cast<char*>(steps);
  alignas(64) uint8_t index[64];  // token i / 4, column i % 4 of two registers of two columns
  for (int i = 0; i < 64; ++i) index[i] = static_cast<uint8_t>(i % 4 * 32 + i / 4);
  const __m512i low = _mm512_load_si512(index), high = _mm512_add_epi8(low, _mm512_set1_epi8(16));
  const auto row = [&](int64_t r) {
    return r < records ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + columns[r] * kDotTokens))
                       : _mm256_setzero_si256();
  };
  for (int64_t r = 0; r < records; r += 4, to += 128) {
    const __m512i a = _mm512_inserti64x4(_mm512_castsi256_si512(row(r)), row(r + 1), 1);
    const __m512i b = _mm512_inserti64x4(_mm512_castsi256_si512(row(r + 2)), row(r + 3), 1);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi8(a, low, b));
    _mm512_storeu_si512(to + 64, _mm512_permutex2var_epi8(a, high, b));
  }
}

}  // namespace

const DotKernel kInt8 = {.isa = Isa::kAvx512Vnni,
                         .name = "avx512_vnni::shared_lists_int8",
                         .weights = DType::kInt8,
                         .needs_fast_dot = false,
                         .min_vector = 16,
                         .min_tokens = 1,
                         .depth = 4,
                         .offset = 128,
                         .tile_tokens = dot_tile_tokens,
                         .pack = pack,
                         .interleave = interleave,
                         .gather = gather,
                         .tile = dot_tile<Dot>};

}  // namespace sparsecore::shared_lists::avx512_vnni
