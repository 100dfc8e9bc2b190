// The launch of the wgmma kernel, and nothing else: this file is compiled for sm_90a.
#include <algorithm>

#include "cuda/block_sparse/linear_sm90.cuh"
#include "cuda/common/launch.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"

namespace sparsecore::block_sparse {
namespace {

template <class T, int kSize, int kTokens, bool kTransposed>
Status launch_tile(const Plan& plan, LinearArguments args, void* stream) {
  using Tile = sm90::Tile<kSize, kTokens>;
  constexpr const char* kName = "block_sparse_linear";
  args.token_tiles = static_cast<int32_t>(ceil_div(args.p.m, kTokens * plan.cluster));
  const int64_t works = static_cast<int64_t>(args.token_tiles) * args.rows * args.splits;
  if (works > INT32_MAX)
    return cuda_linear::refuse(Status::kBadShape,
                               "%s: y [%lld, %lld] has more than 2^31 - 1 tiles. Pass the tokens in parts", kName,
                               static_cast<long long>(args.p.m), static_cast<long long>(args.p.n));
  TensorMap x, values;
  if (const Status status = cuda_linear::map_x(kName, args.p, kTokens, &x); status != Status::kOk) return status;
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
  config.cluster = dim3(static_cast<unsigned>(plan.cluster));
  config.block = dim3(Tile::kThreads);
  static_assert(Tile::kSharedBytes <= kSharedBytesSm90);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  constexpr auto kKernel = sm90::linear<T, kSize, kTokens, kTransposed>;
  config.grid = dim3(static_cast<unsigned>(std::min(works, resident_clusters(config, kKernel)) * plan.cluster));
  return cuda_linear::launched(kName, launch(config, kKernel, args, x, values, static_cast<int>(works)));
}

template <class T, bool kTransposed>
Status launch_size(const Plan& plan, const LinearArguments& args, void* stream) {
  if (args.weight.size == 64) return launch_tile<T, 64, 256, kTransposed>(plan, args, stream);
  return plan.tokens == 256 ? launch_tile<T, 128, 256, kTransposed>(plan, args, stream)
                            : launch_tile<T, 128, 128, kTransposed>(plan, args, stream);
}

}  // namespace

Status launch_sm90(const Plan& plan, const LinearArguments& args, void* stream) {
  return with_element(args.p.dtype, [&](auto element) {
    using T = decltype(element);
    return args.weight.source ? launch_size<T, true>(plan, args, stream) : launch_size<T, false>(plan, args, stream);
  });
}

}  // namespace sparsecore::block_sparse
