// The tensors of a group-lists weight as the struct the kernels take.
#pragma once

#include "sparsecore/group_lists.h"
#include "torch/tensors.h"

namespace sparsecore {

// Every array has the type and the size that n x k, rows, cols, depth and window ask for; what stands in the arrays is
// for the kernels to check. `values` may be null where only the structure matters.
GroupLists group_lists_view(const char* function, const Tensor* values, const Tensor& index, const Tensor& order,
                            const Tensor& starts, int64_t rows, int64_t cols, int64_t depth, int64_t window, int64_t n,
                            int64_t k);
// The same with rows and cols from the values, [records + 1, cols, rows].
GroupLists group_lists_view(const char* function, const Tensor& values, const Tensor& index, const Tensor& order,
                            const Tensor& starts, int64_t depth, int64_t window, int64_t n, int64_t k);

}  // namespace sparsecore
