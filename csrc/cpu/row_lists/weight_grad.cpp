// Gradient of the kept values. A task owns some channels:
//
//   for each tile of tokens: transpose the slopes of its channels
//     for each block: transpose its activations, add grad . x for every kept weight
//
// A value is the sum of its tiles in order, whichever thread computes it.
#include <algorithm>
#include <atomic>

#include "cpu/row_lists/row_lists.h"
#include "sparsecore/parallel.h"

namespace sparsecore {
namespace row_lists {
namespace {

const char* at(const void* array, int64_t element, DType dtype) {
  return static_cast<const char*>(array) + element * size_of(dtype);
}

Status run_channels(const WeightGradIo& io, const RowLists& weight, const Kernel& kernel, int64_t channel_begin,
                    int64_t channel_end) {
  const int64_t channels = channel_end - channel_begin, blocks = (io.k + weight.block - 1) / weight.block;
  int lanes = kernel.gradient_lanes;
  while (lanes > 16 && lanes / 2 >= io.m) lanes /= 2;
  if (channels <= 0) return Status::kOk;
  float* x = static_cast<float*>(scratch(Scratch::kPanel, kPanelRows * lanes * sizeof(float)));
  float* slopes = static_cast<float*>(scratch(Scratch::kSums, channels * lanes * sizeof(float)));
  if (!x || !slopes) return Status::kOutOfMemory;
  // Once even without tokens: the gradient is then zero.
  for (int64_t token = 0; token == 0 || token < io.m; token += lanes) {
    const int tokens = static_cast<int>(std::min<int64_t>(lanes, io.m - token));
    const int64_t grad_y = tokens ? token * io.grad_y_row_stride + channel_begin : 0;
    kernel.pack(at(io.grad_y, grad_y, io.dtype), io.dtype, io.grad_y_row_stride, tokens, static_cast<int>(channels),
                lanes, slopes);
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t column = b * weight.block;
      kernel.pack(at(io.x, tokens ? token * io.x_row_stride + column : 0, io.dtype), io.dtype, io.x_row_stride, tokens,
                  static_cast<int>(std::min<int64_t>(weight.block, io.k - column)), lanes, x);
      GradientTile tile = {};
      tile.offsets = weight.offsets;
      tile.starts = weight.block_ptr + b * (io.n + 1) + channel_begin;
      tile.channels = channels;
      tile.x = x;
      tile.grad = slopes;
      tile.lanes = lanes;
      tile.out = io.out;
      tile.accumulate = token > 0;
      kernel.gradient(tile);
    }
  }
  return Status::kOk;
}

}  // namespace
}  // namespace row_lists

Status row_lists_weight_grad(const WeightGradIo& io, const RowLists& weight) {
  using namespace row_lists;
  if (io.m < 0 || io.n < 0 || io.k < 0) return Status::kBadShape;
  if (io.m > 1 && (io.x_row_stride < 0 || io.grad_y_row_stride < 0)) return Status::kBadShape;
  if (io.dtype == DType::kInt8) return Status::kUnsupportedDType;
  RowLists lists = weight;
  lists.values = io.out;  // the values themselves are not read
  const Status status = check_lists(lists, io.n, io.k);
  if (status != Status::kOk || weight.nnz == 0) return status;
  if (io.m > 0 && (!io.x || !io.grad_y)) return Status::kNullPointer;
  const Kernel& kernel = gradient_kernel();
  const Grid grid = {1, std::clamp<int64_t>(num_threads(), 1, io.n)};
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(grid.channel_parts, [&](int64_t part) {
    const Status done = run_channels(io, weight, kernel, grid.first_channel(part, weight, io.n, io.k),
                                     grid.first_channel(part + 1, weight, io.n, io.k));
    if (done != Status::kOk) result = done;
  });
  return result;
}

}  // namespace sparsecore
