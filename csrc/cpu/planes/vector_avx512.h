// Sixteen lanes for the templates of this family.
#pragma once

#include "cpu/activate_x86.h"
#include "cpu/wide_avx512.h"

namespace sparsecore::planes {
namespace {

struct Vector : WideAvx512 {
  using Lanes = Mask;  // any set of lanes
  static constexpr int kDepthwiseRows = 4;
  static constexpr int kStemOutputs = 8, kStemVectors = 3;  // 24 sums + 3 inputs; weights are broadcast by the product

  using WideAvx512::load;
  using WideAvx512::store;
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load_some(const float* p, int64_t count) { return load(p, first(static_cast<int>(count))); }
  static void store(float* p, F value) { _mm512_storeu_ps(p, value); }
  static void store_some(float* p, F value, int64_t count) { store(p, value, first(static_cast<int>(count))); }
  static Lanes lanes(uint32_t bits) { return static_cast<Lanes>(bits); }

  // Elements 0, 2, 4 .. and 1, 3, 5 .. of a followed by b.
  static F even(F a, F b) { return _mm512_permutex2var_ps(a, every_second(0), b); }
  static F odd(F a, F b) { return _mm512_permutex2var_ps(a, every_second(1), b); }

  // Lanes count .. count + 15 of a followed by b.
  template <int count>
  static F shift(F a, F b) {
    if constexpr (count == 0) return a;
    return _mm512_castsi512_ps(_mm512_alignr_epi32(_mm512_castps_si512(b), _mm512_castps_si512(a), count));
  }

  // The larger one, NaN where either is.
  static F max_or_nan(F a, F b) {
    return _mm512_mask_mov_ps(_mm512_max_ps(b, a), _mm512_cmp_ps_mask(b, b, _CMP_UNORD_Q), b);
  }
  static float sum(F a) { return _mm512_reduce_add_ps(a); }
  static F activate(F x, Activation activation) { return WideActivations<WideAvx512>::activate(x, activation); }

 private:
  static __m512i every_second(int first) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_or_si512(even, _mm512_set1_epi32(first));
  }
};

}  // namespace
}  // namespace sparsecore::planes
