#include "cpu/arch.h"
#include "cpu/backend_lists.h"
#include "cpu/bitmap_decode/bitmap_decode.h"
#include "sparsecore/cpu.h"

namespace sparsecore {
namespace bitmap_decode {
namespace {

// Best first.
constexpr Kernel kKernels[] = {
#if defined(SPARSECORE_X86)
    {Isa::kAvx512, "avx512::bitmap_decode", avx512::row_f32, avx512::row_bf16, avx512::row_f16, avx512::row_i8},
    {Isa::kAvx2, "avx2::bitmap_decode", avx2::row_f32, avx2::row_bf16, avx2::row_f16, avx2::row_i8},
#elif defined(SPARSECORE_ARM)
    {Isa::kNeon, "neon::bitmap_decode", neon::row_f32, neon::row_bf16, neon::row_f16, neon::row_i8},
#elif defined(SPARSECORE_WASM)
#if defined(SPARSECORE_WASM_RELAXED)
    {Isa::kWasmRelaxed, "wasm_relaxed::bitmap_decode", wasm_relaxed::row_f32, wasm_relaxed::row_bf16,
     wasm_relaxed::row_f16, wasm_relaxed::row_i8},
#endif
    {Isa::kWasmSimd, "wasm::bitmap_decode", wasm::row_f32, wasm::row_bf16, wasm::row_f16, wasm::row_i8},
#endif
    {Isa::kScalar, "scalar::bitmap_decode", scalar::row_f32, scalar::row_bf16, scalar::row_f16, scalar::row_i8},
};
constexpr int kCount = sizeof(kKernels) / sizeof(Kernel);

}  // namespace

const Kernel& kernel() {
  for (const Kernel& candidate : kKernels)
    if (isa_enabled(candidate.isa)) return candidate;
  return kKernels[kCount - 1];
}

}  // namespace bitmap_decode

BackendList bitmap_decode_backends() {
  static Backend rows[bitmap_decode::kCount];
  static const bool filled = [] {
    for (int i = 0; i < bitmap_decode::kCount; ++i)
      rows[i] = {"bitmap_decode_linear", bitmap_decode::kKernels[i].name, bitmap_decode::kKernels[i].isa,
                 "float32 bfloat16 float16 int8"};
    return true;
  }();
  (void)filled;
  return {rows, bitmap_decode::kCount};
}

}  // namespace sparsecore
