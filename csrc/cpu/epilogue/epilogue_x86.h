// The epilogue over wide lanes, compiled by the AVX2 and the AVX-512 file, each with its own lane type V.
//
//   GELU       x * phi, phi = 0.5 + c Q(u), c = x clamped to [-5, 5], u = 2 c^2 / 25 - 1: no division, no exp.
//              Q is a weighted minimax fit of (Phi(x) - 0.5) / x; x * phi is off by less than 4.5e-7 max(|x|, 1)
//   exp(x)     2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2, e^r by its series to r^6: relative error 1.2e-7 where the
//              result is normal; 0 below, infinity above
//   GELU tanh  x / (1 + exp(-2 u)), which is x (1 + tanh u) / 2
#pragma once

#include <immintrin.h>

#include "cpu/epilogue/epilogue.h"

namespace sparsecore::epilogue {
namespace {

template <typename V>
struct Wide {
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
    }
    return x;
  }

  static F load_bias(const Block& block, int64_t i, typename V::Mask lanes) {
    if (!block.bias) return V::splat(0.0f);
    switch (block.bias_dtype) {
      case DType::kBFloat16: return V::load(static_cast<const BFloat16*>(block.bias) + i, lanes);
      case DType::kFloat16: return V::load(static_cast<const Float16*>(block.bias) + i, lanes);
      default: return V::load(static_cast<const float*>(block.bias) + i, lanes);
    }
  }

  // kVectors registers of channels from i on, all rows; of the last register only `last` lanes.
  template <typename T, bool kInteger, bool kActivated, int kVectors>
  static void strip(const Block& block, int64_t i, typename V::Mask last) {
    const auto lanes = [&](int v) { return v + 1 < kVectors ? V::all() : last; };
    F scale[kVectors], bias[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      scale[v] = block.scale ? V::load(block.scale + i + v * V::kLanes, lanes(v)) : V::splat(1.0f);
      bias[v] = load_bias(block, i + v * V::kLanes, lanes(v));
    }
    for (int64_t t = 0; t < block.rows; ++t) {
      const int64_t at = t * block.sums_stride + i;
      T* y = static_cast<T*>(block.y) + t * block.y_row_stride + i;
      for (int v = 0; v < kVectors; ++v) {
        F sum;
        if constexpr (kInteger) {
          sum = V::mul(V::load(static_cast<const int32_t*>(block.sums) + at + v * V::kLanes, lanes(v)),
                       V::splat(block.token_scale[t]));
        } else {
          sum = V::load(static_cast<const float*>(block.sums) + at + v * V::kLanes, lanes(v));
        }
        const F value = V::add(V::mul(sum, scale[v]), bias[v]);
        V::store(y + v * V::kLanes, kActivated ? activate(value, block.activation) : value, lanes(v));
      }
    }
  }

  template <typename T, bool kInteger, bool kActivated>
  static void finish_typed(const Block& block) {
    constexpr int kVectors = 4;
    int64_t i = 0;
    for (; i + kVectors * V::kLanes <= block.n; i += kVectors * V::kLanes)
      strip<T, kInteger, kActivated, kVectors>(block, i, V::all());
    for (; i < block.n; i += V::kLanes) {
      const int64_t left = block.n - i;
      strip<T, kInteger, kActivated, 1>(block, i, left < V::kLanes ? V::first(static_cast<int>(left)) : V::all());
    }
  }

  template <typename T>
  static void finish_to(const Block& block) {
    const bool activated = block.activation != Activation::kNone;
    if (block.token_scale) return activated ? finish_typed<T, true, true>(block) : finish_typed<T, true, false>(block);
    return activated ? finish_typed<T, false, true>(block) : finish_typed<T, false, false>(block);
  }

  static void finish(const Block& block) {
    switch (block.dtype) {
      case DType::kBFloat16: return finish_to<BFloat16>(block);
      case DType::kFloat16: return finish_to<Float16>(block);
      default: return finish_to<float>(block);
    }
  }

  // Highest power first.
  static constexpr int kGeluTerms = 13;
  static constexpr float kGelu[kGeluTerms] = {
      0.000608694507f, -0.00161327398f, 0.00172288611f, -0.00268555386f, 0.00641042599f, -0.011164357f, 0.016402211f,
      -0.0232686456f,  0.0314421654f,   -0.0404426083f, 0.0515205227f,   -0.0702962801f, 0.141363785f};
};

}  // namespace
}  // namespace sparsecore::epilogue
