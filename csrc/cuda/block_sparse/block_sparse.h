// What the kernels of the block-sparse family share: arguments and plans.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda/common/elements.h"
#include "cuda/linear/arguments.h"
#include "cuda/linear/capabilities.h"
#include "sparsecore/block_sparse_cuda.h"

namespace sparsecore::block_sparse {

using cuda_linear::ceil_div;
using cuda_linear::kTurnColumns;

struct Plan {
  enum class Kernel : int32_t { kSmall, kSm80, kSm90 };
  Kernel kernel = Kernel::kSm80;
  int32_t tokens = 128;  // of a tile
  int32_t splits = 1;    // of the entries of every row
  int32_t cluster = 1;   // blocks of neighbouring tokens that share weights: 1 or 2; wgmma only
};

struct LinearArguments : cuda_linear::Arguments {
  BlockSparse weight;
  int32_t rows = 0;  // of the matrix of blocks
};

struct GradArguments {
  BlockSparseGradParams p;
  int32_t rows = 0, splits = 1;
  bool grad_y_vectors = false, x_vectors = false;  // every row begins at a multiple of 16 bytes
};

// Channels that a block of threads of the kernel for few tokens makes: two slices of an mma, which share x.
constexpr int small_channels(int size) { return size < 32 ? size : 32; }

// Whether tensor copies can bring this weight: rows of values have coordinates of 32 bits.
constexpr bool tensor_copies_take(int64_t blocks, int32_t size) {
  return blocks > 0 && (blocks + 1) * size <= INT32_MAX;
}
// What there is for products, with the weight as it stands or transposed, and for gradients.
const cuda_linear::Capabilities& linear_capabilities();
const cuda_linear::Capabilities& grad_capabilities();
// The rule: a function of the shape, of whether the weight is transposed, of the kernels a device has (capability as
// 80, 86, 89 or 90) and of whether rows of x suit tensor copies.
Plan choose_plan(int64_t m, int64_t n, int64_t k, int64_t blocks, int32_t size, bool transposed, DType dtype,
                 int capability, bool tensor_copies);
int64_t workspace_bytes(const Plan& plan, int64_t m, int64_t n);
// With a plan given, as the tests do. Checks the parameters first.
Status run_plan(const Plan& plan, const BlockSparseParams& params, void* stream);

// Of run_plan, in a file of its own: compiled for sm_90a alone.
Status launch_sm90(const Plan& plan, const LinearArguments& args, void* stream);

// Gradients of blocks.
struct GradPlan {
  Plan::Kernel kernel = Plan::Kernel::kSm80;
  int32_t splits = 1;  // of the tokens
};
// Of the wgmma kernel: entries that a block of threads makes at once, whose sums fill 128 or 192 registers of a
// consumer, and tokens of a turn.
template <int kSize>
constexpr int kGradEntriesSm90 = kSize == 64 ? 8 : 3;
constexpr int kGradTurnSm90 = 32;
// Whether tensor copies can bring both operands.
bool tensor_copies_take(const BlockSparseGradParams& params);
GradPlan choose_grad_plan(int64_t m, int64_t blocks, int32_t size, DType dtype, int capability, bool tensor_copies);
constexpr int64_t grad_workspace_bytes(const GradPlan& plan, int64_t blocks, int32_t size) {
  return plan.splits > 1 ? plan.splits * blocks * size * size * 4 : 0;
}
Status run_grad(const GradPlan& plan, const BlockSparseGradParams& params, void* stream);
// Of run_grad.
Status launch_grad_sm90(const GradArguments& args, void* stream);

// Calls function(T()) with the element type, bfloat16 or float16.
template <class Function>
auto with_element(DType dtype, Function function) {
  return dtype == DType::kBFloat16 ? function(BFloat16()) : function(Float16());
}
// Calls function(std::integral_constant<int, size>()).
template <class Function>
auto with_size(int32_t size, Function function) {
  switch (size) {
    case 16: return function(std::integral_constant<int, 16>());
    case 32: return function(std::integral_constant<int, 32>());
    case 64: return function(std::integral_constant<int, 64>());
    default: return function(std::integral_constant<int, 128>());
  }
}

}  // namespace sparsecore::block_sparse
