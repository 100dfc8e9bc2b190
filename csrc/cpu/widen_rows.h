// Rows of activations as float32 with zeros behind them, for kernels that stream the weight past a few tokens.
#pragma once

#include "cpu/narrow.h"
#include "sparsecore/linear.h"

namespace sparsecore {
namespace {

template <typename T>
void widen_row(const T* x, int64_t k, float* out, int64_t padded) {
  for (int64_t i = 0; i < k; ++i) out[i] = widen(x[i]);
  for (int64_t i = k; i < padded; ++i) out[i] = 0.0f;
}

inline void widen_rows(const LinearIo& io, int64_t first, int64_t tokens, float* out, int64_t stride) {
  for (int64_t t = 0; t < tokens; ++t) {
    const char* row = static_cast<const char*>(io.x) + (first + t) * io.x_row_stride * size_of(io.dtype);
    float* to = out + t * stride;
    switch (io.dtype) {
      case DType::kBFloat16: widen_row(reinterpret_cast<const BFloat16*>(row), io.k, to, stride); break;
      case DType::kFloat16: widen_row(reinterpret_cast<const Float16*>(row), io.k, to, stride); break;
      default: widen_row(reinterpret_cast<const float*>(row), io.k, to, stride);
    }
  }
}

}  // namespace
}  // namespace sparsecore
