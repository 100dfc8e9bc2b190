// The launch of a gathered product with wgmma.
#pragma once

#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/gathered/matmul_sm90.cuh"
#include "cuda/linear/message.h"

namespace sparsecore::gathered::sm90 {

template <class Weights, int kTokens>
Status launch_tile(const char* function, const Plan& plan, typename Weights::Arguments args, void* stream) {
  using Tile = sm90::Tile<Weights, kTokens>;
  const DeviceLinear& p = args.linear.p;
  args.linear.channel_tiles = static_cast<int32_t>(ceil_div(p.n, Tile::kChannels));
  const int64_t works = ceil_div(p.m, kTokens) * args.linear.channel_tiles * plan.splits;
  if (works > INT32_MAX)
    return cuda_linear::refuse(Status::kBadShape,
                               "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts", function,
                               static_cast<long long>(p.m), static_cast<long long>(p.n));
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(std::min<int64_t>(works, current_device().multiprocessors)));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return cuda_linear::launched(function,
                               launch(config, gathered_matmul<Weights, kTokens>, args, static_cast<int>(works)));
}

}  // namespace sparsecore::gathered::sm90
