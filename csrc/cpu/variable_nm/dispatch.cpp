#include "cpu/arch.h"
#include "cpu/backend_lists.h"
#include "cpu/variable_nm/variable_nm.h"
#include "sparsecore/cpu.h"

namespace sparsecore {
namespace variable_nm {
namespace {

// Best first.
constexpr Kernel kKernels[] = {
#if defined(SPARSECORE_X86)
    {Isa::kAvx512, "avx512::variable_nm", avx512::tile_f32, avx512::tile_bf16, avx512::tile_f16, avx512::tile_i8},
    {Isa::kAvx2, "avx2::variable_nm", avx2::tile_f32, avx2::tile_bf16, avx2::tile_f16, avx2::tile_i8},
#elif defined(SPARSECORE_ARM)
    {Isa::kNeon, "neon::variable_nm", neon::tile_f32, neon::tile_bf16, neon::tile_f16, neon::tile_i8},
#elif defined(SPARSECORE_WASM)
#if defined(SPARSECORE_WASM_RELAXED)
    {Isa::kWasmRelaxed, "wasm_relaxed::variable_nm", wasm_relaxed::tile_f32, wasm_relaxed::tile_bf16,
     wasm_relaxed::tile_f16, wasm_relaxed::tile_i8},
#endif
    {Isa::kWasmSimd, "wasm::variable_nm", wasm::tile_f32, wasm::tile_bf16, wasm::tile_f16, wasm::tile_i8},
#endif
    {Isa::kScalar, "scalar::variable_nm", scalar::tile_f32, scalar::tile_bf16, scalar::tile_f16, scalar::tile_i8},
};
constexpr int kCount = sizeof(kKernels) / sizeof(Kernel);

}  // namespace

const Kernel& kernel() {
  for (const Kernel& candidate : kKernels)
    if (isa_enabled(candidate.isa)) return candidate;
  return kKernels[kCount - 1];
}

}  // namespace variable_nm

BackendList variable_nm_backends() {
  static Backend rows[variable_nm::kCount];
  static const bool filled = [] {
    for (int i = 0; i < variable_nm::kCount; ++i)
      rows[i] = {"variable_nm_linear", variable_nm::kKernels[i].name, variable_nm::kKernels[i].isa,
                 "float32 bfloat16 float16 int8"};
    return true;
  }();
  (void)filled;
  return {rows, variable_nm::kCount};
}

}  // namespace sparsecore
