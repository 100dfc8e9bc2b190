// The launch of the gradient of kept blocks.
#include <algorithm>

#include "cuda/block_sparse/check.h"
#include "cuda/block_sparse/weight_grad_sm80.cuh"
#include "cuda/common/launch.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"

namespace sparsecore {
namespace block_sparse {
namespace {

using cuda_linear::launched;
using cuda_linear::number_of;
using cuda_linear::refuse;
using Kernel = Plan::Kernel;

constexpr const char* kName = "block_sparse_weight_grad";

constexpr cuda_linear::Capability kRows[] = {
    {.kernel = number_of(Kernel::kSm90),
     .name = "weight_grad_sm90",
     .types = cuda_linear::kHalves,
     .from = 90,
     .to = 90,
     .sizes = 64 + 128,
     .alignment = 16,
     .tensor_copies = true,
     .worth_from = 65},
    {.kernel = number_of(Kernel::kSm80),
     .name = "weight_grad_sm80",
     .types = cuda_linear::kHalves,
     .sizes = 16 + 32 + 64 + 128,
     .alignment = 16},
};
constexpr cuda_linear::Capabilities kCapabilities = {kRows, "blocks of"};

Status check(Kernel kernel, const BlockSparseGradParams& p) {
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  if (p.m < 0 || p.n < 0 || p.k < 0 || p.m > INT32_MAX || p.n > INT32_MAX || p.k > INT32_MAX)
    return refuse(Status::kBadShape, "%s: needs 0 <= m, n, k < 2^31, got m=%lld n=%lld k=%lld", kName, number(p.m),
                  number(p.n), number(p.k));
  const cuda_linear::Need need = {.dtype = p.dtype,
                                  .capability = current_device().capability,
                                  .tokens = p.m,
                                  .sizes = {p.weight.size, 0},
                                  .alignment = cuda_linear::alignment_of(p.out),
                                  .tensor_copies = tensor_copies_take(p)};
  if (const Status status = cuda_linear::check_kernel(kName, kCapabilities, number_of(kernel), need);
      status != Status::kOk)
    return status;
  if (const Status status = check_weight(kName, p.weight, p.n); status != Status::kOk) return status;
  if (p.m > 1 && (p.x_row_stride < 0 || p.grad_y_row_stride < 0))
    return refuse(Status::kBadShape, "%s: needs row strides >= 0, got %lld and %lld", kName,
                  number(p.grad_y_row_stride), number(p.x_row_stride));
  if (p.out_dtype != DType::kFloat32 && p.out_dtype != DType::kBFloat16 && p.out_dtype != DType::kFloat16)
    return refuse(Status::kUnsupportedDType, "%s: out is float32, bfloat16 or float16, not %s", kName,
                  cuda_linear::name_of(p.out_dtype));
  if (p.weight.blocks == 0) return Status::kOk;
  if (p.n == 0 || p.k == 0)
    return refuse(Status::kBadShape, "%s: a matrix %lld x %lld has no blocks, got %lld", kName, number(p.n),
                  number(p.k), number(p.weight.blocks));
  if (!p.out || (p.m > 0 && (!p.grad_y || !p.x)))
    return refuse(Status::kNullPointer, "%s: needs grad_y, x and out", kName);
  return Status::kOk;
}

template <class T, int kSize>
Status launch_grad_sm80(const GradArguments& args, void* stream) {
  using Tile = sm80::GradTile<kSize>;
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(args.p.weight.blocks), static_cast<unsigned>(args.splits));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return launched(kName, launch(config, sm80::weight_grad<T, kSize>, args));
}

// The splits of the persistent kernel: the fewest rounds of turns on a large device. A split costs what the turns would
// that bring as many bytes as its sums have, written and read again.
int32_t persistent_splits(int64_t m, int64_t blocks, int32_t size) {
  constexpr int64_t kMultiprocessors = 132, kMost = 16;
  const int64_t turns = ceil_div(m, kGradTurnSm90), turns_of_sums = size == 64 ? 7 : 12;
  const int64_t works = ceil_div(blocks, size == 64 ? kGradEntriesSm90<64> : kGradEntriesSm90<128>);
  const auto rounds = [&](int64_t splits) {
    return ceil_div(works * splits, kMultiprocessors) * (ceil_div(turns, splits) + (splits > 1 ? turns_of_sums : 0));
  };
  int64_t best = 1;
  for (int64_t splits = 2; splits <= std::min(kMost, turns / turns_of_sums); ++splits)
    if (rounds(splits) < rounds(best)) best = splits;
  return static_cast<int32_t>(best);
}

}  // namespace

const cuda_linear::Capabilities& grad_capabilities() { return kCapabilities; }

bool tensor_copies_take(const BlockSparseGradParams& p) {
  return cuda_linear::tensor_copies_take({p.grad_y, p.m, p.n, p.grad_y_row_stride, p.dtype}) &&
         cuda_linear::tensor_copies_take({p.x, p.m, p.k, p.x_row_stride, p.dtype});
}

// With few tokens the blocks of the gradient are what costs, and many small blocks of threads write them.
GradPlan choose_grad_plan(int64_t m, int64_t blocks, int32_t size, DType dtype, int capability, bool tensor_copies) {
  const cuda_linear::Capability* const row = cuda_linear::choose(
      kCapabilities,
      {.dtype = dtype, .capability = capability, .tokens = m, .sizes = {size, 0}, .tensor_copies = tensor_copies});
  if (row && row->kernel == number_of(Kernel::kSm90)) return {Kernel::kSm90, persistent_splits(m, blocks, size)};
  // As many splits as keep a large device busy, each of at least 256 tokens.
  return {Kernel::kSm80, cuda_linear::splits_of(blocks, ceil_div(m, cuda_linear::kTurnTokens) * 2)};
}

Status run_grad(const GradPlan& plan, const BlockSparseGradParams& params, void* stream) {
  if (const Status status = check(plan.kernel, params); status != Status::kOk) return status;
  if (params.weight.blocks == 0) return Status::kOk;
  const int64_t needed = grad_workspace_bytes(plan, params.weight.blocks, params.weight.size);
  DeviceLinear with_workspace;
  with_workspace.workspace = params.workspace;
  with_workspace.workspace_bytes = params.workspace_bytes;
  if (const Status status = cuda_linear::check_workspace(kName, with_workspace, needed); status != Status::kOk)
    return status;

  GradArguments args;
  args.p = params;
  args.rows = static_cast<int32_t>(ceil_div(params.n, params.weight.size));
  args.splits = plan.splits;
  args.grad_y_vectors = cuda_linear::rows_aligned(params.grad_y, params.m, params.grad_y_row_stride, 2);
  args.x_vectors = cuda_linear::rows_aligned(params.x, params.m, params.x_row_stride, 2);
  if (plan.kernel == Kernel::kSm90 && !tensor_copies_take(params.weight.blocks, params.weight.size))
    return refuse(Status::kBadShape, "%s: tensor copies need blocks of 64 or 128, some and less than 2^31 rows of them",
                  kName);
  const Status status =
      plan.kernel == Kernel::kSm90 ? launch_grad_sm90(args, stream) : with_element(params.dtype, [&](auto element) {
        return with_size(params.weight.size, [&](auto size) {
          return launch_grad_sm80<decltype(element), decltype(size)::value>(args, stream);
        });
      });
  if (status != Status::kOk || plan.splits == 1) return status;
  const int64_t chunks = params.weight.blocks * params.weight.size * params.weight.size / cuda_linear::kChunk;
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(ceil_div(chunks, sm80::kGradFinishThreads)));
  config.block = dim3(sm80::kGradFinishThreads);
  config.stream = static_cast<Stream>(stream);
  return launched(kName, launch(config, sm80::add_grad_splits, args, chunks));
}

}  // namespace block_sparse

int64_t block_sparse_weight_grad_workspace(int64_t m, int64_t blocks, int32_t size) {
  using namespace block_sparse;
  if (m <= 0 || blocks <= 0 || !is_size(size)) return 0;
  // Of whichever kernel the device and the rows allow.
  return std::max(grad_workspace_bytes(choose_grad_plan(m, blocks, size, DType::kBFloat16, 80, false), blocks, size),
                  grad_workspace_bytes(choose_grad_plan(m, blocks, size, DType::kBFloat16, 90, true), blocks, size));
}

Status block_sparse_weight_grad(const BlockSparseGradParams& p, void* stream) {
  using namespace block_sparse;
  const auto length = [](int64_t value) { return std::max<int64_t>(value, 0); };
  return run_grad(choose_grad_plan(length(p.m), length(p.weight.blocks), p.weight.size, p.dtype,
                                   current_device().capability, tensor_copies_take(p)),
                  p, stream);
}

}  // namespace sparsecore
