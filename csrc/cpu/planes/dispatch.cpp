#include "cpu/arch.h"
#include "cpu/kernel_table.h"
#include "cpu/planes/planes.h"

namespace sparsecore {
namespace planes {
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

}  // namespace planes

BackendList planes_backends() { return backends_of<planes::kKernels>("planes", "float32"); }

}  // namespace sparsecore
