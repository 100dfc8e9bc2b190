#include "cpu/arch.h"
#include "cpu/backend_lists.h"
#include "cpu/bitmap_decode/bitmap_decode.h"
#include "sparsecore/cpu.h"

namespace sparsecore {
namespace bitmap_decode {
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

}  // namespace bitmap_decode

BackendList bitmap_decode_backends() {
  static Backend rows[bitmap_decode::kCount];
  static const bool filled = [] {
    for (int i = 0; i < bitmap_decode::kCount; ++i) {
      const bitmap_decode::Kernel& kernel = *bitmap_decode::kKernels[i];
      rows[i] = {"bitmap_decode_linear", kernel.name, kernel.isa, "float32 bfloat16 float16 int8"};
    }
    return true;
  }();
  (void)filled;
  return {rows, bitmap_decode::kCount};
}

}  // namespace sparsecore
