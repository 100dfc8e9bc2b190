#include "cpu/arch.h"
#include "cpu/backend_lists.h"
#include "cpu/planes/planes.h"
#include "sparsecore/cpu.h"

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
constexpr int kCount = sizeof(kKernels) / sizeof(kKernels[0]);

}  // namespace

const Kernel& kernel() {
  for (const Kernel* candidate : kKernels)
    if (isa_enabled(candidate->isa)) return *candidate;
  return scalar::kKernel;
}

}  // namespace planes

BackendList planes_backends() {
  static Backend rows[planes::kCount];
  static const bool filled = [] {
    for (int i = 0; i < planes::kCount; ++i)
      rows[i] = {"planes", planes::kKernels[i]->name, planes::kKernels[i]->isa, "float32"};
    return true;
  }();
  (void)filled;
  return {rows, planes::kCount};
}

}  // namespace sparsecore
