#include "cpu/shared_lists/shared_lists_lanes4.h"

namespace sparsecore::shared_lists::wasm_relaxed {

const Kernel kKernel = make_kernel(Isa::kWasmRelaxed, "wasm_relaxed::shared_lists");

}  // namespace sparsecore::shared_lists::wasm_relaxed
