// The launch of the wgmma kernel, and nothing else: this file is compiled for sm_90a.
#include <algorithm>

#include "cuda/common/launch.h"
#include "cuda/semi_structured/matmul_sm90.cuh"
#include "cuda/semi_structured/message.h"

namespace sparsecore::semi_structured {
namespace {

template <class T, int kTokens>
Status launch_tile(MatmulArguments args, void* stream) {
  using Tile = sm90::Tile<kTokens>;
  constexpr const char* kName = "semi_structured_matmul";
  const SemiStructuredMatmulParams& p = args.p;
  if (!tensor_copies_take_x(p))
    return refuse(Status::kBadShape, "%s: tensor copies need k > 0 and rows of x at multiples of 16 bytes", kName);
  args.token_tiles = static_cast<int32_t>(ceil_div(p.m, kTokens));
  args.channel_tiles = static_cast<int32_t>(ceil_div(p.n, Tile::kChannels));
  const int64_t works = static_cast<int64_t>(args.token_tiles) * args.channel_tiles * args.splits;
  if (works > INT32_MAX)
    return refuse(Status::kBadShape, "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts", kName,
                  static_cast<long long>(p.m), static_cast<long long>(p.n));
  TensorShape shape;
  shape.address = p.x;
  shape.dtype = p.dtype;
  shape.sizes[0] = static_cast<uint64_t>(p.k);
  shape.sizes[1] = static_cast<uint64_t>(p.m);
  // One row has no stride; the map wants one all the same.
  shape.strides[1] = static_cast<uint64_t>(p.m > 1 ? p.x_row_stride * size_of(p.dtype) : kRowBytes);
  shape.box[0] = static_cast<uint32_t>(kRowBytes / size_of(p.dtype));
  shape.box[1] = kTokens;
  TensorMap map;
  if (!make_tensor_map(shape, &map))
    return refuse(Status::kLaunchFailed, "%s: the driver made no tensor map for x [%lld, %lld], row stride %lld", kName,
                  static_cast<long long>(p.m), static_cast<long long>(p.k), static_cast<long long>(p.x_row_stride));
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(std::min<int64_t>(works, current_device().multiprocessors)));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return launched(kName, launch(config, sm90::matmul<T, kTokens>, args, map, static_cast<int>(works)));
}

}  // namespace

Status launch_sm90(const Plan& plan, MatmulArguments args, void* stream) {
  return with_element(args.p.dtype, [&](auto element) {
    using T = decltype(element);
    return plan.tokens == 64 ? launch_tile<T, 64>(args, stream) : launch_tile<T, 128>(args, stream);
  });
}

}  // namespace sparsecore::semi_structured
