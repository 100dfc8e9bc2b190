#include "cpu/arch.h"
#include "cpu/backend_lists.h"
#include "cpu/epilogue/epilogue.h"
#include "sparsecore/cpu.h"

namespace sparsecore {
namespace epilogue {
namespace {

struct Kernel {
  Isa isa;
  RowFunction run;
};

// Best first.
constexpr Kernel kKernels[] = {
#if defined(SPARSECORE_X86)
    {Isa::kAvx512, avx512::finish_row},
    {Isa::kAvx2, avx2::finish_row},
#elif defined(SPARSECORE_ARM)
    {Isa::kNeon, neon::finish_row},
#elif defined(SPARSECORE_WASM)
    {Isa::kWasmSimd, wasm::finish_row},
#endif
    {Isa::kScalar, scalar::finish_row},
};

constexpr Backend kBackends[] = {
#if defined(SPARSECORE_X86)
    {"epilogue", "avx512::finish_row", Isa::kAvx512, "float32 bfloat16 float16"},
    {"epilogue", "avx2::finish_row", Isa::kAvx2, "float32 bfloat16 float16"},
#elif defined(SPARSECORE_ARM)
    {"epilogue", "neon::finish_row", Isa::kNeon, "float32 bfloat16 float16"},
#elif defined(SPARSECORE_WASM)
    {"epilogue", "wasm::finish_row", Isa::kWasmSimd, "float32 bfloat16 float16"},
#endif
    {"epilogue", "scalar::finish_row", Isa::kScalar, "float32 bfloat16 float16"},
};

}  // namespace

RowFunction row_function() {
  for (const Kernel& kernel : kKernels)
    if (isa_enabled(kernel.isa)) return kernel.run;
  return scalar::finish_row;
}

}  // namespace epilogue

BackendList epilogue_backends() {
  return {epilogue::kBackends, static_cast<int>(sizeof(epilogue::kBackends) / sizeof(Backend))};
}

}  // namespace sparsecore
