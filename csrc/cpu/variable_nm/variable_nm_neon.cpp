#include "cpu/variable_nm/variable_nm_lanes4.h"

namespace sparsecore::variable_nm::neon {

const Kernel kKernel = {.isa = Isa::kNeon,
                        .name = "neon::variable_nm",
                        .f32 = run_tokens<float>,
                        .bf16 = run_tokens<BFloat16>,
                        .f16 = run_tokens<Float16>,
                        .i8 = run_tokens<int8_t>};

}  // namespace sparsecore::variable_nm::neon
