// Shared lists (sparsecore/shared_lists.h) on a GPU: the same arrays, in device memory. bfloat16 and float16 values,
// vectors of 8, 16, 32 and 64 channels; values begin at a multiple of 16 bytes.
//
// Kernels read nothing outside the arrays and x whatever columns and group_ptr hold, but only of a weight that
// shared_lists_validate accepts is the answer defined.
#pragma once

#include "sparsecore/linear_cuda.h"
#include "sparsecore/shared_lists.h"

namespace sparsecore {

struct SharedListsLinearParams : DeviceLinear {
  SharedLists weight;  // [n, k]
};

// Depends on the shape alone: `records` and `vector` as in the weight.
SPARSECORE_API int64_t shared_lists_linear_workspace(int64_t m, int64_t n, int64_t k, int64_t records, int32_t vector);
SPARSECORE_API Status shared_lists_linear_device(const SharedListsLinearParams& params, void* stream);

// out[r, v] = sum over tokens of grad_y[t, o] * x[t, columns[r]], o = vector * group of r + v; 0 for channels past n.
// Sums are float32, tokens in their order.
struct SharedListsWeightGradParams {
  const void* grad_y = nullptr;  // [m, n], columns dense
  const void* x = nullptr;       // [m, k], columns dense
  float* out = nullptr;          // [records, vector]
  SharedLists weight;            // its values are not looked at
  int64_t m = 0, n = 0, k = 0;
  int64_t grad_y_row_stride = 0, x_row_stride = 0;  // in elements
  DType dtype = DType::kBFloat16;                   // of grad_y and x
  void* workspace = nullptr;                        // 16-byte aligned; holds nothing after
  int64_t workspace_bytes = 0;
};
SPARSECORE_API int64_t shared_lists_weight_grad_workspace(int64_t m, int64_t n, int64_t k);
SPARSECORE_API Status shared_lists_weight_grad_device(const SharedListsWeightGradParams& params, void* stream);

// dense [n, k], zeros included, of values of any type of 1, 2 or 4 bytes.
SPARSECORE_API Status shared_lists_unpack_device(const SharedLists& weight, DType dtype, int64_t n, int64_t k,
                                                 void* dense, void* stream);

// What shared_lists_validate would answer, into device memory: where[0] the status and where[1] the record, or kOk and
// -1. To be asked once, of a weight that came from elsewhere. The values are not looked at; vectors of 4 may be checked
// too.
SPARSECORE_API Status shared_lists_validate_device(const SharedLists& weight, int64_t n, int64_t k, int64_t* where,
                                                   void* stream);

}  // namespace sparsecore
