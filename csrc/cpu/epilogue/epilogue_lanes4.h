// The epilogue on four lanes, compiled by the NEON and the WebAssembly file.
#pragma once

#include "cpu/activate_lanes4.h"
#include "cpu/epilogue/epilogue.h"

namespace sparsecore::epilogue {
namespace {

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
