// 2:4 weights on a GPU. Pointers and streams are those of linear_cuda.h, in every function.
#pragma once

#include "sparsecore/linear_cuda.h"
#include "sparsecore/window_lift.h"

namespace sparsecore {

// Weight and x: bfloat16, float16, int8 or, where group is 4, float8 e4m3.
struct SemiStructuredMatmulParams : DeviceLinear {
  SemiStructured weight;  // [n, lifted_inputs(k, group)]: [n, k] where group is 4
  int32_t group = 4;      // of which at most group - 2 are kept; above 4 the weight is lifted (window_lift.h)
};

// Depends on the shape alone, so that graphs and compilers can plan with it.
SPARSECORE_API int64_t semi_structured_matmul_workspace(int64_t m, int64_t n, int64_t k, DType dtype,
                                                        int32_t group = 4);
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

// Gradients of weights of 16 bits; dtype is bfloat16 or float16. The metadata is trusted.
//
// values[e] = dense[place of e], zero past n and k: what a dense gradient leaves for the stored weights.
struct SemiStructuredGatherParams {
  const void* dense = nullptr;         // [n, k], columns dense
  const uint32_t* metadata = nullptr;  // of Sp24
  void* values = nullptr;              // of Sp24
  int64_t n = 0, k = 0, row_stride = 0, metadata_words = 0;
  DType dtype = DType::kBFloat16;
};
SPARSECORE_API Status semi_structured_gather(const SemiStructuredGatherParams& params, void* stream);

// values[e] = sum over t of grad[t, channel of e] * x[t, input of e], in float32 and the order of the tokens: the same
// without a dense gradient in memory.
struct SemiStructuredSampledParams {
  const void* grad = nullptr;          // [m, n], columns dense
  const void* x = nullptr;             // [m, k], columns dense
  const uint32_t* metadata = nullptr;  // of Sp24, [n, k]
  void* values = nullptr;              // of Sp24
  int64_t m = 0, n = 0, k = 0, grad_row_stride = 0, x_row_stride = 0, metadata_words = 0;
  DType dtype = DType::kBFloat16;
};
SPARSECORE_API Status semi_structured_sampled(const SemiStructuredSampledParams& params, void* stream);

// out = grad + decay * (dense - what the packing holds of it), computed in float32: the gradient of a dense weight
// whose packed part was multiplied, with SR-STE's decay of the rest (Zhou et al. 2021).
struct SemiStructuredStraightThroughParams {
  const void* grad = nullptr;   // [n, k], columns dense
  const void* dense = nullptr;  // [n, k], columns dense
  SemiStructured weight;        // packed from dense
  void* out = nullptr;          // [n, k], columns dense; may be grad
  int64_t n = 0, k = 0, grad_row_stride = 0, dense_row_stride = 0, out_row_stride = 0;
  float decay = 0;
  DType dtype = DType::kBFloat16;
};
SPARSECORE_API Status semi_structured_straight_through(const SemiStructuredStraightThroughParams& params, void* stream);

// Writes to where[0] (device memory) the place of the first group that semi_structured_validate would refuse, or -1.
// Sparse instructions do anything with metadata that does not ascend: run it once on weights that came from elsewhere.
SPARSECORE_API Status semi_structured_validate_device(const SemiStructured& weight, DType dtype, int64_t n, int64_t k,
                                                      int64_t* where, void* stream);

}  // namespace sparsecore
