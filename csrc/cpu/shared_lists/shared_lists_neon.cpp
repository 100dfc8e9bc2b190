#include "cpu/shared_lists/shared_lists_lanes4.h"

namespace sparsecore::shared_lists::neon {

const Kernel kKernel = make_kernel(Isa::kNeon, "neon::shared_lists");

}  // namespace sparsecore::shared_lists::neon
