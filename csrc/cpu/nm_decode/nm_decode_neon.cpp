#include "cpu/nm_decode/nm_decode_lanes4.h"

namespace sparsecore::nm_decode::neon {

const Kernel kKernel = {.isa = Isa::kNeon,
                        .name = "neon::nm_decode",
                        .f32 = run_tokens<float>,
                        .bf16 = run_tokens<BFloat16>,
                        .f16 = run_tokens<Float16>,
                        .i8 = run_tokens<int8_t>};

}  // namespace sparsecore::nm_decode::neon
