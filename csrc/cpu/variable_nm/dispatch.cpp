#include "cpu/arch.h"
#include "cpu/kernel_table.h"
#include "cpu/variable_nm/variable_nm.h"

namespace sparsecore {
namespace variable_nm {
namespace {

// Best first.
constexpr const Kernel* kKernels[] = {
#if defined(SPARSECORE_X86)
    &avx512::kKernel,
    &avx2::kKernel,
#elif defined(SPARSECORE_ARM)
    &neon::kKernel,
#elif defined(SPARSECORE_WASM)
#if defined(SPARSECORE_WASM_RELAXED)
    &wasm_relaxed::kKernel,
#endif
    &wasm::kKernel,
#endif
    &scalar::kKernel,
};

}  // namespace

const Kernel& kernel() { return best_kernel(kKernels); }

}  // namespace variable_nm

BackendList variable_nm_backends() {
  return backends_of<variable_nm::kKernels>("variable_nm_linear", "float32 bfloat16 float16 int8");
}

}  // namespace sparsecore
