// The dense side of a linear layer on a GPU, common to every weight format:
//
//   y[t, o] = activation(weight_scale[o] * token_scale[t] * sum over kept i of w[o, i] * x[t, i] + bias[o])
//             + residual[t, o]
//
// Every pointer is a device pointer. A function that takes these parameters only enqueues on its `stream`, a
// cudaStream_t: it waits for nothing, allocates nothing, and can be captured in a graph. Sums are float32, int32 for
// int8, and are added in an order that depends on the shape alone: the same bits on every call and every device of one
// kernel family. A weight that the format left out is never multiplied, except behind a bitmap and, with more than 8
// tokens, in group lists, whose kernels may multiply it as zero: an x that is not finite then makes its token NaN.
#pragma once

#include "sparsecore/types.h"

namespace sparsecore {

struct DeviceLinear {
  const void* x = nullptr;              // [m, k], columns dense, of the weight's type
  void* y = nullptr;                    // [m, n], columns dense
  const void* bias = nullptr;           // [n] or null, of type bias_dtype
  const float* weight_scale = nullptr;  // [n] or null (1)
  const float* token_scale = nullptr;   // [m] or null (1)
  const void* residual = nullptr;       // [m, n], columns dense, of type out_dtype, or null; may be y itself
  int64_t m = 0, n = 0, k = 0;          // tokens, output channels, input channels
  int64_t x_row_stride = 0, y_row_stride = 0, residual_row_stride = 0;  // in elements
  DType dtype = DType::kBFloat16;                                       // of weight and x
  DType out_dtype = DType::kBFloat16;  // of y and residual: float32, bfloat16 or float16
  DType bias_dtype = DType::kFloat32;  // float32, bfloat16 or float16
  Activation activation = Activation::kNone;
  void* workspace = nullptr;  // 16-byte aligned, as many bytes as the format's *_workspace() says; holds nothing after
  int64_t workspace_bytes = 0;
};

// The scales, bias, activation and residual of a product that y holds already, in place. Nothing of x is read.
SPARSECORE_API Status finish_linear(const DeviceLinear& params, void* stream);

// One sentence on the last call of a function for the GPU in this thread that did not return kOk: what it needed, what
// it got, and what there is.
SPARSECORE_API const char* cuda_message();

}  // namespace sparsecore
