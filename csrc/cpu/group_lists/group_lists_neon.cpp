#include "cpu/group_lists/group_lists_lanes4.h"

namespace sparsecore::group_lists::neon {

const Kernel kKernel = make_kernel(Isa::kNeon, "neon::group_lists");

}  // namespace sparsecore::group_lists::neon
