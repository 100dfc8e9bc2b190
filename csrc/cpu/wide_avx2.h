// Eight float lanes: the vocabulary that files of one instruction set share with templates over lane types. Loads
// widen the storage types, stores narrow them (round to nearest even, NaN stays NaN); lanes outside a mask read as
// zero and are not touched. min and max return the second operand where either is NaN.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "sparsecore/types.h"

namespace sparsecore {
namespace {

struct WideAvx2 {
  using F = __m256;
  using Mask = int;  // how many lanes, from the first
  static constexpr int64_t kLanes = 8;

  static Mask all() { return 8; }
  static Mask first(int count) { return count; }
  static F splat(float value) { return _mm256_set1_ps(value); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F madd(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F round(F a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F power_of_two(F n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
  }

  static __m256i mask(int lanes) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(lanes), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static __m128i load16(const void* p, int lanes) {
    if (lanes == 8) return _mm_loadu_si128(static_cast<const __m128i*>(p));
    uint16_t copy[8] = {};
    std::memcpy(copy, p, lanes * 2);
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(copy));
  }
  static void store16(void* p, __m128i value, int lanes) {
    if (lanes == 8) {
      _mm_storeu_si128(static_cast<__m128i*>(p), value);
      return;
    }
    uint16_t copy[8];
    _mm_storeu_si128(reinterpret_cast<__m128i*>(copy), value);
    std::memcpy(p, copy, lanes * 2);
  }

  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load(const BFloat16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static F load(const Float16* p) { return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static F load(const int8_t* p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
  }
  static F load(const float* p, Mask lanes) {
    return lanes == 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, mask(lanes));
  }
  static F load(const BFloat16* p, Mask lanes) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load16(p, lanes)), 16));
  }
  static F load(const Float16* p, Mask lanes) { return _mm256_cvtph_ps(load16(p, lanes)); }
  static F load(const int32_t* p, Mask lanes) {
    return _mm256_cvtepi32_ps(lanes == 8 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))
                                         : _mm256_maskload_epi32(p, mask(lanes)));
  }
  static void store(float* p, F value, Mask lanes) {
    if (lanes == 8) {
      _mm256_storeu_ps(p, value);
    } else {
      _mm256_maskstore_ps(p, mask(lanes), value);
    }
  }
  static void store(BFloat16* p, F value, Mask lanes) {
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    store16(p, _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)), lanes);
  }
  static void store(Float16* p, F value, Mask lanes) {
    store16(p, _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), lanes);
  }
};

}  // namespace
}  // namespace sparsecore
