#include "cpu/arch.h"
#include "cpu/backend_lists.h"
#include "cpu/nm_decode/nm_decode.h"
#include "sparsecore/cpu.h"

namespace sparsecore {
namespace nm_decode {
namespace {

// Best first.
constexpr Kernel kKernels[] = {
#if defined(SPARSECORE_X86)
    {Isa::kAvx512, "avx512::nm_decode", avx512::tile_f32, avx512::tile_bf16, avx512::tile_f16, avx512::tile_i8},
    {Isa::kAvx2, "avx2::nm_decode", avx2::tile_f32, avx2::tile_bf16, avx2::tile_f16, avx2::tile_i8},
#elif defined(SPARSECORE_ARM)
    {Isa::kNeon, "neon::nm_decode", neon::tile_f32, neon::tile_bf16, neon::tile_f16, neon::tile_i8},
#elif defined(SPARSECORE_WASM)
#if defined(SPARSECORE_WASM_RELAXED)
    {Isa::kWasmRelaxed, "wasm_relaxed::nm_decode", wasm_relaxed::tile_f32, wasm_relaxed::tile_bf16,
     wasm_relaxed::tile_f16, wasm_relaxed::tile_i8},
#endif
    {Isa::kWasmSimd, "wasm::nm_decode", wasm::tile_f32, wasm::tile_bf16, wasm::tile_f16, wasm::tile_i8},
#endif
    {Isa::kScalar, "scalar::nm_decode", scalar::tile_f32, scalar::tile_bf16, scalar::tile_f16, scalar::tile_i8},
};
constexpr int kCount = sizeof(kKernels) / sizeof(Kernel);

}  // namespace

const Kernel& kernel() {
  for (const Kernel& candidate : kKernels)
    if (isa_enabled(candidate.isa)) return candidate;
  return kKernels[kCount - 1];
}

}  // namespace nm_decode

BackendList nm_decode_backends() {
  static Backend rows[nm_decode::kCount];
  static const bool filled = [] {
    for (int i = 0; i < nm_decode::kCount; ++i)
      rows[i] = {"nm_decode_linear", nm_decode::kKernels[i].name, nm_decode::kKernels[i].isa,
                 "float32 bfloat16 float16 int8"};
    return true;
  }();
  (void)filled;
  return {rows, nm_decode::kCount};
}

}  // namespace sparsecore
