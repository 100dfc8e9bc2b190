// The launch of a gathered product with wgmma.
#pragma once

#include "cuda/common/launch.h"
#include "cuda/gathered/matmul_sm90.cuh"
#include "cuda/linear/message.h"

namespace sparsecore::gathered::sm90 {

template <class Weights, int kTokens>
Status launch_tile(const char* function, const Plan& plan, typename Weights::Arguments args, void* stream) {
  using Tile = sm90::Tile<Weights, kTokens>;
  const DeviceLinear& p = args.linear.p;
  args.linear.channel_tiles = static_cast<int32_t>(ceil_div(p.n, Tile::kChannels));
  const int64_t tiles = ceil_div(p.m, kTokens) * args.linear.channel_tiles;
  if (tiles > INT32_MAX)
    return cuda_linear::refuse(Status::kBadShape,
                               "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts", function,
                               static_cast<long long>(p.m), static_cast<long long>(p.n));
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(plan.splits));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return cuda_linear::launched(function, launch(config, gathered_matmul<Weights, kTokens>, args));
}

}  // namespace sparsecore::gathered::sm90
