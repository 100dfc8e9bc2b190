// What the kernels of the 2:4 product share: their argument, the plan that chooses among them, and sizes of Sp24.
#pragma once

#include <cstdint>

#include "cuda/linear/arguments.h"
#include "cuda/linear/capabilities.h"
#include "sparsecore/semi_structured_cuda.h"

namespace sparsecore::semi_structured {

using namespace cuda_linear;

// Sp24 in the units that kernels count in.
constexpr int kBlockChannels = 64, kSliceChannels = 16, kSlices = 4;
constexpr int kSliceVectors = 64;  // 16 bytes each: step s of lane l is vector 32s + l
constexpr int kSliceValueBytes = 1024;

struct Plan {
  enum class Kernel : int32_t { kSmallSm80, kTiledSm80, kWgmmaSm90 };
  Kernel kernel = Kernel::kTiledSm80;
  int32_t tokens = 128;  // of a tile
  int32_t splits = 1;    // of the inputs; more than one sums through the workspace
  int32_t cluster = 1;   // blocks of neighbouring channels that share tokens: 1, 2 or 4; wgmma only
};

struct MatmulArguments : Arguments {
  SemiStructured weight;
  int64_t k_blocks = 0, n_blocks = 0;
  // Windows of a group of inputs, and floor(2^16 / windows) + 1.
  uint32_t group_windows = 1, group_windows_inverse = 0x10001;
};

// Inputs of the packed weight.
constexpr int64_t weight_inputs(int64_t k, int32_t group) {
  return group > kSmallestLiftGroup ? lifted_inputs(k, group) : k;
}
// Of a row of lifted x, with whole 16 bytes; 0 where nothing is lifted.
constexpr int64_t lifted_row_bytes(int64_t k, DType dtype, int32_t group) {
  return group > kSmallestLiftGroup ? ceil_div(lifted_inputs(k, group) * size_of(dtype), 16) * 16 : 0;
}

// The weight's type and sizes, in the words of `function`.
Status check_weight(const char* function, const SemiStructured& weight, DType dtype, int64_t n, int64_t k);

// What there is for products, with and without lifted inputs, and for the rest by its numbers.
const Capabilities& matmul_capabilities(bool lifted);
enum CompressKernel { kCompress, kCompressBoth, kDecompress, kValidate };
const Capabilities& compress_capabilities();
enum GradientKernel { kGather, kStraightThrough, kSampled };
const Capabilities& gradient_capabilities();
// The rule: a function of the shape (k: the weight's inputs, lifted where they are), of the kernels a device has
// (capability as 80, 86, 89 or 90) and of tensor_copies_take_x.
Plan choose_plan(int64_t m, int64_t n, int64_t k, DType dtype, int capability, bool tensor_copies, bool lifted = false);
// Partial sums, and then the lifted x of the kernel that cannot lift as it reads.
int64_t workspace_bytes(const Plan& plan, int64_t m, int64_t n, int64_t lifted_row = 0);
// With a plan given, as the tests do. Checks the parameters first.
Status run_plan(const Plan& plan, const SemiStructuredMatmulParams& params, void* stream);

// Parts of run_plan in files of their own. With lifted inputs:
Status launch_lifted_sm80(const Plan& plan, const MatmulArguments& args, void* stream);
// args.p.x -> lifted, [m] rows of `row_bytes`.
Status lift_tokens(const MatmulArguments& args, void* lifted, int64_t row_bytes, void* stream);
// Compiled for sm_90a alone.
Status launch_sm90(const Plan& plan, MatmulArguments args, void* stream);

// Calls function(T()) with the element type of `dtype`, one that the format knows.
template <class Function>
auto with_element(DType dtype, Function function) {
  switch (dtype) {
    case DType::kFloat16: return function(Float16());
    case DType::kInt8: return function(int8_t());
    case DType::kBFloat16: return function(BFloat16());
    default: return function(Float8E4M3());
  }
}

}  // namespace sparsecore::semi_structured
