// Gradient of the kept values: out[r][v] = sum over tokens of x[t, columns[r]] * grad_y[t, group * vector + v].
// A task owns whole groups; tokens pass in blocks whose rows are widened once per task and stay in cache.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "cpu/shared_lists/shared_lists.h"
#include "sparsecore/parallel.h"

namespace sparsecore {
namespace shared_lists {
namespace {

constexpr int64_t kTokens = 64;

const char* at(const void* array, int64_t element, DType dtype) {
  return static_cast<const char*>(array) + element * size_of(dtype);
}

Status run_groups(const WeightGradIo& io, const SharedLists& weight, const Kernel& kernel, int64_t group_begin,
                  int64_t group_end) {
  const int64_t vector = weight.vector;
  const bool in_place = io.dtype == DType::kFloat32;
  for (int64_t g = group_begin; g < group_end; ++g)
    if (!columns_inside(weight.columns + weight.group_ptr[g], weight.group_ptr[g + 1] - weight.group_ptr[g], io.k))
      return Status::kBadIndex;
  float* rows = static_cast<float*>(scratch(Scratch::kPanel, in_place ? 1 : kTokens * io.k * sizeof(float)));
  float* slopes = static_cast<float*>(scratch(Scratch::kWidened, kTokens * vector * sizeof(float)));
  if (!rows || !slopes) return Status::kOutOfMemory;
  // Once even without tokens: the gradient is then zero.
  for (int64_t first = 0; first == 0 || first < io.m; first += kTokens) {
    GradientTile call = {};
    call.tokens = std::min(kTokens, io.m - first);
    call.vector = static_cast<int>(vector);
    call.accumulate = first > 0;
    call.x = static_cast<const float*>(io.x) + (call.tokens ? first * io.x_row_stride : 0);
    call.x_stride = io.x_row_stride;
    if (!in_place) {
      for (int64_t t = 0; t < call.tokens; ++t)
        kernel.widen(at(io.x, (first + t) * io.x_row_stride, io.dtype), io.dtype, io.k, rows + t * io.k);
      call.x = rows;
      call.x_stride = io.k;
    }
    for (int64_t g = group_begin; g < group_end; ++g) {
      // Channels past n have no gradient and no memory to read: their copy is zero.
      const int64_t channels = std::min(vector, io.n - g * vector);
      call.grad_y =
          static_cast<const float*>(io.grad_y) + (call.tokens ? first * io.grad_y_row_stride + g * vector : 0);
      call.grad_y_stride = io.grad_y_row_stride;
      if (!in_place || channels < vector) {
        if (channels < vector) std::memset(slopes, 0, kTokens * vector * sizeof(float));
        for (int64_t t = 0; t < call.tokens; ++t)
          kernel.widen(at(io.grad_y, (first + t) * io.grad_y_row_stride + g * vector, io.dtype), io.dtype, channels,
                       slopes + t * vector);
        call.grad_y = slopes;
        call.grad_y_stride = vector;
      }
      const int64_t begin = weight.group_ptr[g];
      call.columns = weight.columns + begin;
      call.records = weight.group_ptr[g + 1] - begin;
      call.out = io.out + begin * vector;
      kernel.gradient(call);
    }
  }
  return Status::kOk;
}

}  // namespace
}  // namespace shared_lists

Status shared_lists_weight_grad(const WeightGradIo& io, const SharedLists& weight) {
  using namespace shared_lists;
  if (io.m < 0 || io.n < 0 || io.k < 0) return Status::kBadShape;
  if (io.m > 1 && (io.x_row_stride < 0 || io.grad_y_row_stride < 0)) return Status::kBadShape;
  if (io.dtype == DType::kInt8) return Status::kUnsupportedDType;
  SharedLists lists = weight;
  lists.values = io.out;  // the values themselves are not read
  const Status status = check_lists(lists, io.n, io.k);
  if (status != Status::kOk || weight.records == 0) return status;
  if (io.m > 0 && (!io.x || !io.grad_y)) return Status::kNullPointer;
  const Kernel& kernel = float_kernel(weight.vector);
  const int64_t groups = (io.n + weight.vector - 1) / weight.vector;
  const Grid grid = {1, std::clamp<int64_t>(num_threads(), 1, groups)};
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(grid.group_parts, [&](int64_t part) {
    const Status done = run_groups(io, weight, kernel, grid.first_group(part, weight.group_ptr, groups),
                                   grid.first_group(part + 1, weight.group_ptr, groups));
    if (done != Status::kOk) result = done;
  });
  return result;
}

}  // namespace sparsecore
