#include "cuda/shared_lists/check.h"

#include "cuda/linear/message.h"

namespace sparsecore::cuda_shared_lists {

using cuda_linear::refuse;

Status check_lists(const char* function, const SharedLists& weight, int64_t n, int64_t k) {
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  if (weight.vector != 8 && weight.vector != 16 && weight.vector != 32 && weight.vector != 64)
    return refuse(Status::kBadPattern,
                  "%s: kernels for the GPU take vectors of 8, 16, 32 and 64 channels, got %d. Pack the weight with one "
                  "of these, or run it on the CPU",
                  function, static_cast<int>(weight.vector));
  if (n < 0 || n > INT32_MAX || k < 0 || k > 65536 || weight.records < 0 || weight.records > INT32_MAX)
    return refuse(Status::kBadShape,
                  "%s: needs n < 2^31, k <= 65536 and records < 2^31, got n=%lld k=%lld records=%lld", function,
                  number(n), number(k), number(weight.records));
  if (n > 0 && (!weight.group_ptr || (weight.records > 0 && (!weight.columns || !weight.values))))
    return refuse(Status::kNullPointer, "%s: needs values, columns and group_ptr", function);
  return Status::kOk;
}

Status check_values(const char* function, const SharedLists& weight, DType dtype) {
  if (reinterpret_cast<uintptr_t>(weight.values) % 16 != 0)
    return refuse(Status::kNullPointer, "%s: values must begin at a multiple of 16 bytes, got %p", function,
                  weight.values);
  return check_dtype(function, dtype);
}

Status check_dtype(const char* function, DType dtype) {
  if (dtype != DType::kBFloat16 && dtype != DType::kFloat16)
    return refuse(Status::kUnsupportedDType,
                  "%s: no kernel for %s on a GPU. There are bfloat16 and float16, on sm_80 and newer", function,
                  cuda_linear::name_of(dtype));
  return Status::kOk;
}

}  // namespace sparsecore::cuda_shared_lists
