#include "cpu/arch.h"
#include "cpu/kernel_table.h"
#include "cpu/nm_decode/nm_decode.h"

namespace sparsecore {
namespace nm_decode {
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

}  // namespace nm_decode

BackendList nm_decode_backends() {
  return backends_of<nm_decode::kKernels>("nm_decode_linear", "float32 bfloat16 float16 int8");
}

}  // namespace sparsecore
