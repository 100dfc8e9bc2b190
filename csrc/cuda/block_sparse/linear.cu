// Which kernel takes a product with a block-sparse weight, and its launch.
#include <algorithm>
#include <utility>

#include "cuda/block_sparse/check.h"
#include "cuda/block_sparse/linear_sm80.cuh"
#include "cuda/block_sparse/linear_small_sm80.cuh"
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

constexpr const char* kName = "block_sparse_linear";

// A warp reads 64 t bytes of x from the level 2 cache for 2 KB of weights from memory: at 32 tokens as many, where
// that cache is some three times as fast; beyond, x would be the limit. The visit asks: few.blocks.
constexpr int64_t kFewTokens = 32;

constexpr cuda_linear::Capability kRows[] = {
    {.kernel = number_of(Kernel::kSmall),
     .name = "linear_small_sm80",
     .types = cuda_linear::kHalves,
     .sizes = 16 + 32 + 64 + 128,
     .alignment = 16,
     .worth_to = kFewTokens},
    {.kernel = number_of(Kernel::kSm90),
     .name = "linear_sm90",
     .types = cuda_linear::kHalves,
     .from = 90,
     .to = 90,
     .sizes = 64 + 128,
     .alignment = 16,
     .tensor_copies = true,
     .worth_from = 65},
    {.kernel = number_of(Kernel::kSm80),
     .name = "linear_sm80",
     .types = cuda_linear::kHalves,
     .sizes = 16 + 32 + 64 + 128,
     .alignment = 16},
};
constexpr cuda_linear::Capabilities kCapabilities = {kRows, "blocks of"};

// One grid dimension for token tiles x tiles of channels.
template <class Tile>
Status launch_tiles(void (*kernel)(LinearArguments), LinearArguments args, int64_t channel_tiles, void* stream) {
  args.token_tiles = static_cast<int32_t>(ceil_div(args.p.m, Tile::kTokens));
  const int64_t tiles = args.token_tiles * channel_tiles;
  if (tiles > INT32_MAX)
    return refuse(Status::kBadShape, "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts", kName,
                  static_cast<long long>(args.p.m), static_cast<long long>(args.p.n));
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(args.splits));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return launched(kName, launch(config, kernel, args));
}

template <class T, int kSize, int kTokens, bool kTransposed>
Status launch_sm80(const LinearArguments& args, void* stream) {
  return launch_tiles<sm80::Tile<kSize, kTokens>>(sm80::linear<T, kSize, kTokens, kTransposed>, args, args.rows,
                                                  stream);
}
template <class T, int kChannels, int kTokens>
Status launch_small(const LinearArguments& args, void* stream) {
  const auto kernel = args.weight.source ? sm80::linear_small<T, kChannels, kTokens, true>
                                         : sm80::linear_small<T, kChannels, kTokens, false>;
  return launch_tiles<sm80::SmallTile<kChannels, kTokens>>(kernel, args,
                                                           int64_t{args.rows} * (args.weight.size / kChannels), stream);
}
template <class T, int kChannels>
Status launch_small(const Plan& plan, const LinearArguments& args, void* stream) {
  switch (plan.tokens) {
    case 8: return launch_small<T, kChannels, 8>(args, stream);
    case 16: return launch_small<T, kChannels, 16>(args, stream);
    case 32: return launch_small<T, kChannels, 32>(args, stream);
  }
  return refuse(Status::kBadShape, "%s: linear_small_sm80 has no tile of %d tokens", kName, plan.tokens);
}

}  // namespace

const cuda_linear::Capabilities& linear_capabilities() { return kCapabilities; }

// Up to 64 tokens reading W is what costs. Up to kFewTokens the kernel that reads it straight into operands has the
// most of it on its way. Beyond, x counts too: tiles of 32 tokens, or of 128 of the transposed weight, whose x all
// warps of a block of threads share.
Plan choose_plan(int64_t m, int64_t n, int64_t, int64_t blocks, int32_t size, bool transposed, DType dtype,
                 int capability, bool tensor_copies) {
  const cuda_linear::Capability* const row =
      cuda_linear::choose(kCapabilities, {.dtype = dtype,
                                          .capability = capability,
                                          .tokens = m,
                                          .sizes = {size, 0},
                                          .tensor_copies = tensor_copies && tensor_copies_take(blocks, size)});
  Plan plan;
  if (row) plan.kernel = static_cast<Kernel>(row->kernel);
  int64_t channel_tiles = ceil_div(n, size);
  const int64_t rows = channel_tiles, turns = ceil_div(blocks * size, kTurnColumns);
  if (plan.kernel == Kernel::kSmall) {
    plan.tokens = m <= 8 ? 8 : m <= 16 ? 16 : 32;
    channel_tiles *= size / small_channels(size);
  } else if (plan.kernel == Kernel::kSm90) {
    // Of blocks of 128, 256 tokens ask the level 2 cache for least, where there are enough of them to fill the device.
    const int64_t tiles = ceil_div(m, 256);
    plan.tokens = size == 64 || rows * tiles >= cuda_linear::kEnoughBlocks * 3 / 4 ? 256 : 128;
    if (plan.tokens == 256 && (tiles % 2 == 0 || tiles > 16)) plan.cluster = 2;
  } else {
    plan.tokens = m <= 64 && !transposed ? 32 : 128;
  }
  plan.splits = cuda_linear::splits_of(channel_tiles * ceil_div(m, plan.tokens), turns / std::max<int64_t>(rows, 1));
  return plan;
}

int64_t workspace_bytes(const Plan& plan, int64_t m, int64_t n) {
  return cuda_linear::partial_sum_bytes(plan.splits, m, n);
}

Status run_plan(const Plan& plan, const BlockSparseParams& params, void* stream) {
  if (const Status status = cuda_linear::check_operands(kName, params); status != Status::kOk) return status;
  const cuda_linear::Need need = {.dtype = params.dtype,
                                  .capability = current_device().capability,
                                  .tokens = params.m,
                                  .sizes = {params.weight.size, 0},
                                  .alignment = cuda_linear::alignment_of(params.weight.values),
                                  .tensor_copies = cuda_linear::tensor_copies_take_x(params) &&
                                                   tensor_copies_take(params.weight.blocks, params.weight.size)};
  if (const Status status = cuda_linear::check_kernel(kName, kCapabilities, number_of(plan.kernel), need);
      status != Status::kOk)
    return status;
  if (const Status status = check_weight(kName, params.weight, params.n); status != Status::kOk) return status;
  if (params.m == 0 || params.n == 0) return Status::kOk;
  if (params.weight.blocks > 0 && !params.weight.values) return refuse(Status::kNullPointer, "%s: needs values", kName);
  if (!params.weight.order) return refuse(Status::kNullPointer, "%s: needs the order of the rows", kName);
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
    const Status status = launch_sm90(plan, args, stream);
    return status == Status::kOk && args.splits > 1 ? cuda_linear::finish_splits(kName, args, stream) : status;
  }
  const Status status = with_element(params.dtype, [&](auto element) {
    using T = decltype(element);
    if (plan.kernel == Kernel::kSmall)
      return params.weight.size == 16 ? launch_small<T, 16>(plan, args, stream)
                                      : launch_small<T, 32>(plan, args, stream);
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
  // Of whichever kernel the device, the rows of x and the weight's direction allow.
  int64_t most = 0;
  for (const bool transposed : {false, true})
    for (const auto& [capability, tensor_copies] : {std::pair{80, false}, std::pair{90, true}})
      most = std::max(
          most, workspace_bytes(
                    choose_plan(m, n, k, blocks, size, transposed, DType::kBFloat16, capability, tensor_copies), m, n));
  return most;
}

Status block_sparse_linear(const BlockSparseParams& p, void* stream) {
  using namespace block_sparse;
  const auto length = [](int64_t value) { return std::max<int64_t>(value, 0); };
  return run_plan(choose_plan(length(p.m), length(p.n), length(p.k), length(p.weight.blocks),
                              std::max(p.weight.size, 1), p.weight.source != nullptr, p.dtype,
                              current_device().capability, cuda_linear::tensor_copies_take_x(p)),
                  p, stream);
}

}  // namespace sparsecore
