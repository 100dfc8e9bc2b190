// What every function over shared lists on a GPU checks before a launch.
#pragma once

#include "sparsecore/shared_lists_cuda.h"

namespace sparsecore::cuda_shared_lists {

// Vectors of 8, 16, 32 and 64, the sizes, and that the arrays are there.
Status check_lists(const char* function, const SharedLists& weight, int64_t n, int64_t k);
// bfloat16 or float16, at a multiple of 16 bytes.
Status check_values(const char* function, const SharedLists& weight, DType dtype);
Status check_dtype(const char* function, DType dtype);

}  // namespace sparsecore::cuda_shared_lists
