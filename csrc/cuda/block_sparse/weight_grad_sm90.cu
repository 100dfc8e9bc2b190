// The launch of the gradient of kept blocks with wgmma, and nothing else: this file is compiled for sm_90a.
#include <algorithm>

#include "cuda/block_sparse/weight_grad_sm90.cuh"
#include "cuda/common/launch.h"
#include "cuda/linear/message.h"
#include "cuda/linear/operands.h"

namespace sparsecore::block_sparse {
namespace {

template <class T, int kSize>
Status launch_tile(const GradArguments& args, void* stream) {
  using Tile = sm90::GradTile<kSize>;
  static_assert(Tile::kSharedBytes <= kSharedBytesSm90);
  constexpr const char* kName = "block_sparse_weight_grad";
  const BlockSparseGradParams& p = args.p;
  const int64_t units = ceil_div(p.weight.blocks, Tile::kEntries), works = units * args.splits;
  if (works > INT32_MAX)
    return cuda_linear::refuse(Status::kBadShape, "%s: %lld blocks in %d splits are more than 2^31 - 1 works", kName,
                               static_cast<long long>(p.weight.blocks), args.splits);
  TensorMap grad_y, x;
  Status status = cuda_linear::map_rows(kName, "grad_y", {p.grad_y, p.m, p.n, p.grad_y_row_stride, p.dtype},
                                        Tile::kTokens, &grad_y);
  if (status == Status::kOk)
    status = cuda_linear::map_rows(kName, "x", {p.x, p.m, p.k, p.x_row_stride, p.dtype}, Tile::kTokens, &x);
  if (status != Status::kOk) return status;
  LaunchConfig config;
  config.grid = dim3(static_cast<unsigned>(std::min<int64_t>(works, current_device().multiprocessors)));
  config.block = dim3(Tile::kThreads);
  config.shared_bytes = Tile::kSharedBytes;
  config.stream = static_cast<Stream>(stream);
  return cuda_linear::launched(kName,
                               launch(config, sm90::weight_grad<T, kSize>, args, grad_y, x, static_cast<int>(units)));
}

}  // namespace

Status launch_grad_sm90(const GradArguments& args, void* stream) {
  return with_element(args.p.dtype, [&](auto element) {
    using T = decltype(element);
    return args.p.weight.size == 64 ? launch_tile<T, 64>(args, stream) : launch_tile<T, 128>(args, stream);
  });
}

}  // namespace sparsecore::block_sparse
