// Activations of one value, as defined in types.h: the readable ones, which every instruction-set file must agree with.
// GELU is x * (1 + erf(x / sqrt 2)) / 2, GELU tanh its usual approximation, SiLU x / (1 + exp(-x)). NaN passes.
#pragma once

#include <cmath>

#include "sparsecore/types.h"

namespace sparsecore {
namespace {

inline float relu6(float x) { return x < 0.0f ? 0.0f : x > 6.0f ? 6.0f : x; }

inline float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::kNone: return x;
    case Activation::kRelu: return x < 0.0f ? 0.0f : x;
    case Activation::kGelu: return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    case Activation::kGeluTanh:
      return 0.5f * x * (1.0f + std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case Activation::kSilu: return x / (1.0f + std::exp(-x));
    case Activation::kRelu6: return relu6(x);
    case Activation::kHardSwish: return x * relu6(x + 3.0f) * (1.0f / 6.0f);
    case Activation::kHardSigmoid: return relu6(x + 3.0f) * (1.0f / 6.0f);
    case Activation::kSigmoid: return 1.0f / (1.0f + std::exp(-x));
  }
  return x;
}

}  // namespace
}  // namespace sparsecore
