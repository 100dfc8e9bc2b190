// The launch of the wgmma kernel, and nothing else: this file is compiled for sm_90a.
#include <algorithm>

#include "cuda/block_sparse/linear_sm90.cuh"
#include "cuda/common/launch.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"

namespace sparsecore::block_sparse {
namespace {

template <class T, int kSize, bool kTransposed>
Status launch_tile(LinearArguments args, void* stream) {
  using Tile = sm90::Tile<kSize>;
  constexpr const char* kName = "block_sparse_linear";
  args.token_tiles = static_cast<int32_t>(ceil_div(args.p.m, Tile::kTokens));
  const int64_t works = static_cast<int64_t>(args.token_tiles) * args.rows * args.splits;
  if (works > INT32_MAX)
    return cuda_linear::refuse(Status::kBadShape,
                               "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts", kName,
                               static_cast<long long>(args.p.m), static_cast<long long>(args.p.n));
  TensorMap x, values;
  if (const Status status = cuda_linear::map_x(kName, args.p, Tile::kTokens, &x); status != Status::kOk) return status;
  TensorShape shape;
  shape.address = args.weight.values;
  shape.dtype = args.p.dtype;
  shape.sizes[0] = kSize;
  shape.sizes[1] = static_cast<uint64_t>(args.weight.blocks) * kSize;
  shape.strides[1] = 2 * kSize;
  shape.box[0] = shape.box[1] = 64;
  if (!make_tensor_map(shape, &values))
    return cuda_linear::refuse(Status::kLaunchFailed, "%s: the driver made no tensor map for %lld blocks of %d", kName,
                               static_cast<long long>(args.weight.blocks), kSize);
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(std::min<int64_t>(works, current_device().multiprocessors)));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return cuda_linear::launched(
      kName, launch(config, sm90::linear<T, kSize, kTransposed>, args, x, values, static_cast<int>(works)));
}

}  // namespace

Status launch_sm90(LinearArguments args, void* stream) {
  return with_element(args.p.dtype, [&](auto element) {
    using T = decltype(element);
    if (args.weight.source)
      return args.weight.size == 64 ? launch_tile<T, 64, true>(args, stream) : launch_tile<T, 128, true>(args, stream);
    return args.weight.size == 64 ? launch_tile<T, 64, false>(args, stream) : launch_tile<T, 128, false>(args, stream);
  });
}

}  // namespace sparsecore::block_sparse
