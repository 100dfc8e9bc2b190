#include "cpu/shared_lists/shared_lists_lanes4.h"

namespace sparsecore::shared_lists::wasm {

const Kernel kKernel = make_kernel(Isa::kWasmSimd, "wasm::shared_lists");

}  // namespace sparsecore::shared_lists::wasm
