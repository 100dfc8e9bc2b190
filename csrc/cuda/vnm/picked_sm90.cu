// The launch of the kernel that picks from whole tiles of xt, and nothing else: this file is compiled for sm_90a.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"
#include "cuda/vnm/picked_sm90.cuh"

namespace sparsecore::cuda_vnm {
namespace {

template <class T, int kSlices>
Status launch_tile(const char* function, const Plan& plan, MatmulArguments args, void* stream) {
  using Tile = sm90::PickedTile<kSlices>;
  const DeviceLinear& p = args.linear.p;
  args.linear.token_tiles = static_cast<int32_t>(ceil_div(p.m, Tile::kTokens));
  args.linear.channel_tiles = static_cast<int32_t>(ceil_div(p.n, Tile::kChannels * plan.cluster));
  const int64_t works = int64_t{args.linear.token_tiles} * args.linear.channel_tiles * plan.splits;
  if (works > INT32_MAX)
    return cuda_linear::refuse(Status::kBadShape,
                               "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts", function,
                               static_cast<long long>(p.m), static_cast<long long>(p.n));
  TensorMap map;
  const Status status = cuda_linear::map_rows(function, "x transposed", {args.xt, p.k, args.pitch, args.pitch, p.dtype},
                                              sm90::window_inputs(args.group) / plan.cluster, &map);
  if (status != Status::kOk) return status;
  LaunchConfig config;
  config.cluster = dim3(static_cast<unsigned>(plan.cluster));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::shared_bytes(args.group);
  config.stream = static_cast<Stream>(stream);
  const int64_t clusters = resident_clusters(config, sm90::picked_matmul<T, kSlices>);
  config.grid = dim3(static_cast<unsigned>(std::min(works, clusters) * plan.cluster));
  return cuda_linear::launched(function,
                               launch(config, sm90::picked_matmul<T, kSlices>, args, map, static_cast<int>(works)));
}

template <class T>
Status launch_run(const char* function, const Plan& plan, const MatmulArguments& args, void* stream) {
  return args.weight.vector == 32 ? launch_tile<T, 2>(function, plan, args, stream)
                                  : launch_tile<T, 4>(function, plan, args, stream);
}

}  // namespace

Status launch_picked_sm90(const char* function, const Plan& plan, MatmulArguments args, void* stream) {
  return args.linear.p.dtype == DType::kBFloat16 ? launch_run<BFloat16>(function, plan, args, stream)
                                                 : launch_run<Float16>(function, plan, args, stream);
}

}  // namespace sparsecore::cuda_vnm
