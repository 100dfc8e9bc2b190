// Activations on four lanes, for the NEON and the WebAssembly files.
//
//   exp(x)  = 2^n * e^r with n = round(x / ln 2); e^r by its series to r^6, |r| <= ln 2 / 2: relative error 1.2e-7
//   erf(z)  = 1 - t (a1 + t (a2 + ..)) exp(-z^2), t = 1 / (1 + p z): Abramowitz and Stegun 7.1.26, error 1.5e-7
//   GELU tanh = x / (1 + exp(-2 u)), which is x (1 + tanh u) / 2
#pragma once

#include <initializer_list>

#include "cpu/lanes4.h"

namespace sparsecore {
namespace {

inline Float4 exp4(Float4 x) {
  // Past these bounds the result is 0 or infinity; the bound comes first, so that a NaN in x passes.
  x = min4(splat4(89.0f), max4(splat4(-104.0f), x));
  const Float4 n = round4(mul4(x, splat4(1.44269504f)));
  Float4 r = sub4(x, mul4(n, splat4(0.693359375f)));  // exact: nine bits times eight
  r = sub4(r, mul4(n, splat4(-2.12194440e-4f)));
  Float4 series = splat4(1.0f / 720);
  for (const float c : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) series = madd4(series, r, splat4(c));
  const Float4 half = round4(mul4(n, splat4(0.5f)));  // 2^n itself may not be a float
  return mul4(mul4(series, power_of_two4(half)), power_of_two4(sub4(n, half)));
}

inline Float4 logistic_times(Float4 x, Float4 minus_argument) {
  return div4(x, add4(splat4(1.0f), exp4(minus_argument)));
}

inline Float4 gelu4(Float4 x) {
  const Float4 z = mul4(abs4(x), splat4(0.70710678f));
  const Float4 t = div4(splat4(1.0f), madd4(z, splat4(0.3275911f), splat4(1.0f)));
  Float4 series = splat4(1.061405429f);
  for (const float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f, 0.0f})
    series = madd4(series, t, splat4(c));
  const Float4 tail = mul4(series, exp4(mul4(z, sub4(splat4(0.0f), z))));
  const Float4 erf = copy_sign4(sub4(splat4(1.0f), tail), x);
  return mul4(mul4(splat4(0.5f), x), add4(splat4(1.0f), erf));
}

inline Float4 relu6_4(Float4 x) { return min4(splat4(6.0f), max4(splat4(0.0f), x)); }

inline Float4 activate4(Float4 x, Activation activation) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return max4(splat4(0.0f), x);
    case Activation::kGelu: return gelu4(x);
    case Activation::kGeluTanh: {
      const Float4 cube = mul4(mul4(x, x), x);
      return logistic_times(x, mul4(splat4(-1.59576912f), madd4(cube, splat4(0.044715f), x)));
    }
    case Activation::kSilu: return logistic_times(x, sub4(splat4(0.0f), x));
    case Activation::kRelu6: return relu6_4(x);
    case Activation::kHardSwish: return mul4(mul4(x, relu6_4(add4(x, splat4(3.0f)))), splat4(1.0f / 6.0f));
    case Activation::kHardSigmoid: return mul4(relu6_4(add4(x, splat4(3.0f))), splat4(1.0f / 6.0f));
    case Activation::kSigmoid: return logistic_times(splat4(1.0f), sub4(splat4(0.0f), x));
  }
  return x;
}

}  // namespace
}  // namespace sparsecore
