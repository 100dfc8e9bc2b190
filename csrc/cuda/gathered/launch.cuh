// The launch of a gathered product with the kernel and the tile of its plan.
#pragma once

#include "cuda/common/launch.h"
#include "cuda/gathered/matmul_small_sm80.cuh"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"

namespace sparsecore::gathered::sm80 {

template <class Weights, int kTokens>
Status launch_tile(const char* function, const Plan& plan, const typename Weights::Arguments& args, void* stream) {
  const DeviceLinear& p = args.linear.p;
  LaunchConfig config;
  config.stream = static_cast<Stream>(stream);
  if constexpr (kTokens <= 32) {
    if (plan.kernel == Plan::Kernel::kSmallSm80) {
      using Tile = SmallTile<Weights, kTokens>;
      if (p.m > kTokens)
        return cuda_linear::refuse(Status::kBadShape, "%s: a tile of %d tokens cannot take %lld", function, kTokens,
                                   static_cast<long long>(p.m));
      config.grid = dim3(static_cast<unsigned>(args.linear.channel_tiles), static_cast<unsigned>(plan.splits));
      config.block = dim3(Tile::kThreads);
      config.shared_bytes = Tile::kSharedBytes;
      return cuda_linear::launched(function, launch(config, gathered_matmul_small<Weights, kTokens>, args));
    }
  } else if (plan.kernel == Plan::Kernel::kTiledSm80) {
    using Tile = sm80::Tile<Weights, kTokens>;
    const int64_t tiles = ceil_div(p.m, kTokens) * args.linear.channel_tiles;
    if (tiles > INT32_MAX)
      return cuda_linear::refuse(Status::kBadShape,
                                 "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts", function,
                                 static_cast<long long>(p.m), static_cast<long long>(p.n));
    config.grid = dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(plan.splits));
    config.block = dim3(Tile::kThreads);
    config.shared_bytes = Tile::kSharedBytes;
    return cuda_linear::launched(function, launch(config, gathered_matmul<Weights, kTokens>, args));
  }
  return cuda_linear::refuse(Status::kBadShape, "%s: the kernel has no tile of %d tokens", function, kTokens);
}

// Format<T, slices>: the weights of matmul_sm80.cuh for runs of 16 * slices channels.
template <template <class, int> class Format, class T, class Arguments>
Status launch_matmul(const char* function, const Plan& plan, int slices, const Arguments& args, void* stream) {
  const auto with_slices = [&](auto tokens) {
    constexpr int kTokens = decltype(tokens)::value;
    switch (slices) {
      case 4: return launch_tile<Format<T, 4>, kTokens>(function, plan, args, stream);
      case 2: return launch_tile<Format<T, 2>, kTokens>(function, plan, args, stream);
      default: return launch_tile<Format<T, 1>, kTokens>(function, plan, args, stream);
    }
  };
  switch (plan.tokens) {
    case 8: return with_slices(std::integral_constant<int, 8>());
    case 32: return with_slices(std::integral_constant<int, 32>());
    case 64: return with_slices(std::integral_constant<int, 64>());
    default: return with_slices(std::integral_constant<int, 128>());
  }
}

}  // namespace sparsecore::gathered::sm80

namespace sparsecore::gathered {

// After prepare(): the kernel of the plan, then the parts of split lists. launch_sm90 is the format's, and knows the
// plan's kernel.
template <template <class, int> class Format, class FormatArguments>
Status launch_plan(const char* function, const Plan& plan, int slices, const FormatArguments& args, void* stream) {
  const bool sm90 = plan.kernel == Plan::Kernel::kWgmmaSm90 || plan.kernel == Plan::Kernel::kPickedSm90;
  const Status status = sm90 ? launch_sm90(function, plan, args, stream)
                        : args.linear.p.dtype == DType::kBFloat16
                            ? sm80::launch_matmul<Format, BFloat16>(function, plan, slices, args, stream)
                            : sm80::launch_matmul<Format, Float16>(function, plan, slices, args, stream);
  return status == Status::kOk && plan.splits > 1 ? cuda_linear::finish_splits(function, args.linear, stream) : status;
}

}  // namespace sparsecore::gathered
