#include "cpu/arch.h"
#include "cpu/backend_lists.h"
#include "cpu/epilogue/epilogue.h"
#include "sparsecore/cpu.h"

namespace sparsecore {
namespace epilogue {
namespace {

struct Kernel {
  Isa isa;
  BlockFunction run;
};

// Best first.
constexpr Kernel kKernels[] = {
#if defined(SPARSECORE_X86)
    {Isa::kAvx512, avx512::finish},
    {Isa::kAvx2, avx2::finish},
#elif defined(SPARSECORE_ARM)
    {Isa::kNeon, neon::finish},
#elif defined(SPARSECORE_WASM)
    {Isa::kWasmSimd, wasm::finish},
#endif
    {Isa::kScalar, scalar::finish},
};

constexpr Backend kBackends[] = {
#if defined(SPARSECORE_X86)
    {"epilogue", "avx512::finish", Isa::kAvx512, "float32 bfloat16 float16"},
    {"epilogue", "avx2::finish", Isa::kAvx2, "float32 bfloat16 float16"},
#elif defined(SPARSECORE_ARM)
    {"epilogue", "neon::finish", Isa::kNeon, "float32 bfloat16 float16"},
#elif defined(SPARSECORE_WASM)
    {"epilogue", "wasm::finish", Isa::kWasmSimd, "float32 bfloat16 float16"},
#endif
    {"epilogue", "scalar::finish", Isa::kScalar, "float32 bfloat16 float16"},
};

}  // namespace

BlockFunction block_function() {
  for (const Kernel& kernel : kKernels)
    if (isa_enabled(kernel.isa)) return kernel.run;
  return scalar::finish;
}

Block block_of(const LinearIo& io, int64_t token, int64_t rows, int64_t begin, int64_t end) {
  Block block = {};
  block.scale = io.weight_scale ? io.weight_scale + begin : nullptr;
  block.bias = io.bias ? static_cast<const char*>(io.bias) + begin * size_of(io.bias_dtype) : nullptr;
  block.bias_dtype = io.bias_dtype;
  block.activation = io.activation;
  block.y = static_cast<char*>(io.y) + (token * io.y_row_stride + begin) * size_of(io.dtype);
  block.y_row_stride = io.y_row_stride;
  block.dtype = io.dtype;
  block.rows = rows;
  block.n = end - begin;
  return block;
}

}  // namespace epilogue

BackendList epilogue_backends() {
  return {epilogue::kBackends, static_cast<int>(sizeof(epilogue::kBackends) / sizeof(Backend))};
}

}  // namespace sparsecore
