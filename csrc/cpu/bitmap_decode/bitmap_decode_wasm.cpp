#include "cpu/bitmap_decode/bitmap_decode_lanes4.h"

namespace sparsecore::bitmap_decode::wasm {

const Kernel kKernel = {.isa = Isa::kWasmSimd,
                        .name = "wasm::bitmap_decode",
                        .count = count,
                        .f32 = run_tokens<float>,
                        .bf16 = run_tokens<BFloat16>,
                        .f16 = run_tokens<Float16>,
                        .i8 = run_tokens<int8_t>};

}  // namespace sparsecore::bitmap_decode::wasm
