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
using cuda_linear::refuse;

constexpr const char* kName = "block_sparse_weight_grad";

constexpr cuda_linear::Capability kRows[] = {
    {.kernel = 0,
     .name = "weight_grad_sm80",
     .types = cuda_linear::kHalves,
     .sizes = 16 + 32 + 64 + 128,
     .alignment = 16},
};
constexpr cuda_linear::Capabilities kCapabilities = {kRows, "blocks of"};

Status check(const BlockSparseGradParams& p) {
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  if (p.m < 0 || p.n < 0 || p.k < 0 || p.m > INT32_MAX || p.n > INT32_MAX || p.k > INT32_MAX)
    return refuse(Status::kBadShape, "%s: needs 0 <= m, n, k < 2^31, got m=%lld n=%lld k=%lld", kName, number(p.m),
                  number(p.n), number(p.k));
  const cuda_linear::Need need = {.dtype = p.dtype,
                                  .capability = current_device().capability,
                                  .sizes = {p.weight.size, 0},
                                  .alignment = cuda_linear::alignment_of(p.out)};
  if (const Status status = cuda_linear::check_kernel(kName, kCapabilities, 0, need); status != Status::kOk)
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

}  // namespace

const cuda_linear::Capabilities& grad_capabilities() { return kCapabilities; }

// As many as keep a large device busy, each of at least 256 tokens.
int32_t choose_grad_splits(int64_t m, int64_t blocks, int32_t) {
  return cuda_linear::splits_of(blocks, ceil_div(m, cuda_linear::kTurnTokens) * 2);
}

Status run_grad(int32_t splits, const BlockSparseGradParams& params, void* stream) {
  if (const Status status = check(params); status != Status::kOk) return status;
  if (params.weight.blocks == 0) return Status::kOk;
  const int64_t needed = grad_workspace_bytes(splits, params.weight.blocks, params.weight.size);
  DeviceLinear with_workspace;
  with_workspace.workspace = params.workspace;
  with_workspace.workspace_bytes = params.workspace_bytes;
  if (const Status status = cuda_linear::check_workspace(kName, with_workspace, needed); status != Status::kOk)
    return status;

  GradArguments args;
  args.p = params;
  args.rows = static_cast<int32_t>(ceil_div(params.n, params.weight.size));
  args.splits = splits;
  args.grad_y_vectors = cuda_linear::rows_aligned(params.grad_y, params.m, params.grad_y_row_stride, 2);
  args.x_vectors = cuda_linear::rows_aligned(params.x, params.m, params.x_row_stride, 2);
  LaunchConfig config;
  config.stream = static_cast<Stream>(stream);
  const Status status = with_element(params.dtype, [&](auto element) {
    return with_size(params.weight.size, [&](auto size) {
      constexpr int kSize = decltype(size)::value;
      using Tile = sm80::GradTile<kSize>;
      config.grid = dim3(static_cast<unsigned>(params.weight.blocks), static_cast<unsigned>(splits));
      config.block = dim3(Tile::kThreads);
      config.shared_bytes = Tile::kSharedBytes;
      return launched(kName, launch(config, sm80::weight_grad<decltype(element), kSize>, args));
    });
  });
  if (status != Status::kOk || splits == 1) return status;
  const int64_t chunks = params.weight.blocks * params.weight.size * params.weight.size / cuda_linear::kChunk;
  config.grid = dim3(static_cast<unsigned>(ceil_div(chunks, sm80::kGradFinishThreads)));
  config.block = dim3(sm80::kGradFinishThreads);
  config.shared_bytes = 0;
  return launched(kName, launch(config, sm80::add_grad_splits, args, chunks));
}

}  // namespace block_sparse

int64_t block_sparse_weight_grad_workspace(int64_t m, int64_t blocks, int32_t size) {
  using namespace block_sparse;
  if (m <= 0 || blocks <= 0 || !is_size(size)) return 0;
  return grad_workspace_bytes(choose_grad_splits(m, blocks, size), blocks, size);
}

Status block_sparse_weight_grad(const BlockSparseGradParams& p, void* stream) {
  using namespace block_sparse;
  const auto length = [](int64_t value) { return std::max<int64_t>(value, 0); };
  return run_grad(choose_grad_splits(length(p.m), length(p.weight.blocks), p.weight.size), p, stream);
}

}  // namespace sparsecore
