#include "cpu/arch.h"
#include "cpu/backend_lists.h"
#include "cpu/shared_lists/shared_lists.h"
#include "sparsecore/cpu.h"

namespace sparsecore {
namespace shared_lists {
namespace {

// Best first. A row serves the vectors that its min_vector divides.
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

// The same for products of several kept columns at once.
constexpr const DotKernel* kDotKernels[] = {
#if defined(SPARSECORE_X86)
    &avx512_bf16::kBFloat16,
    &avx512_vnni::kInt8,
    &avx2::kInt8,
#elif defined(SPARSECORE_ARM)
    &neon_dot::kInt8,
#elif defined(SPARSECORE_WASM)
    &wasm::kInt8,
#endif
    &scalar::kInt8,
};

}  // namespace

const Kernel& float_kernel(int vector) {
  for (const Kernel* kernel : kKernels)
    if (isa_enabled(kernel->isa) && vector % kernel->min_vector == 0) return *kernel;
  return scalar::kKernel;
}

const DotKernel* dot_kernel(const LinearIo& io, int vector) {
  const bool quantised = io.compute == Compute::kInt8;
  for (const DotKernel* kernel : kDotKernels) {
    if (!isa_enabled(kernel->isa) || vector % kernel->min_vector) continue;
    if (kernel->weights != io.weight_dtype || quantised != (kernel->weights == DType::kInt8)) continue;
    if (!quantised && (io.dtype != kernel->weights || io.m < kernel->min_tokens)) continue;
    if (kernel->needs_fast_dot && !fast_bf16_dot()) continue;
    return kernel;
  }
  return nullptr;
}

}  // namespace shared_lists

BackendList shared_lists_backends() {
  using namespace shared_lists;
  constexpr int kFloat = sizeof(kKernels) / sizeof(kKernels[0]), kDot = sizeof(kDotKernels) / sizeof(kDotKernels[0]);
  static Backend rows[kFloat + kDot];
  static const bool filled = [] {
    for (int i = 0; i < kFloat; ++i)
      rows[i] = {"shared_lists_linear", kKernels[i]->name, kKernels[i]->isa, kKernels[i]->weights};
    for (int i = 0; i < kDot; ++i)
      rows[kFloat + i] = {"shared_lists_linear", kDotKernels[i]->name, kDotKernels[i]->isa,
                          kDotKernels[i]->weights == DType::kInt8 ? "int8" : "bfloat16"};
    return true;
  }();
  return {rows, filled ? kFloat + kDot : 0};
}

}  // namespace sparsecore
