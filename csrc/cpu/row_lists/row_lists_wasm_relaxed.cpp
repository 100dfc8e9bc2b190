#include "cpu/row_lists/row_lists_lanes4.h"

namespace sparsecore::row_lists::wasm_relaxed {

const Kernel kKernel = make_kernel(Isa::kWasmRelaxed, "wasm_relaxed::row_lists");

}  // namespace sparsecore::row_lists::wasm_relaxed
