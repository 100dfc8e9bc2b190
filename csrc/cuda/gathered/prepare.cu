// What comes before a gathered product: its plan, its workspace, and the transposition of x.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/gathered/transpose_sm80.cuh"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"

namespace sparsecore::gathered {

Status transpose(const char* function, const TransposeArguments& args, void* stream) {
  if (args.rows == 0 || args.columns == 0) return Status::kOk;
  const int64_t blocks = ceil_div(args.rows, sm80::kTransposeSide) * ceil_div(args.columns, sm80::kTransposeSide);
  if (blocks > INT32_MAX)
    return cuda_linear::refuse(Status::kBadShape,
                               "%s: x [%lld, %lld] has more than 2^31 - 1 tiles of 64 x 64. Pass the tokens in parts",
                               function, static_cast<long long>(args.rows), static_cast<long long>(args.columns));
  constexpr int kThreads = 256;
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(blocks));
  config.block = dim3(kThreads);
  config.shared_bytes = 2 * sm80::kTransposeTileBytes;
  config.stream = static_cast<Stream>(stream);
  return cuda_linear::launched(function, launch(config, sm80::gathered_transpose<kThreads>, args));
}

Plan plan_for(Plan::Kernel kernel, int64_t m, int64_t channel_tiles, int64_t turns) {
  const auto enough = [&](int64_t tokens) { return channel_tiles * ceil_div(m, tokens) >= cuda_linear::kEnoughBlocks; };
  Plan plan;
  plan.kernel = kernel;
  switch (kernel) {
    case Plan::Kernel::kSmallSm80: plan.tokens = m <= 8 ? 8 : 32; break;
    case Plan::Kernel::kTiledSm80: plan.tokens = m > 64 && enough(128) ? 128 : 64; break;
    case Plan::Kernel::kWgmmaSm90: plan.tokens = enough(256) ? 256 : 128; break;
    case Plan::Kernel::kPickedSm90:
      plan.tokens = 128;
      for (const int32_t cluster : {2, 4})
        if (channel_tiles % cluster == 0 || channel_tiles > 8 * cluster) plan.cluster = cluster;
      break;
  }
  plan.splits = cuda_linear::splits_of(channel_tiles * ceil_div(m, plan.tokens), turns);
  return plan;
}

Status prepare(const char* function, const Plan& plan, const DeviceLinear& params, Arguments* args, void* stream) {
  const Status status =
      cuda_linear::check_workspace(function, params, workspace_bytes(plan, params.m, params.n, params.k));
  if (status != Status::kOk) return status;
  args->linear.p = params;
  args->linear.splits = plan.splits;
  cuda_linear::note_alignment(&args->linear);
  args->pitch = pitch_of(params.m);
  TransposeArguments transposed;
  transposed.x = static_cast<const uint16_t*>(params.x);
  transposed.xt = reinterpret_cast<uint16_t*>(static_cast<char*>(params.workspace) +
                                              cuda_linear::partial_sum_bytes(plan.splits, params.m, params.n));
  transposed.rows = params.m;
  transposed.columns = params.k;
  transposed.row_stride = params.x_row_stride;
  transposed.vectors = args->linear.x_vectors;
  args->xt = transposed.xt;
  return transpose(function, transposed, stream);
}

}  // namespace sparsecore::gathered
