#include "cpu/group_lists/group_lists_lanes4.h"

namespace sparsecore::group_lists::wasm_relaxed {

const Kernel kKernel = make_kernel(Isa::kWasmRelaxed, "wasm_relaxed::group_lists");

}  // namespace sparsecore::group_lists::wasm_relaxed
