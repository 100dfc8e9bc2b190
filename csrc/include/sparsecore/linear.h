// The dense side of a linear layer, common to every weight format:
//
//   y[t, o] = activation(scale[o] * sum over kept k of w[o, k] * x[t, k] + bias[o])
//
// Sums are float32 (int32 for Compute::kInt8) for every storage type.
#pragma once

#include "sparsecore/types.h"

namespace sparsecore {

enum class Compute : int32_t {
  kFloat32 = 0,
  kFloat16 = 1,  // activations narrowed to float16 while packed, products in float16, sums widened block by block
  kInt8 = 2,     // activations quantised per token while packed, int8 weights, int32 sums
};

struct LinearIo {
  const void* x = nullptr;                     // [m, k], columns dense
  void* y = nullptr;                           // [m, n], columns dense
  const void* bias = nullptr;                  // [n] or null, of type bias_dtype
  const float* weight_scale = nullptr;         // [n] or null (1); required where weight_dtype is int8
  int64_t m = 0, n = 0, k = 0;                 // tokens, output channels, input channels
  int64_t x_row_stride = 0, y_row_stride = 0;  // in elements
  DType dtype = DType::kFloat32;               // of x and y: float32, bfloat16 or float16
  DType bias_dtype = DType::kFloat32;
  DType weight_dtype = DType::kFloat32;
  Activation activation = Activation::kNone;
  Compute compute = Compute::kFloat32;
};

// Shapes, strides, pointers and types; the weight is checked by its own family.
SPARSECORE_API Status check_io(const LinearIo& io);

}  // namespace sparsecore
