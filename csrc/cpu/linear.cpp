#include "sparsecore/linear.h"

namespace sparsecore {

const char* describe(Status status) {
  switch (status) {
    case Status::kOk: return "no error";
    case Status::kNullPointer: return "a required array is missing";
    case Status::kBadShape: return "a dimension or stride is negative or too large";
    case Status::kBadPattern: return "the pattern's parameters are outside what the format allows";
    case Status::kBadPointers: return "the starts of the lists do not ascend from 0 to the number of values";
    case Status::kBadIndex: return "an index points outside its block, group or row";
    case Status::kUnsorted: return "the indices of a list are not strictly ascending";
    case Status::kBadScale: return "a weight scale is missing or not finite";
    case Status::kUnsupportedDType: return "no kernel takes this combination of types";
    case Status::kOutOfMemory: return "scratch memory could not be allocated";
    case Status::kLaunchFailed: return "the device refused the kernel";
  }
  return "unknown status";
}

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
