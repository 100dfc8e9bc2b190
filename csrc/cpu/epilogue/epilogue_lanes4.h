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

// Four channels of one token; the arrays begin at the first of them.
template <typename T>
void finish4(const Block& block, const void* sums, int64_t t, const float* scale, const void* bias, T* out) {
  Float4 value;
  if (block.token_scale) {
    value = mul4(load_integers4(static_cast<const int32_t*>(sums)), splat4(block.token_scale[t]));
  } else {
    value = load4(static_cast<const float*>(sums));
  }
  if (scale) value = mul4(value, load4(scale));
  if (bias) value = add4(value, load_bias4(bias, block.bias_dtype, 0));
  store4(out, activate4(value, block.activation));
}

template <typename T>
void finish_typed(const Block& block) {
  const int64_t whole = block.n / 4 * 4, rest = block.n - whole, bias_size = size_of(block.bias_dtype);
  const auto bias_at = [&](int64_t i) {
    return block.bias ? static_cast<const char*>(block.bias) + i * bias_size : nullptr;
  };
  // The last lanes go through copies, so that nothing past n is touched.
  float last_sums[4] = {}, last_scale[4] = {}, last_bias[4] = {};
  if (rest && block.scale) std::memcpy(last_scale, block.scale + whole, rest * sizeof(float));
  if (rest && block.bias) std::memcpy(last_bias, bias_at(whole), rest * bias_size);
  for (int64_t t = 0; t < block.rows; ++t) {
    const char* sums = static_cast<const char*>(block.sums) + t * block.sums_stride * 4;
    T* y = static_cast<T*>(block.y) + t * block.y_row_stride;
    for (int64_t i = 0; i < whole; i += 4)
      finish4(block, sums + i * 4, t, block.scale ? block.scale + i : nullptr, bias_at(i), y + i);
    if (!rest) continue;
    T out[4];
    std::memcpy(last_sums, sums + whole * 4, rest * 4);
    finish4(block, last_sums, t, block.scale ? last_scale : nullptr, block.bias ? last_bias : nullptr, out);
    std::memcpy(y + whole, out, rest * sizeof(T));
  }
}

inline void finish_any(const Block& block) {
  switch (block.dtype) {
    case DType::kBFloat16: return finish_typed<BFloat16>(block);
    case DType::kFloat16: return finish_typed<Float16>(block);
    default: return finish_typed<float>(block);
  }
}

}  // namespace
}  // namespace sparsecore::epilogue
