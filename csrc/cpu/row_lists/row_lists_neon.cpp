#include "cpu/row_lists/row_lists_lanes4.h"

namespace sparsecore::row_lists::neon {

const Kernel kKernel = make_kernel(Isa::kNeon, "neon::row_lists");

}  // namespace sparsecore::row_lists::neon
