// Activations over wide lanes, each instruction set with its own lane type V (see epilogue_avx512.cpp).
//
//   GELU       x * phi, phi = 0.5 + c Q(u), c = x clamped to [-5, 5], u = 2 c^2 / 25 - 1: no division, no exp.
//              Q is a weighted minimax fit of (Phi(x) - 0.5) / x; x * phi is off by less than 4.5e-7 max(|x|, 1)
//   exp(x)     2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2, e^r by its series to r^6: relative error 1.2e-7 where the
//              result is normal; 0 below, infinity above
//   GELU tanh  x / (1 + exp(-2 u)), which is x (1 + tanh u) / 2
#pragma once

#include "sparsecore/types.h"

namespace sparsecore {
namespace {

template <typename V>
struct WideActivations {
  using F = typename V::F;

  static F exp(F x) {
    // The bound is the first operand, so that a NaN in x passes.
    x = V::min(V::splat(89.0f), V::max(V::splat(-87.0f), x));
    const F n = V::round(V::mul(x, V::splat(1.44269504f)));
    F r = V::madd(n, V::splat(-0.693359375f), x);  // exact: nine bits times eight
    r = V::madd(n, V::splat(2.12194440e-4f), r);
    F series = V::splat(1.0f / 720);
    series = V::madd(series, r, V::splat(1.0f / 120));
    series = V::madd(series, r, V::splat(1.0f / 24));
    series = V::madd(series, r, V::splat(1.0f / 6));
    series = V::madd(series, r, V::splat(0.5f));
    series = V::madd(series, r, V::splat(1.0f));
    series = V::madd(series, r, V::splat(1.0f));
    return V::mul(series, V::power_of_two(n));
  }

  static F over_one_plus_exp(F x, F exponent) { return V::div(x, V::add(V::splat(1.0f), exp(exponent))); }

  static F gelu(F x) {
    constexpr float kBound = 5.0f;
    const F c = V::min(V::splat(kBound), V::max(V::splat(-kBound), x));
    const F u = V::madd(V::mul(c, c), V::splat(2.0f / (kBound * kBound)), V::splat(-1.0f));
    F q = V::splat(kGelu[0]);
    for (int i = 1; i < kGeluTerms; ++i) q = V::madd(q, u, V::splat(kGelu[i]));
    const F phi = V::madd(c, q, V::splat(0.5f));
    return V::mul(x, V::min(V::splat(1.0f), V::max(V::splat(0.0f), phi)));
  }

  static F relu6(F x) { return V::min(V::splat(6.0f), V::max(V::splat(0.0f), x)); }

  static F activate(F x, Activation activation) {
    switch (activation) {
      case Activation::kNone: return x;
      case Activation::kRelu: return V::max(V::splat(0.0f), x);
      case Activation::kGelu: return gelu(x);
      case Activation::kGeluTanh: {
        const F cube = V::mul(V::mul(x, x), x);
        return over_one_plus_exp(x, V::mul(V::splat(-1.59576912f), V::madd(cube, V::splat(0.044715f), x)));
      }
      case Activation::kSilu: return over_one_plus_exp(x, V::sub(V::splat(0.0f), x));
      case Activation::kRelu6: return relu6(x);
      case Activation::kHardSwish: return V::mul(V::mul(x, relu6(V::add(x, V::splat(3.0f)))), V::splat(1.0f / 6.0f));
      case Activation::kHardSigmoid: return V::mul(relu6(V::add(x, V::splat(3.0f))), V::splat(1.0f / 6.0f));
      case Activation::kSigmoid: return over_one_plus_exp(V::splat(1.0f), V::sub(V::splat(0.0f), x));
    }
    return x;
  }

 private:
  // Highest power first.
  static constexpr int kGeluTerms = 13;
  static constexpr float kGelu[kGeluTerms] = {
      0.000608694507f, -0.00161327398f, 0.00172288611f, -0.00268555386f, 0.00641042599f, -0.011164357f, 0.016402211f,
      -0.0232686456f,  0.0314421654f,   -0.0404426083f, 0.0515205227f,   -0.0702962801f, 0.141363785f};
};

}  // namespace
}  // namespace sparsecore
