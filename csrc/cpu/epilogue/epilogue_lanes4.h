// The epilogue on four lanes, compiled by the NEON and the WebAssembly file.
//
//   exp(x)  = 2^n * e^r with n = round(x / ln 2); e^r by its series to r^6, |r| <= ln 2 / 2: relative error 1.2e-7
//   erf(z)  = 1 - t (a1 + t (a2 + ..)) exp(-z^2), t = 1 / (1 + p z): Abramowitz and Stegun 7.1.26, error 1.5e-7
//   GELU tanh = x / (1 + exp(-2 u)), which is x (1 + tanh u) / 2
#pragma once

#include <initializer_list>

#include "cpu/epilogue/epilogue.h"
#include "cpu/lanes4.h"

namespace sparsecore::epilogue {
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
  }
  return x;
}

inline Float4 load_bias4(const void* bias, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kBFloat16: return load4(static_cast<const BFloat16*>(bias) + i);
    case DType::kFloat16: return load4(static_cast<const Float16*>(bias) + i);
    default: return load4(static_cast<const float*>(bias) + i);
  }
}

template <typename T>
void finish(const Row& row) {
  T* y = static_cast<T*>(row.y);
  const auto finish4 = [&](const float* sums, const float* scale, const void* bias, int64_t i, T* out) {
    Float4 value = load4(sums + i);
    if (scale) value = mul4(value, load4(scale + i));
    if (bias) value = add4(value, load_bias4(bias, row.bias_dtype, i));
    store4(out, activate4(value, row.activation));
  };
  const int64_t whole = row.n / 4 * 4, rest = row.n - whole;
  for (int64_t i = 0; i < whole; i += 4) finish4(row.sums, row.scale, row.bias, i, y + i);
  if (!rest) return;
  // The last lanes go through copies, so that nothing past n is touched.
  float sums[4] = {}, scale[4] = {}, bias[4] = {};
  T out[4];
  const int64_t bias_size = size_of(row.bias_dtype);
  std::memcpy(sums, row.sums + whole, rest * sizeof(float));
  if (row.scale) std::memcpy(scale, row.scale + whole, rest * sizeof(float));
  if (row.bias) std::memcpy(bias, static_cast<const char*>(row.bias) + whole * bias_size, rest * bias_size);
  finish4(sums, row.scale ? scale : nullptr, row.bias ? bias : nullptr, 0, out);
  std::memcpy(y + whole, out, rest * sizeof(T));
}

inline void finish_any(const Row& row) {
  switch (row.dtype) {
    case DType::kBFloat16: return finish<BFloat16>(row);
    case DType::kFloat16: return finish<Float16>(row);
    default: return finish<float>(row);
  }
}

}  // namespace
}  // namespace sparsecore::epilogue
