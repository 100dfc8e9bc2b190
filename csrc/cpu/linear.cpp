#include "sparsecore/linear.h"

namespace sparsecore {

Status check_io(const LinearIo& io) {
  constexpr int64_t kLargest = int64_t{1} << 40;
  if (io.m < 0 || io.n < 0 || io.k < 0 || io.m > kLargest || io.n > INT32_MAX || io.k > INT32_MAX)
    return Status::kBadShape;
  if (io.m > 1 && (io.x_row_stride < 0 || io.y_row_stride < io.n)) return Status::kBadShape;
  if (io.m > 0 && io.n > 0 && (!io.y || (io.k > 0 && !io.x))) return Status::kNullPointer;
  if (size_of(io.dtype) == 1 || size_of(io.bias_dtype) == 1 || io.weight_dtype > DType::kInt8)
    return Status::kUnsupportedDType;
  if (io.weight_dtype == DType::kInt8 && !io.weight_scale && io.n > 0) return Status::kBadScale;
  if (io.compute == Compute::kInt8 && io.weight_dtype != DType::kInt8) return Status::kUnsupportedDType;
  return Status::kOk;
}

}  // namespace sparsecore
