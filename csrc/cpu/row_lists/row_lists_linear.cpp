// The driver. A task owns some tokens and some channels:
//
//   for each chunk of channels (its sums stay in the level 2 cache)
//     for each tile of tokens
//       for each block: pack its activations into the panel, add the block's lists to the sums
//       transpose the sums back and finish the rows: scale, bias, activation, narrowing
//
// A few tokens (decoding) skip panels: their activations are widened once, and every list reads them in place.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "cpu/epilogue/epilogue.h"
#include "cpu/narrow.h"
#include "cpu/row_lists/row_lists.h"
#include "sparsecore/parallel.h"

namespace sparsecore {
namespace row_lists {
namespace {

constexpr int64_t kSumBytes = 512 * 1024;  // of a chunk of channels times a tile of tokens
constexpr int64_t kFinishChannels = 128;   // transposed back at once; with kMaxLanes tokens they take 64 KB

const char* at(const void* array, int64_t element, DType dtype) {
  return static_cast<const char*>(array) + element * size_of(dtype);
}

template <typename T>
void widen_row(const T* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = widen(from[i]);
}

class LinearTask {
 public:
  LinearTask(const LinearIo& io, const RowLists& weight, const Kernel& kernel)
      : io_(io), weight_(weight), kernel_(kernel), finish_(epilogue::row_function()) {
    blocks_ = (io.k + weight.block - 1) / weight.block;
    granule_ = kernel.granule(io.m);
    max_lanes_ = kernel.max_lanes(weight.block);
  }

  // Tokens in granules: parts and tiles begin at multiples of them.
  int64_t granules() const { return (io_.m + granule_ - 1) / granule_; }
  int max_lanes() const { return max_lanes_; }

  Status run(int64_t granule_begin, int64_t granule_end, int64_t channel_begin, int64_t channel_end) const {
    const int64_t count = granule_end - granule_begin, channels = channel_end - channel_begin;
    if (count <= 0 || channels <= 0) return Status::kOk;
    const int64_t tiles = (count * granule_ + max_lanes_ - 1) / max_lanes_;
    const int64_t widest = (count + tiles - 1) / tiles * granule_;
    const int64_t chunks = (channels * widest * 4 + kSumBytes - 1) / kSumBytes;
    for (int64_t c = 0; c < chunks; ++c)
      for (int64_t i = 0; i < tiles; ++i) {
        const Status status =
            run_tile(granule_begin + i * count / tiles, granule_begin + (i + 1) * count / tiles,
                     channel_begin + c * channels / chunks, channel_begin + (c + 1) * channels / chunks);
        if (status != Status::kOk) return status;
      }
    return Status::kOk;
  }

  Status run_few(int64_t channel_begin, int64_t channel_end) const {
    const int64_t channels = channel_end - channel_begin, width = kernel_.few_lanes;
    if (channels <= 0) return Status::kOk;
    FewTile tile = {};
    tile.tokens = static_cast<int>(io_.m);
    tile.x_stride = (io_.k + 15) / 16 * 16 + kFewPadding;
    float* x = static_cast<float*>(scratch(Scratch::kPanel, io_.m * tile.x_stride * sizeof(float)));
    tile.sums = static_cast<float*>(scratch(Scratch::kSums, channels * io_.m * width * sizeof(float)));
    float* rows = static_cast<float*>(scratch(Scratch::kWidened, channels * sizeof(float)));
    if (!x || !tile.sums || !rows) return Status::kOutOfMemory;
    for (int64_t t = 0; t < io_.m && io_.k; ++t) {
      const char* from = at(io_.x, t * io_.x_row_stride, io_.dtype);
      float* to = x + t * tile.x_stride;
      switch (io_.dtype) {
        case DType::kBFloat16: widen_row(reinterpret_cast<const BFloat16*>(from), io_.k, to); break;
        case DType::kFloat16: widen_row(reinterpret_cast<const Float16*>(from), io_.k, to); break;
        default: std::memcpy(to, from, io_.k * sizeof(float));
      }
      std::memset(to + io_.k, 0, (tile.x_stride - io_.k) * sizeof(float));
    }
    if (blocks_ == 0) std::memset(tile.sums, 0, channels * io_.m * width * sizeof(float));
    for (int64_t b = 0; b < blocks_; ++b) {
      tile.lists = lists(b, channel_begin, channels);
      tile.x = x + b * weight_.block;
      tile.accumulate = b > 0;
      kernel_.few(tile);
    }
    for (int64_t t = 0; t < io_.m; ++t) {
      for (int64_t o = 0; o < channels; ++o) {
        const float* parts = tile.sums + (o * io_.m + t) * width;
        float sum = parts[0];
        for (int64_t i = 1; i < width; ++i) sum += parts[i];
        rows[o] = sum;
      }
      finish(t, channel_begin, rows, channels);
    }
    return Status::kOk;
  }

 private:
  Lists lists(int64_t block, int64_t channel, int64_t channels) const {
    return {weight_.values, io_.weight_dtype, weight_.offsets, weight_.block_ptr + block * (io_.n + 1) + channel,
            channels};
  }

  Status run_tile(int64_t granule_begin, int64_t granule_end, int64_t channel_begin, int64_t channel_end) const {
    const int64_t token = granule_begin * granule_, channels = channel_end - channel_begin;
    const int lanes = static_cast<int>((granule_end - granule_begin) * granule_);
    const int tokens = static_cast<int>(std::min<int64_t>(lanes, io_.m - token));
    void* panel = scratch(Scratch::kPanel, static_cast<size_t>(kPanelRows) * lanes * kernel_.panel_element);
    float* sums = static_cast<float*>(scratch(Scratch::kSums, channels * lanes * sizeof(float)));
    float* rows = static_cast<float*>(scratch(Scratch::kWidened, kFinishChannels * lanes * sizeof(float)));
    if (!panel || !sums || !rows) return Status::kOutOfMemory;
    if (blocks_ == 0) std::memset(sums, 0, channels * lanes * sizeof(float));
    Tile tile = {};
    tile.panel = panel;
    tile.lanes = lanes;
    tile.sums = sums;
    for (int64_t b = 0; b < blocks_; ++b) {
      const int64_t column = b * weight_.block;
      kernel_.pack(at(io_.x, token * io_.x_row_stride + column, io_.dtype), io_.dtype, io_.x_row_stride, tokens,
                   static_cast<int>(std::min<int64_t>(weight_.block, io_.k - column)), lanes, panel);
      tile.lists = lists(b, channel_begin, channels);
      tile.accumulate = b > 0;
      kernel_.tile(tile);
    }
    for (int64_t o = 0; o < channels; o += kFinishChannels) {
      const int64_t count = std::min(kFinishChannels, channels - o);
      kernel_.unpack(sums + o * lanes, count, lanes, tokens, rows, kFinishChannels);
      for (int t = 0; t < tokens; ++t) finish(token + t, channel_begin + o, rows + t * kFinishChannels, count);
    }
    return Status::kOk;
  }

  void finish(int64_t token, int64_t channel, const float* sums, int64_t channels) const {
    epilogue::Row row = {};
    row.sums = sums;
    row.scale = io_.weight_scale ? io_.weight_scale + channel : nullptr;
    row.bias = io_.bias ? at(io_.bias, channel, io_.bias_dtype) : nullptr;
    row.bias_dtype = io_.bias_dtype;
    row.activation = io_.activation;
    row.y = const_cast<char*>(at(io_.y, token * io_.y_row_stride + channel, io_.dtype));
    row.dtype = io_.dtype;
    row.n = channels;
    finish_(row);
  }

  const LinearIo& io_;
  const RowLists& weight_;
  const Kernel& kernel_;
  epilogue::RowFunction finish_;
  int64_t blocks_;
  int granule_, max_lanes_;
};

}  // namespace

int64_t Grid::first_channel(int64_t part, const RowLists& weight, int64_t n, int64_t k) const {
  // A channel costs its weights, and in every block about two more for its sums.
  const int64_t blocks = (k + weight.block - 1) / weight.block;
  const auto cost = [&](int64_t channel) {
    int64_t total = 2 * (blocks + 1) * channel;
    for (int64_t b = 0; b < blocks; ++b)
      total += weight.block_ptr[b * (n + 1) + channel] - weight.block_ptr[b * (n + 1)];
    return total;
  };
  if (part <= 0) return 0;
  if (part >= channel_parts) return n;
  const int64_t wanted = cost(n) / channel_parts * part;
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (cost(middle) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace row_lists

Status row_lists_linear(const LinearIo& io, const RowLists& weight) {
  using namespace row_lists;
  Status status = check_io(io);
  if (status == Status::kOk) status = check_lists(weight, io.n, io.k);
  if (status != Status::kOk || io.m == 0 || io.n == 0) return status;
  if (io.compute == Compute::kInt8) return Status::kUnsupportedDType;
  const Kernel& kernel = linear_kernel(io);
  const LinearTask task(io, weight, kernel);
  const bool few = io.m <= kernel.few_tokens;
  // Tokens are cut only where every part keeps full tiles: narrow ones use the weights badly.
  const int64_t threads = num_threads();
  Grid grid;
  grid.token_parts = few ? 1 : std::clamp<int64_t>(io.m / task.max_lanes(), 1, threads);
  grid.channel_parts = std::min((threads + grid.token_parts - 1) / grid.token_parts, io.n);
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(grid.token_parts * grid.channel_parts, [&](int64_t i) {
    const int64_t token_part = i / grid.channel_parts, channel_part = i % grid.channel_parts;
    const int64_t begin = grid.first_channel(channel_part, weight, io.n, io.k),
                  end = grid.first_channel(channel_part + 1, weight, io.n, io.k);
    const Status done = few ? task.run_few(begin, end)
                            : task.run(token_part * task.granules() / grid.token_parts,
                                       (token_part + 1) * task.granules() / grid.token_parts, begin, end);
    if (done != Status::kOk) result = done;
  });
  return result;
}

}  // namespace sparsecore
