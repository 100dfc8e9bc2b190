#include "sparsecore/types.h"

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

}  // namespace sparsecore
