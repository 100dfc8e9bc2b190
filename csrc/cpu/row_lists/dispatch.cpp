#include "cpu/arch.h"
#include "cpu/backend_lists.h"
#include "cpu/row_lists/row_lists.h"
#include "sparsecore/cpu.h"

namespace sparsecore {
namespace row_lists {
namespace {

// Best first.
constexpr const Kernel* kKernels[] = {
#if defined(SPARSECORE_X86)
    &avx512_fp16::kKernel, &avx512_bf16::kKernel, &avx512::kKernel, &avx2::kKernel,
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

const Kernel& linear_kernel(const LinearIo& io) {
  for (const Kernel* kernel : kKernels)
    if (isa_enabled(kernel->isa) && (!kernel->serves || kernel->serves(io))) return *kernel;
  return scalar::kKernel;
}

const Kernel& gradient_kernel() {
  for (const Kernel* kernel : kKernels)
    if (isa_enabled(kernel->isa) && kernel->gradient_lanes) return *kernel;
  return scalar::kKernel;
}

}  // namespace row_lists

int32_t row_lists_block(double density) { return density >= 0.22 ? 128 : 256; }

BackendList row_lists_backends() {
  using namespace row_lists;
  constexpr int kCount = sizeof(kKernels) / sizeof(kKernels[0]);
  static Backend rows[kCount];
  static const bool filled = [] {
    for (int i = 0; i < kCount; ++i)
      rows[i] = {"row_lists_linear", kKernels[i]->name, kKernels[i]->isa, kKernels[i]->weights};
    return true;
  }();
  return {rows, filled ? kCount : 0};
}

}  // namespace sparsecore
