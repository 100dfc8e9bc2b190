// Four lanes for the templates of this family: NEON and WebAssembly.
#pragma once

#include "cpu/activate_lanes4.h"

namespace sparsecore::planes {
namespace {

struct Vector {
  using F = Float4;
  static constexpr int64_t kLanes = 4;
#if defined(SPARSECORE_ARM)
  static constexpr int kStemOutputs = 8, kStemVectors = 2;  // 16 sums, 2 inputs of 32 registers; 3 would spill weights
#else
  static constexpr int kStemOutputs = 4, kStemVectors = 2;  // engines map these to 16 registers on x86
#endif

  static F splat(float value) { return splat4(value); }
  static F add(F a, F b) { return add4(a, b); }
  static F mul(F a, F b) { return mul4(a, b); }
  static F div(F a, F b) { return div4(a, b); }
  static F madd(F a, F b, F c) { return madd4(a, b, c); }
  static F min(F a, F b) { return min4(a, b); }
  static F max(F a, F b) { return max4(a, b); }

  static F load(const float* p) { return load4(p); }
  static F load_some(const float* p, int64_t count) {
    float copy[4] = {};
    for (int64_t i = 0; i < count; ++i) copy[i] = p[i];
    return load4(copy);
  }
  static void store(float* p, F value) { store4(p, value); }
  static void store_some(float* p, F value, int64_t count) {
    float copy[4];
    store4(copy, value);
    for (int64_t i = 0; i < count; ++i) p[i] = copy[i];
  }

  // Elements 0, 2, 4, 6 and 1, 3, 5, 7 of a followed by b. max_or_nan: the larger one, NaN where either is.
#if defined(SPARSECORE_ARM)
  static F even(F a, F b) { return vuzp1q_f32(a, b); }
  static F odd(F a, F b) { return vuzp2q_f32(a, b); }
  static F max_or_nan(F a, F b) { return vmaxq_f32(a, b); }
#else
  static F even(F a, F b) { return wasm_i32x4_shuffle(a, b, 0, 2, 4, 6); }
  static F odd(F a, F b) { return wasm_i32x4_shuffle(a, b, 1, 3, 5, 7); }
  static F max_or_nan(F a, F b) { return wasm_f32x4_max(a, b); }
#endif
  static float sum(F a) {
    float lanes[4];
    store4(lanes, a);
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  }
  static F activate(F x, Activation activation) { return activate4(x, activation); }
};

}  // namespace
}  // namespace sparsecore::planes
