// What every function over shared lists on a GPU checks before a launch.
#pragma once

#include "sparsecore/shared_lists_cuda.h"

namespace sparsecore::cuda_shared_lists {

// The sizes, and that the arrays are there; the vector is of a kernel's list.
Status check_lists(const char* function, const SharedLists& weight, int64_t n, int64_t k);

}  // namespace sparsecore::cuda_shared_lists
