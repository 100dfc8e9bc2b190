#include "cpu/group_lists/group_lists_lanes4.h"

namespace sparsecore::group_lists::wasm {

const Kernel kKernel = make_kernel(Isa::kWasmSimd, "wasm::group_lists");

}  // namespace sparsecore::group_lists::wasm
