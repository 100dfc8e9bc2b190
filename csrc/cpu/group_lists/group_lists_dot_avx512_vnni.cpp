// int8 products on AVX512-VNNI: vpdpbusd adds four products of unsigned activations and signed weights to each of 16
// lanes; a row of sums is four registers.
//
// Bytes of four columns become quads by unpacking within quarters of registers, so lane 4 i + e of register j of a row
// of sums is pixel 16 i + 4 j + e; a panel that is together lies in the same order. Unpacking costs eight shuffles for
// four products of a row: four rows share it where a group has them.
#include <immintrin.h>

#include "cpu/group_lists/dot.h"

namespace sparsecore::group_lists::avx512_vnni {
namespace {

constexpr int kRegisters = 4;  // of a row of sums

__m512 load(const float* p, __mmask16 lanes) { return _mm512_maskz_loadu_ps(lanes, p); }
__m512 load(const BFloat16* p, __mmask16 lanes) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, p)), 16));
}
__m512 load(const Float16* p, __mmask16 lanes) { return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, p)); }

template <typename T>
uint32_t largest_of(const T* x, int64_t count) {
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i found = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 16) {
    const __mmask16 lanes = count - i < 16 ? static_cast<__mmask16>((1u << (count - i)) - 1) : __mmask16{0xffff};
    found = _mm512_max_epi32(found, _mm512_and_si512(magnitude, _mm512_castps_si512(load(x + i, lanes))));
  }
  return static_cast<uint32_t>(_mm512_reduce_max_epi32(found));
}

uint32_t largest(const void* x, DType dtype, int64_t count) {
  switch (dtype) {
    case DType::kBFloat16: return largest_of(static_cast<const BFloat16*>(x), count);
    case DType::kFloat16: return largest_of(static_cast<const Float16*>(x), count);
    default: return largest_of(static_cast<const float*>(x), count);
  }
}

// Quads of four rows of 64 bytes.
inline void unpack_quads(__m512i a, __m512i b, __m512i c, __m512i d, __m512i (&quads)[kRegisters]) {
  const __m512i ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b),
                cd_low = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
  quads[0] = _mm512_unpacklo_epi16(ab_low, cd_low);
  quads[1] = _mm512_unpackhi_epi16(ab_low, cd_low);
  quads[2] = _mm512_unpacklo_epi16(ab_high, cd_high);
  quads[3] = _mm512_unpackhi_epi16(ab_high, cd_high);
}

__m512i quantise_row(const float* x, const __m512 (&inverse)[4]) {
  const __m512 low = _mm512_set1_ps(-127.0f), high = _mm512_set1_ps(127.0f);
  __m512i row = _mm512_setzero_si512();
  const auto sixteen = [&](int i) {
    // The bound is the second operand, so that a NaN becomes it.
    const __m512 cut = _mm512_min_ps(_mm512_max_ps(_mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), inverse[i]), low), high);
    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(cut));
  };
  row = _mm512_castsi128_si512(sixteen(0));
  row = _mm512_inserti32x4(row, sixteen(1), 1);
  row = _mm512_inserti32x4(row, sixteen(2), 2);
  row = _mm512_inserti32x4(row, sixteen(3), 3);
  return _mm512_xor_si512(row, _mm512_set1_epi8(static_cast<char>(0x80)));
}

void quantise(const float* x, const float* inverse, int columns, bool together, uint8_t* panel) {
  __m512 scales[4];
  for (int i = 0; i < 4; ++i) scales[i] = _mm512_loadu_ps(inverse + 16 * i);
  if (!together) {
    for (int c = 0; c < columns; ++c)
      _mm512_storeu_si512(panel + c * kDotLanes, quantise_row(x + c * kDotLanes, scales));
    return;
  }
  for (int c = 0; c < columns; c += 4) {
    const float* from = x + c * kDotLanes;
    __m512i quads[kRegisters];
    unpack_quads(quantise_row(from, scales), quantise_row(from + kDotLanes, scales),
                 quantise_row(from + 2 * kDotLanes, scales), quantise_row(from + 3 * kDotLanes, scales), quads);
    for (int j = 0; j < kRegisters; ++j) _mm512_storeu_si512(panel + c * kDotLanes + 64 * j, quads[j]);
  }
}

// kRows rows of every place, from row `first` on.
template <int kRows, bool kTogether>
void rows_of(const DotTile& a, int first) {
  const auto row_of = [&](const uint8_t* from) { return _mm512_loadu_si512(from); };
  for (int64_t p = 0; p < a.places; ++p) {
    const int64_t channel = int64_t{a.order[p]} * a.rows + first;
    int32_t* out = a.sums + channel * kDotLanes;
    __m512i sums[kRows][kRegisters];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int j = 0; j < kRegisters; ++j)
        sums[r][j] =
            a.accumulate ? _mm512_loadu_si512(out + r * kDotLanes + 16 * j) : _mm512_set1_epi32(a.start[channel + r]);
    const int32_t* weights = a.weights + int64_t{a.starts[p]} * a.rows + first;
    for (int64_t q = a.starts[p]; q < a.starts[p + 1]; ++q, weights += a.rows) {
      __m512i x[kRegisters];
      if constexpr (kTogether) {
        const uint8_t* from = a.panel + int64_t{a.columns[q]} * 4 * kDotLanes;
#pragma GCC unroll 4
        for (int j = 0; j < kRegisters; ++j) x[j] = row_of(from + 64 * j);
      } else {
        const uint16_t* columns = a.columns + q * 4;
        unpack_quads(
            row_of(a.panel + int64_t{columns[0]} * kDotLanes), row_of(a.panel + int64_t{columns[1]} * kDotLanes),
            row_of(a.panel + int64_t{columns[2]} * kDotLanes), row_of(a.panel + int64_t{columns[3]} * kDotLanes), x);
      }
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const __m512i w = _mm512_set1_epi32(weights[r]);
#pragma GCC unroll 4
        for (int j = 0; j < kRegisters; ++j) sums[r][j] = _mm512_dpbusd_epi32(sums[r][j], x[j], w);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 4
      for (int j = 0; j < kRegisters; ++j) _mm512_storeu_si512(out + r * kDotLanes + 16 * j, sums[r][j]);
  }
}

template <bool kTogether>
void tile_rows(const DotTile& a) {
  switch (a.rows) {
    case 1: return rows_of<1, kTogether>(a, 0);
    case 2: return rows_of<2, kTogether>(a, 0);
    default:
      for (int first = 0; first < a.rows; first += 4) rows_of<4, kTogether>(a, first);
  }
}

void tile(const DotTile& a) { a.together ? tile_rows<true>(a) : tile_rows<false>(a); }

void finish(const DotFinish& a) {
  for (int64_t c = 0; c < a.channels; ++c) {
    int32_t* row = a.sums + c * kDotLanes;
    __m512i r[kRegisters];
    for (int j = 0; j < kRegisters; ++j) r[j] = _mm512_loadu_si512(row + 16 * j);
    // Quarter i of register j is pixels 16 i + 4 j .. + 3.
    const __m512i low01 = _mm512_shuffle_i32x4(r[0], r[1], 0x44), high01 = _mm512_shuffle_i32x4(r[0], r[1], 0xee),
                  low23 = _mm512_shuffle_i32x4(r[2], r[3], 0x44), high23 = _mm512_shuffle_i32x4(r[2], r[3], 0xee);
    const __m512i pixels[kRegisters] = {
        _mm512_shuffle_i32x4(low01, low23, 0x88), _mm512_shuffle_i32x4(low01, low23, 0xdd),
        _mm512_shuffle_i32x4(high01, high23, 0x88), _mm512_shuffle_i32x4(high01, high23, 0xdd)};
    for (int i = 0; i < kRegisters; ++i) {
      const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(a.lane_scale + 16 * i), _mm512_set1_ps(a.scale[c]));
      __m512 value = _mm512_mul_ps(_mm512_cvtepi32_ps(pixels[i]), scale);
      if (a.bias) value = _mm512_add_ps(value, _mm512_set1_ps(a.bias[c]));
      if (a.residual) value = _mm512_add_ps(value, _mm512_loadu_ps(a.residual + c * kDotLanes + 16 * i));
      _mm512_storeu_ps(row + 16 * i, value);
    }
  }
}

}  // namespace

const DotKernel kInt8 = {Isa::kAvx512Vnni, "avx512_vnni::group_lists_int8", 128, largest, quantise, tile, finish};

}  // namespace sparsecore::group_lists::avx512_vnni
