// The portable driver: x widened once into padded rows, then runs of channels as tasks of equal numbers of values.
#include <algorithm>

#include "cpu/bitmap_decode/bitmap_decode.h"
#include "cpu/epilogue/epilogue.h"
#include "cpu/widen_rows.h"
#include "sparsecore/parallel.h"

namespace sparsecore {
namespace {

// First channel of a task: values and words both cost time, so a task ends where their sum reaches its share.
int64_t boundary(const BitmapDecode& weight, int64_t n, int64_t words, int64_t task, int64_t tasks) {
  const int64_t share = (weight.nnz + n * words) * task / tasks;
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (weight.row_ptr[middle] + middle * words < share) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace

Status bitmap_decode_linear(const LinearIo& io, const BitmapDecode& weight) {
  using namespace bitmap_decode;
  if (const Status status = check_io(io); status != Status::kOk) return status;
  if (const Status status = bitmap_decode_check(weight, io.n, io.k); status != Status::kOk) return status;
  if (io.compute == Compute::kInt8) return Status::kUnsupportedDType;
  if (io.m == 0 || io.n == 0) return Status::kOk;

  const Kernel& chosen = kernel();
  const RowFunction run = io.weight_dtype == DType::kFloat32    ? chosen.f32
                          : io.weight_dtype == DType::kBFloat16 ? chosen.bf16
                          : io.weight_dtype == DType::kFloat16  ? chosen.f16
                                                                : chosen.i8;
  const epilogue::BlockFunction finish = epilogue::block_function();
  const int64_t words = (io.k + 63) / 64, x_stride = words * 64, rows = std::min<int64_t>(io.m, kMaxTokens);
  float* x = static_cast<float*>(scratch(Scratch::kPanel, rows * x_stride * sizeof(float)));
  if (!x) return Status::kOutOfMemory;

  const int64_t value_bytes = size_of(io.weight_dtype), tasks = std::min<int64_t>(io.n, int64_t{4} * num_threads());
  bool failed = false;
  for (int64_t first = 0; first < io.m; first += kMaxTokens) {
    const int64_t tokens = std::min<int64_t>(io.m - first, kMaxTokens);
    widen_rows(io, first, tokens, x, x_stride);
    parallel_for_each(tasks, [&](int64_t task) {
      const int64_t begin = boundary(weight, io.n, words, task, tasks),
                    end = task + 1 == tasks ? io.n : boundary(weight, io.n, words, task + 1, tasks);
      const int64_t width = end - begin;
      if (width <= 0) return;
      float* sums = static_cast<float*>(scratch(Scratch::kSums, tokens * width * sizeof(float)));
      if (!sums) {
        failed = true;
        return;
      }
      for (int64_t channel = begin; channel < end; ++channel) {
        Row row;
        row.values = static_cast<const char*>(weight.values) + weight.row_ptr[channel] * value_bytes;
        row.bitmap = weight.bitmap + channel * words;
        row.words = words;
        row.x_stride = x_stride;
        row.sums_stride = width;
        for (int64_t t = 0; t < tokens;) {
          const int count = tokens - t >= 8 ? 8 : tokens - t >= 4 ? 4 : tokens - t >= 2 ? 2 : 1;
          row.x = x + t * x_stride;
          row.sums = sums + t * width + channel - begin;
          run(row, count);
          t += count;
        }
      }
      epilogue::Block block = epilogue::block_of(io, first, tokens, begin, end);
      block.sums = sums;
      block.sums_stride = width;
      finish(block);
    });
  }
  return failed ? Status::kOutOfMemory : Status::kOk;
}

}  // namespace sparsecore
