// Eight lanes for the templates of this family.
#pragma once

#include "cpu/activate_x86.h"
#include "cpu/wide_avx2.h"

namespace sparsecore::planes {
namespace {

struct Vector : WideAvx2 {
  using Lanes = __m256i;  // any set of lanes
  static constexpr int kDepthwiseRows = 2;
  static constexpr int kStemOutputs = 4, kStemVectors = 3;  // 12 sums, 3 inputs, 1 weight

  using WideAvx2::load;
  using WideAvx2::store;
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load(const float* p, Lanes lanes) { return _mm256_maskload_ps(p, lanes); }
  static F load_some(const float* p, int64_t count) { return _mm256_maskload_ps(p, mask(static_cast<int>(count))); }
  static void store(float* p, F value) { _mm256_storeu_ps(p, value); }
  // A masked store takes many steps on some cores.
  static void store_some(float* p, F value, int64_t count) {
    __m128 half = _mm256_castps256_ps128(value);
    if (count & 4) {
      _mm_storeu_ps(p, half);
      half = _mm256_extractf128_ps(value, 1);
      p += 4;
    }
    if (count & 2) {
      _mm_storel_pi(reinterpret_cast<__m64*>(p), half);
      half = _mm_movehl_ps(half, half);
      p += 2;
    }
    if (count & 1) _mm_store_ss(p, half);
  }
  static Lanes lanes(uint32_t bits) {
    const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), bit), bit);
  }

  // Elements 0, 2, 4 .. and 1, 3, 5 .. of a followed by b.
  static F even(F a, F b) { return in_order(_mm256_shuffle_ps(a, b, 0x88)); }
  static F odd(F a, F b) { return in_order(_mm256_shuffle_ps(a, b, 0xdd)); }

  // Lanes count .. count + 7 of a followed by b.
  template <int count>
  static F shift(F a, F b) {
    static_assert(count <= 4);
    if constexpr (count == 0) return a;
    const __m256i middle = _mm256_castps_si256(_mm256_permute2f128_ps(a, b, 0x21));
    if constexpr (count == 4) return _mm256_castsi256_ps(middle);
    return _mm256_castsi256_ps(_mm256_alignr_epi8(middle, _mm256_castps_si256(a), 4 * count));
  }

  // The larger one, NaN where either is.
  static F max_or_nan(F a, F b) { return _mm256_blendv_ps(_mm256_max_ps(b, a), b, _mm256_cmp_ps(b, b, _CMP_UNORD_Q)); }
  static float sum(F a) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
  }
  static F activate(F x, Activation activation) { return WideActivations<WideAvx2>::activate(x, activation); }

 private:
  static F in_order(F quarters) { return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(quarters), 0xd8)); }
};

}  // namespace
}  // namespace sparsecore::planes
