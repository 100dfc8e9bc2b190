#include <algorithm>

#include "cpu/arch.h"
#include "cpu/backend_lists.h"
#include "cpu/group_lists/dot.h"
#include "cpu/group_lists/group_lists.h"
#include "sparsecore/cpu.h"

namespace sparsecore {
namespace group_lists {
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

constexpr const DotKernel* kDotKernels[] = {
#if defined(SPARSECORE_X86)
    &avx512_vnni::kInt8,
    &avx2::kInt8,
#elif defined(SPARSECORE_ARM)
    &neon_dot::kInt8,
#endif
    &scalar::kInt8,
};

}  // namespace

const DotKernel& dot_kernel() {
  for (const DotKernel* kernel : kDotKernels)
    if (isa_enabled(kernel->isa)) return *kernel;
  return scalar::kInt8;
}

const Kernel& kernel() {
  for (const Kernel* kernel : kKernels)
    if (isa_enabled(kernel->isa)) return *kernel;
  return scalar::kKernel;
}

}  // namespace group_lists

// A record of one or two rows reads x for every product or every other: its panel is small enough for the level 1
// cache, unless lists would be so short that passing over the sums costs more than reading x from the level 2 cache.
// Wider groups read x less often and take it from there at no loss: where their lists are short, a panel is as deep as
// leaves it in that cache, and sums are seldom passed over at all.
int32_t group_lists_depth(int32_t rows, int32_t cols, int64_t k, double density) {
  constexpr double kShortLists = 0.15;
  const auto whole = [](int64_t columns) {
    return static_cast<int32_t>(std::max<int64_t>(32, (columns + 31) / 32 * 32));
  };
  if (rows >= 4 && cols == 1 && density <= kShortLists) {
    constexpr int64_t kDeepest = 2048;
    const int64_t panels = std::max<int64_t>(1, (k + kDeepest - 1) / kDeepest);
    return whole((k + panels - 1) / panels);
  }
  return whole(std::min<int64_t>(k, rows >= 4 || density <= kShortLists ? 256 : 128));
}

// A quarter of the layer, or half of it where a quarter would leave few groups to sort or uneven halves: two and four
// threads then have equal shares. Large layers have more windows of at most 128 groups.
int32_t group_lists_window(int32_t rows, int64_t n) {
  const int64_t groups = (n + rows - 1) / rows, half = (groups + 1) / 2;
  int64_t window = std::max<int64_t>(1, half);
  if (half > 8 || (half > 4 && half % 2 == 0)) window = (half + 1) / 2;
  while (window > 128) window = (window + 1) / 2;
  return static_cast<int32_t>(window);
}

BackendList group_lists_backends() {
  using namespace group_lists;
  constexpr int kFloat = sizeof(kKernels) / sizeof(kKernels[0]), kDot = sizeof(kDotKernels) / sizeof(kDotKernels[0]);
  static Backend rows[kFloat + kDot];
  static const bool filled = [] {
    for (int i = 0; i < kFloat; ++i)
      rows[i] = {"group_lists_conv", kKernels[i]->name, kKernels[i]->isa, kKernels[i]->weights};
    for (int i = 0; i < kDot; ++i)
      rows[kFloat + i] = {"group_lists_conv", kDotKernels[i]->name, kDotKernels[i]->isa, "int8"};
    return true;
  }();
  return {rows, filled ? kFloat + kDot : 0};
}

}  // namespace sparsecore
