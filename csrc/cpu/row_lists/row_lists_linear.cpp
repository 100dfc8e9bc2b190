// The driver. A task owns some tokens and some channels:
//
//   for each chunk of channels (its sums stay in the level 2 cache)
//     for each tile of tokens
//       for each block: pack its activations into the panel, add the block's lists to the sums
//       transpose the sums back and finish the rows: scale, bias, activation, narrowing
//
// A single token (decoding) skips panels: its activations are widened once, and every list reads them in place.
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
      : io_(io), weight_(weight), kernel_(kernel), finish_(epilogue::block_function()) {
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

  Status run_single(int64_t channel_begin, int64_t channel_end) const {
    const int64_t channels = channel_end - channel_begin;
    if (channels <= 0) return Status::kOk;
    float* x = static_cast<float*>(scratch(Scratch::kPanel, (io_.k + weight_.block + kSinglePadding) * sizeof(float)));
    float* sums = static_cast<float*>(scratch(Scratch::kSums, channels * kSingleLanes * sizeof(float)));
    if (!x || !sums) return Status::kOutOfMemory;
    switch (io_.k ? io_.dtype : DType::kInt8) {
      case DType::kFloat32: std::memcpy(x, io_.x, io_.k * sizeof(float)); break;
      case DType::kBFloat16: widen_row(static_cast<const BFloat16*>(io_.x), io_.k, x); break;
      case DType::kFloat16: widen_row(static_cast<const Float16*>(io_.x), io_.k, x); break;
      case DType::kInt8: break;  // nothing to read
    }
    if (blocks_ == 0) std::memset(sums, 0, channels * kSingleLanes * sizeof(float));
    for (int64_t b = 0; b < blocks_; ++b)
      kernel_.single({lists(b, channel_begin, channels), x + b * weight_.block, sums, b > 0});
    for (int64_t o = 0; o < channels; ++o) {  // in place: a sum is written where only sums before it were read
      const float* parts = sums + o * kSingleLanes;
      sums[o] = ((parts[0] + parts[1]) + parts[2]) + parts[3];
    }
    finish(0, 1, channel_begin, channels, sums);
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
      finish(token, tokens, channel_begin + o, count, rows);
    }
    return Status::kOk;
  }

  void finish(int64_t token, int64_t tokens, int64_t channel, int64_t channels, const float* sums) const {
    epilogue::Block block = epilogue::block_of(io_, token, tokens, channel, channel + channels);
    block.sums = sums;
    block.sums_stride = kFinishChannels;
    finish_(block);
  }

  const LinearIo& io_;
  const RowLists& weight_;
  const Kernel& kernel_;
  epilogue::BlockFunction finish_;
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
  const bool single = io.m == 1 && kernel.single;
  // Tokens are cut only where every part keeps full tiles: narrow ones use the weights badly.
  const int64_t threads = num_threads();
  Grid grid;
  grid.token_parts = single ? 1 : std::clamp<int64_t>(io.m / task.max_lanes(), 1, threads);
  grid.channel_parts = std::min((threads + grid.token_parts - 1) / grid.token_parts, io.n);
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(grid.token_parts * grid.channel_parts, [&](int64_t i) {
    const int64_t token_part = i / grid.channel_parts, channel_part = i % grid.channel_parts;
    const int64_t begin = grid.first_channel(channel_part, weight, io.n, io.k),
                  end = grid.first_channel(channel_part + 1, weight, io.n, io.k);
    const Status done = single ? task.run_single(begin, end)
                               : task.run(token_part * task.granules() / grid.token_parts,
                                          (token_part + 1) * task.granules() / grid.token_parts, begin, end);
    if (done != Status::kOk) result = done;
  });
  return result;
}

}  // namespace sparsecore
