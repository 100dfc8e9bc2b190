// A convolution bound to its tensors, for callers that repeat it through a foreign-function interface: what it needs is
// read once, and a call only looks whether all tensors still have the memory they had.
#pragma once

#include "sparsecore/group_lists.h"
#include "torch/tensors.h"

namespace sparsecore {

struct BoundConv;
// io and lists point into the memory of `tensors`, which are kept.
BoundConv* bind_conv(const ConvIo& io, const GroupLists& lists, std::vector<Tensor> tensors);

}  // namespace sparsecore

// A Status as a number, or -1 where one of the tensors has moved.
extern "C" SPARSECORE_API int32_t sparsecore_bound_conv_run(const sparsecore::BoundConv* bound);
extern "C" SPARSECORE_API void sparsecore_bound_conv_free(sparsecore::BoundConv* bound);
