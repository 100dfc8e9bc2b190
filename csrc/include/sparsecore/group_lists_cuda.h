// Group lists on a GPU: the arrays of sparsecore/group_lists.h, bfloat16 and float16, in device memory.
#pragma once

#include "sparsecore/group_lists.h"
#include "sparsecore/linear_cuda.h"

namespace sparsecore {

struct GroupListsParams : DeviceLinear {
  GroupLists weight;
};
// Depends on shapes alone, of the weight on its sides, depth and number of records.
SPARSECORE_API int64_t group_lists_cuda_workspace(int64_t m, int64_t n, int64_t k, const GroupLists& weight);
// Kernels stay inside their buffers whatever the lists hold; the answer is defined for lists that group_lists_validate
// accepts.
SPARSECORE_API Status group_lists_cuda_linear(const GroupListsParams& params, void* stream);

// out [records + 1, cols, rows], float32; what belongs to no weight (padding, columns past k, channels past n) is 0.
struct GroupListsGradParams {
  const void* grad_y = nullptr;  // [m, n], columns dense
  const void* x = nullptr;       // [m, k], columns dense
  float* out = nullptr;
  GroupLists weight;  // the values are not looked at
  int64_t m = 0, n = 0, k = 0;
  int64_t grad_y_row_stride = 0, x_row_stride = 0;  // in elements
  DType dtype = DType::kBFloat16;                   // of grad_y and x
};
SPARSECORE_API Status group_lists_cuda_weight_grad(const GroupListsGradParams& params, void* stream);

// What group_lists_validate would answer, into device memory: where[0] the status and where[1] the record or place, or
// kOk and -1. To be asked once, of a weight that came from elsewhere. The values are not looked at.
SPARSECORE_API Status group_lists_validate_device(const GroupLists& weight, int64_t n, int64_t k, int64_t* where,
                                                  void* stream);

}  // namespace sparsecore
