// Which kernel takes a product with a block-sparse weight, and its launch.
#include <algorithm>

#include "cuda/block_sparse/check.h"
#include "cuda/block_sparse/linear_sm80.cuh"
#include "cuda/common/launch.h"
#include "cuda/linear/capabilities.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"

namespace sparsecore {
namespace block_sparse {
namespace {

using cuda_linear::Capability;
using cuda_linear::kAnyNewer;
using cuda_linear::launched;
using cuda_linear::refuse;
using Kernel = Plan::Kernel;

constexpr const char* kName = "block_sparse_linear";

constexpr int number_of(Kernel kernel) { return static_cast<int>(kernel); }
constexpr Capability kCapabilities[] = {
    {number_of(Kernel::kSm90), "linear_sm90", DType::kBFloat16, 90, 90},
    {number_of(Kernel::kSm90), "linear_sm90", DType::kFloat16, 90, 90},
    {number_of(Kernel::kSm80), "linear_sm80", DType::kBFloat16, 80, kAnyNewer},
    {number_of(Kernel::kSm80), "linear_sm80", DType::kFloat16, 80, kAnyNewer},
};

template <class T, int kSize, int kTokens, bool kTransposed>
Status launch_sm80(LinearArguments args, void* stream) {
  using Tile = sm80::Tile<kSize, kTokens>;
  args.token_tiles = static_cast<int32_t>(ceil_div(args.p.m, kTokens));
  const int64_t tiles = static_cast<int64_t>(args.token_tiles) * args.rows;
  if (tiles > INT32_MAX)
    return refuse(Status::kBadShape, "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts", kName,
                  static_cast<long long>(args.p.m), static_cast<long long>(args.p.n));
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(args.splits));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return launched(kName, launch(config, sm80::linear<T, kSize, kTokens, kTransposed>, args));
}

}  // namespace

// Up to 64 tokens reading W is what costs: small tiles, several of which share a multiprocessor.
Plan choose_plan(int64_t m, int64_t n, int64_t, int64_t blocks, int32_t size, DType dtype, int capability,
                 bool tensor_copies) {
  Plan plan;
  const bool wgmma = m > 64 && tensor_copies && tensor_copies_take(blocks, size) &&
                     cuda_linear::has(kCapabilities, number_of(Kernel::kSm90), dtype, capability);
  plan.kernel = wgmma ? Kernel::kSm90 : Kernel::kSm80;
  plan.tokens = m <= 64 ? 32 : wgmma && size == 64 ? 256 : 128;
  const int64_t rows = ceil_div(n, size), turns = ceil_div(blocks * size, kTurnColumns);
  plan.splits = cuda_linear::splits_of(rows * ceil_div(m, plan.tokens), turns / std::max<int64_t>(rows, 1));
  return plan;
}

int64_t workspace_bytes(const Plan& plan, int64_t m, int64_t n) {
  return cuda_linear::partial_sum_bytes(plan.splits, m, n);
}

Status run_plan(const Plan& plan, const BlockSparseParams& params, void* stream) {
  if (const Status status = cuda_linear::check_operands(kName, params); status != Status::kOk) return status;
  if (const Status status = check_weight(kName, params.weight, params.dtype, params.n); status != Status::kOk)
    return status;
  if (params.m == 0 || params.n == 0) return Status::kOk;
  if (params.weight.blocks > 0 && !params.weight.values) return refuse(Status::kNullPointer, "%s: needs values", kName);
  if (!params.weight.order) return refuse(Status::kNullPointer, "%s: needs the order of the rows", kName);
  if (const Status refused = cuda_linear::check_kernel(kName, kCapabilities, number_of(plan.kernel), params.dtype,
                                                       current_device().capability);
      refused != Status::kOk)
    return refused;
  if (const Status status = cuda_linear::check_workspace(kName, params, workspace_bytes(plan, params.m, params.n));
      status != Status::kOk)
    return status;

  LinearArguments args;
  args.p = params;
  args.weight = params.weight;
  args.rows = static_cast<int32_t>(ceil_div(params.n, params.weight.size));
  args.splits = plan.splits;
  cuda_linear::note_alignment(&args);
  if (plan.kernel == Kernel::kSm90) {
    if (!tensor_copies_take(params.weight.blocks, params.weight.size))
      return refuse(Status::kBadShape,
                    "%s: tensor copies need blocks of 64 or 128, some and less than 2^31 rows of them", kName);
    const Status status = launch_sm90(args, stream);
    return status == Status::kOk && args.splits > 1 ? cuda_linear::finish_splits(kName, args, stream) : status;
  }
  const Status status = with_element(params.dtype, [&](auto element) {
    using T = decltype(element);
    return with_size(params.weight.size, [&](auto size) {
      constexpr int kSize = decltype(size)::value;
      if (params.weight.source) return launch_sm80<T, kSize, 128, true>(args, stream);
      return plan.tokens == 32 ? launch_sm80<T, kSize, 32, false>(args, stream)
                               : launch_sm80<T, kSize, 128, false>(args, stream);
    });
  });
  return status == Status::kOk && args.splits > 1 ? cuda_linear::finish_splits(kName, args, stream) : status;
}

}  // namespace block_sparse

int64_t block_sparse_workspace(int64_t m, int64_t n, int64_t k, int64_t blocks, int32_t size) {
  using namespace block_sparse;
  if (m <= 0 || n <= 0 || blocks < 0 || !is_size(size)) return 0;
  // Of whichever kernel the device and the rows of x allow.
  return std::max(workspace_bytes(choose_plan(m, n, k, blocks, size, DType::kBFloat16, 80, false), m, n),
                  workspace_bytes(choose_plan(m, n, k, blocks, size, DType::kBFloat16, 90, true), m, n));
}

Status block_sparse_linear(const BlockSparseParams& p, void* stream) {
  using namespace block_sparse;
  if (const Status status = check_weight("block_sparse_linear", p.weight, p.dtype, p.n); status != Status::kOk)
    return status;
  const auto length = [](int64_t value) { return std::max<int64_t>(value, 0); };
  return run_plan(choose_plan(length(p.m), length(p.n), length(p.k), p.weight.blocks, p.weight.size, p.dtype,
                              current_device().capability, cuda_linear::tensor_copies_take_x(p)),
                  p, stream);
}

}  // namespace sparsecore
