#include "cuda/shared_lists/check.h"

#include "cuda/linear/message.h"

namespace sparsecore::cuda_shared_lists {

using cuda_linear::refuse;

Status check_lists(const char* function, const SharedLists& weight, int64_t n, int64_t k) {
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  if (n < 0 || n > INT32_MAX || k < 0 || k > 65536 || weight.records < 0 || weight.records > INT32_MAX)
    return refuse(Status::kBadShape,
                  "%s: needs n < 2^31, k <= 65536 and records < 2^31, got n=%lld k=%lld records=%lld", function,
                  number(n), number(k), number(weight.records));
  if (n > 0 && (!weight.group_ptr || (weight.records > 0 && (!weight.columns || !weight.values))))
    return refuse(Status::kNullPointer, "%s: needs values, columns and group_ptr", function);
  return Status::kOk;
}

}  // namespace sparsecore::cuda_shared_lists
