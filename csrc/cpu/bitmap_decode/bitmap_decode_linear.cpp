// The portable driver: x widened once into padded rows, then runs of channels as tasks of equal numbers of values. The
// bits of a few rows are counted against their starts just before those rows are multiplied, while they are at hand
// anyway: nothing outside `values` is read, whatever the bitmap holds.
#include <algorithm>
#include <atomic>

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

class RowsTask {
 public:
  RowsTask(const LinearIo& io, const BitmapDecode& weight) : io_(io), weight_(weight), words_((io.k + 63) / 64) {
    const bitmap_decode::Kernel& chosen = bitmap_decode::kernel();
    count_ = chosen.count;
    run_ = io.weight_dtype == DType::kFloat32    ? chosen.f32
           : io.weight_dtype == DType::kBFloat16 ? chosen.bf16
           : io.weight_dtype == DType::kFloat16  ? chosen.f16
                                                 : chosen.i8;
    finish_ = epilogue::block_function();
  }

  // Channels begin .. end - 1 for `tokens` tokens from `first`, whose activations are x.
  Status run(int64_t begin, int64_t end, int64_t first, int64_t tokens, const float* x) const {
    const int64_t width = end - begin;
    if (width <= 0) return Status::kOk;
    float* sums = static_cast<float*>(scratch(Scratch::kSums, tokens * width * sizeof(float)));
    if (!sums) return Status::kOutOfMemory;
    bitmap_decode::Rows rows = {};
    rows.values = weight_.values;
    rows.words = words_;
    rows.x_stride = words_ * 64;
    rows.sums_stride = width;
    for (int64_t channel = begin; channel < end; channel += rows.rows) {
      rows.rows = static_cast<int>(std::min<int64_t>(bitmap_decode::kMaxRows, end - channel));
      rows.starts = weight_.row_ptr + channel;
      rows.bitmap = weight_.bitmap + channel * words_;
      rows.room = rows.starts[rows.rows] + bitmap_decode::kRoom <= weight_.nnz;
      if (const Status status = check(rows); status != Status::kOk) return status;
      for (int64_t t = 0; t < tokens;) {
        const int count = tokens - t >= 8 ? 8 : tokens - t >= 4 ? 4 : tokens - t >= 2 ? 2 : 1;
        rows.x = x + t * rows.x_stride;
        rows.sums = sums + t * width + channel - begin;
        run_(rows, count);
        t += count;
      }
    }
    epilogue::Block block = epilogue::block_of(io_, first, tokens, begin, end);
    block.sums = sums;
    block.sums_stride = width;
    finish_(block);
    return Status::kOk;
  }

 private:
  Status check(const bitmap_decode::Rows& rows) const {
    const uint64_t beyond = io_.k % 64 ? ~uint64_t{0} << (io_.k % 64) : 0;
    for (int r = 0; r < rows.rows; ++r) {
      const uint64_t* bits = rows.bitmap + r * words_;
      if (words_ && (bits[words_ - 1] & beyond)) return Status::kBadIndex;
      if (count_(bits, words_) != int64_t{rows.starts[r + 1]} - rows.starts[r]) return Status::kBadPointers;
    }
    return Status::kOk;
  }

  const LinearIo& io_;
  const BitmapDecode& weight_;
  int64_t words_;
  int64_t (*count_)(const uint64_t*, int64_t);
  bitmap_decode::RowsFunction run_;
  epilogue::BlockFunction finish_;
};

}  // namespace

Status bitmap_decode_linear(const LinearIo& io, const BitmapDecode& weight) {
  using bitmap_decode::kMaxTokens;
  if (const Status status = check_io(io); status != Status::kOk) return status;
  if (const Status status = bitmap_decode::check_starts(weight, io.n, io.k); status != Status::kOk) return status;
  if (io.compute == Compute::kInt8) return Status::kUnsupportedDType;
  if (io.m == 0 || io.n == 0) return Status::kOk;

  const int64_t words = (io.k + 63) / 64, x_stride = words * 64;
  float* x =
      static_cast<float*>(scratch(Scratch::kPanel, std::min<int64_t>(io.m, kMaxTokens) * x_stride * sizeof(float)));
  if (!x) return Status::kOutOfMemory;
  const RowsTask task(io, weight);
  const int64_t tasks = std::min<int64_t>(io.n, int64_t{4} * num_threads());
  std::atomic<Status> result{Status::kOk};
  for (int64_t first = 0; first < io.m && result == Status::kOk; first += kMaxTokens) {
    const int64_t tokens = std::min<int64_t>(io.m - first, kMaxTokens);
    widen_rows(io, first, tokens, x, x_stride);
    parallel_for_each(tasks, [&](int64_t i) {
      const int64_t end = i + 1 == tasks ? io.n : boundary(weight, io.n, words, i + 1, tasks);
      const Status status = task.run(boundary(weight, io.n, words, i, tasks), end, first, tokens, x);
      if (status != Status::kOk) result = status;
    });
  }
  return result;
}

}  // namespace sparsecore
