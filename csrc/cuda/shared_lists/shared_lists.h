// What the kernels over shared lists share: their arguments, and the list of a group.
#pragma once

#include "cuda/gathered/arguments.h"
#include "cuda/linear/capabilities.h"
#include "sparsecore/shared_lists_cuda.h"

namespace sparsecore::cuda_shared_lists {

using gathered::ceil_div;
using gathered::List;
using gathered::Plan;

// Records of a group. group_ptr is not trusted: the records exist whatever it says.
struct Records {
  int64_t first, last;

  SC_DEVICE Records(const SharedLists& weight, int64_t group) {
    const int64_t begin = weight.group_ptr[group], end = weight.group_ptr[group + 1];
    first = begin < 0 ? 0 : begin < weight.records ? begin : weight.records;
    last = end < first ? first : end < weight.records ? end : weight.records;
  }
};

struct MatmulArguments : gathered::Arguments {
  SharedLists weight;
};

// What there is for products, and for gradients, unpacking and validation.
const cuda_linear::Capabilities& matmul_capabilities();
enum GradientKernel { kGrad, kUnpack, kValidate };
const cuda_linear::Capabilities& gradient_capabilities();
// capability: as 80, 86, 89 or 90.
Plan choose_plan(int64_t m, int64_t n, int64_t records, int32_t vector, DType dtype, int capability);
// With a plan given, as the tests do. Checks the parameters first.
Status run_plan(const Plan& plan, const SharedListsLinearParams& params, void* stream);

// Of run_plan, in a file of its own: compiled for sm_90a alone.
Status launch_sm90(const char* function, const Plan& plan, const MatmulArguments& args, void* stream);

}  // namespace sparsecore::cuda_shared_lists
