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
    {Isa::kScalar, scalar::finish_row},
};

constexpr Backend kBackends[] = {
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
