#include "cpu/row_lists/row_lists_lanes4.h"

namespace sparsecore::row_lists::wasm {

const Kernel kKernel = make_kernel(Isa::kWasmSimd, "wasm::row_lists");

}  // namespace sparsecore::row_lists::wasm
