// The launch of the sm_80 kernels, for one type and one way to read x.
#pragma once

#include "cuda/common/launch.h"
#include "cuda/linear/message.h"
#include "cuda/semi_structured/matmul_sm80.cuh"
#include "cuda/semi_structured/matmul_small_sm80.cuh"

namespace sparsecore::semi_structured {

template <class T, class Inputs, int kTokens>
Status launch_small(const char* function, const MatmulArguments& args, void* stream) {
  using Tile = sm80::SmallTile<T, kTokens>;
  if (args.p.m > kTokens)
    return refuse(Status::kBadShape, "%s: a tile of %d tokens cannot take %lld", function, kTokens,
                  static_cast<long long>(args.p.m));
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(ceil_div(args.p.n, Tile::kChannels)), static_cast<unsigned>(args.splits));
  config.block = dim3(Tile::kThreads);
  static_assert(Tile::kSharedBytes <= kSharedBytesEverywhere);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return launched(function, launch(config, sm80::matmul_small<T, kTokens, Inputs>, args));
}

template <class T, class Inputs, int kTokens>
Status launch_tiled(const char* function, MatmulArguments args, void* stream) {
  using Tile = sm80::Tile<T, kTokens>;
  args.token_tiles = static_cast<int32_t>(ceil_div(args.p.m, kTokens));
  args.channel_tiles = static_cast<int32_t>(ceil_div(args.p.n, Tile::kChannels));
  const int64_t tiles = static_cast<int64_t>(args.token_tiles) * args.channel_tiles;
  if (tiles > INT32_MAX)
    return refuse(Status::kBadShape, "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts",
                  function, static_cast<long long>(args.p.m), static_cast<long long>(args.p.n));
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(tiles), 1, static_cast<unsigned>(args.splits));
  config.block = dim3(Tile::kThreads);
  static_assert(Tile::kSharedBytes <= kSharedBytesEverywhere);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return launched(function, launch(config, sm80::matmul<T, kTokens, Inputs>, args));
}

template <class T, class Inputs>
Status launch_sm80(const Plan& plan, const MatmulArguments& args, void* stream) {
  constexpr const char* kName = "semi_structured_matmul";
  if (plan.kernel == Plan::Kernel::kSmallSm80) {
    switch (plan.tokens) {
      case 8: return launch_small<T, Inputs, 8>(kName, args, stream);
      case 16: return launch_small<T, Inputs, 16>(kName, args, stream);
      case 32: return launch_small<T, Inputs, 32>(kName, args, stream);
    }
  } else {
    switch (plan.tokens) {
      case 64: return launch_tiled<T, Inputs, 64>(kName, args, stream);
      case 128: return launch_tiled<T, Inputs, 128>(kName, args, stream);
    }
  }
  return refuse(Status::kBadShape, "%s: no tile of %d tokens", kName, plan.tokens);
}

}  // namespace sparsecore::semi_structured
