// The launch of the wgmma kernel, and nothing else: this file is compiled for sm_90a.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"
#include "cuda/semi_structured/matmul_sm90.cuh"

namespace sparsecore::semi_structured {
namespace {

template <class T, int kTokens>
Status launch_tile(const Plan& plan, MatmulArguments args, void* stream) {
  using Tile = sm90::Tile<kTokens>;
  constexpr const char* kName = "semi_structured_matmul";
  const DeviceLinear& p = args.p;
  args.token_tiles = static_cast<int32_t>(ceil_div(p.m, kTokens));
  args.channel_tiles = static_cast<int32_t>(ceil_div(p.n, Tile::kChannels * plan.cluster));
  const int64_t works = static_cast<int64_t>(args.token_tiles) * args.channel_tiles * args.splits;
  if (works > INT32_MAX)
    return refuse(Status::kBadShape, "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts", kName,
                  static_cast<long long>(p.m), static_cast<long long>(p.n));
  TensorMap map;
  if (const Status status = map_x(kName, p, kTokens / plan.cluster, &map); status != Status::kOk) return status;
  LaunchConfig config;
  config.cluster = dim3(static_cast<unsigned>(plan.cluster));
  config.block = dim3(Tile::kThreads);
  static_assert(Tile::kSharedBytes <= kSharedBytesSm90);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  const int64_t clusters = resident_clusters(config, sm90::matmul<T, kTokens>);
  config.grid = dim3(static_cast<unsigned>(std::min(works, clusters) * plan.cluster));
  return launched(kName, launch(config, sm90::matmul<T, kTokens>, args, map, static_cast<int>(works)));
}

}  // namespace

Status launch_sm90(const Plan& plan, MatmulArguments args, void* stream) {
  return with_element(args.p.dtype, [&](auto element) {
    using T = decltype(element);
    return plan.tokens == 64 ? launch_tile<T, 64>(plan, args, stream) : launch_tile<T, 128>(plan, args, stream);
  });
}

}  // namespace sparsecore::semi_structured
