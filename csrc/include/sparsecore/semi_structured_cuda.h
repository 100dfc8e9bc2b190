// 2:4 weights on a GPU. Every pointer is a device pointer; every function only enqueues on `stream`, a cudaStream_t:
// nothing waits for the device, nothing is allocated, and all of it can be captured in a graph.
#pragma once

#include "sparsecore/semi_structured.h"

namespace sparsecore {

// y[t, o] = activation(weight_scale[o] * token_scale[t] * sum over kept i of w[o, i] * x[t, i] + bias[o]) + residual[t,
// o]
//
// Sums are float32, int32 for int8, and are added in an order that depends on the shape alone: the same bits on every
// call and every device of one kernel family. A weight that the packing left out is never multiplied.
struct SemiStructuredMatmulParams {
  const void* x = nullptr;              // [m, k], columns dense, of the weight's type
  SemiStructured weight;                // [n, k]
  void* y = nullptr;                    // [m, n], columns dense
  const void* bias = nullptr;           // [n] or null, of type bias_dtype
  const float* weight_scale = nullptr;  // [n] or null (1)
  const float* token_scale = nullptr;   // [m] or null (1)
  const void* residual = nullptr;       // [m, n], columns dense, of type out_dtype, or null; may be y itself
  int64_t m = 0, n = 0, k = 0;          // tokens, output channels, input channels
  int64_t x_row_stride = 0, y_row_stride = 0, residual_row_stride = 0;  // in elements
  DType dtype = DType::kBFloat16;      // of weight and x: bfloat16, float16, int8, float8 e4m3
  DType out_dtype = DType::kBFloat16;  // of y and residual: float32, bfloat16 or float16
  DType bias_dtype = DType::kFloat32;  // float32, bfloat16 or float16
  Activation activation = Activation::kNone;
  void* workspace = nullptr;  // 16-byte aligned, semi_structured_matmul_workspace() bytes; holds nothing after
  int64_t workspace_bytes = 0;
};

// Depends on the shape alone, so that graphs and compilers can plan with it.
SPARSECORE_API int64_t semi_structured_matmul_workspace(int64_t m, int64_t n, int64_t k, DType dtype);
SPARSECORE_API Status semi_structured_matmul(const SemiStructuredMatmulParams& params, void* stream);

// dense [n, k] -> Sp24, and of the transposed matrix [k, n] in the same pass where values_t is not null (bfloat16 and
// float16; kMask then promises a mask that serves both directions, kByRow cannot). Byte for byte what
// semi_structured_select and semi_structured_pack give, but where a mask keeps more than two of four, which the host
// refuses: here the two largest of them stay.
struct SemiStructuredCompressParams {
  const void* dense = nullptr;    // [n, k], columns dense
  const uint8_t* mask = nullptr;  // [n, k] contiguous, for kMask
  void* values = nullptr;
  uint32_t* metadata = nullptr;
  void* values_t = nullptr;
  uint32_t* metadata_t = nullptr;
  int64_t n = 0, k = 0, row_stride = 0;
  DType dtype = DType::kBFloat16;
  SemiStructuredSelection selection = SemiStructuredSelection::kByRow;
};
SPARSECORE_API Status semi_structured_compress(const SemiStructuredCompressParams& params, void* stream);

// Sp24 -> dense [n, k], zeros included.
SPARSECORE_API Status semi_structured_decompress(const SemiStructured& weight, DType dtype, int64_t n, int64_t k,
                                                 void* dense, int64_t row_stride, void* stream);

// Writes to where[0] (device memory) the place of the first group that semi_structured_validate would refuse, or -1.
// Sparse instructions do anything with metadata that does not ascend: run it once on weights that came from elsewhere.
SPARSECORE_API Status semi_structured_validate_device(const SemiStructured& weight, DType dtype, int64_t n, int64_t k,
                                                      int64_t* where, void* stream);

// One sentence on the last call of these functions in this thread that did not return kOk: what it needed, what it got,
// and what there is.
SPARSECORE_API const char* semi_structured_message();

}  // namespace sparsecore
