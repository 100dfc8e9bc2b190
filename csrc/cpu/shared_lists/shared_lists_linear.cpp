// The driver of the float kernels. A task owns some tokens and some groups:
//
//   for each chunk of tokens
//     pack or widen its activations, tile by tile, unless the kernel reads them where they are
//     for each block of channels
//       for each group, each block of records: one kernel call per tile of tokens
//       finish the rows: scale, bias, activation, narrowing
//
// Where y is float32, sums are formed in y itself and begin at the bias, and often nothing is left to finish; other
// sums, and those of a last group that is cut short, are formed in scratch memory that stays in level 2.
//
// With few tokens the weights are what costs: every tile then asks level 2 for its share of the next block, so that
// memory never waits for arithmetic. Asking level 1 would stall: it keeps too few misses in flight.
#include <algorithm>
#include <atomic>

#include "cpu/epilogue/epilogue.h"
#include "cpu/shared_lists/shared_lists.h"
#include "sparsecore/parallel.h"

namespace sparsecore {
namespace shared_lists {
namespace {

constexpr int64_t kBlockBytes = 128 * 1024;  // of one block of records, as floats: stays in level 2 while tiles pass
constexpr int64_t kPanelBytes = 512 * 1024;  // of the packed activations of a chunk
constexpr int64_t kMaxChunk = 192;           // tokens of a chunk: its sums take kMaxChunk * kSumChannels * 4 bytes
constexpr int64_t kStreamingTiles = 4;       // up to here a call is bound by reading weights
constexpr int64_t kStreamBytes = 64 * 1024;  // of a block then: measured best of 8, 16, 24 and 64 KiB
constexpr int64_t kSumChannels = 256;

const char* at(const void* array, int64_t element, DType dtype) {
  return static_cast<const char*>(array) + element * size_of(dtype);
}

// Tokens cut into tiles whose widths differ by at most one.
struct Tiles {
  int64_t tokens, count;
  Tiles(int64_t tokens, int width) : tokens(tokens), count((tokens + width - 1) / width) {}
  int64_t first(int64_t tile) const { return tile * tokens / count; }
  int width(int64_t tile) const { return static_cast<int>(first(tile + 1) - first(tile)); }
};

class FloatTask {
 public:
  FloatTask(const LinearIo& io, const SharedLists& weight, const Kernel& kernel)
      : io_(io), weight_(weight), kernel_(kernel), finish_(epilogue::block_function()) {
    tile_tokens_ = kernel.tile_tokens(weight.vector);
    layout_ = kernel.layout(weight.vector);
    // Rows a multiple of 4 KiB apart share one set of the level 1 cache: such x is copied to rows that do not.
    in_place_ = layout_ == Layout::kRows && io.dtype == DType::kFloat32 && (io.m == 1 || io.x_row_stride % 1024 != 0);
    row_pitch_ = io.k + (io.k % 1024 == 0 ? 16 : 0);
    block_records_ = kBlockBytes / (4 * weight.vector);
    groups_in_y_ = io.dtype == DType::kFloat32 ? io.n / weight.vector : 0;
    if (io.bias && io.bias_dtype == DType::kFloat32 && !io.weight_scale) bias_ = static_cast<const float*>(io.bias);
    unfinished_ = io.weight_scale || io.activation != Activation::kNone || (io.bias && !bias_);
  }

  Status run(int64_t token_begin, int64_t token_end, int64_t group_begin, int64_t group_end) const {
    const int64_t tokens = token_end - token_begin;
    if (tokens <= 0 || group_begin >= group_end) return Status::kOk;
    // Rows are read in long runs and may come from level 3; columns come and go.
    const int64_t fitting = layout_ == Layout::kRows ? kMaxChunk : kPanelBytes / (4 * std::max<int64_t>(io_.k, 1));
    const int64_t longest = std::clamp<int64_t>(fitting / tile_tokens_ * tile_tokens_, 2 * tile_tokens_,
                                                std::max<int64_t>(kMaxChunk, 2 * tile_tokens_));
    const Tiles chunks(tokens, static_cast<int>(longest));
    for (int64_t i = 0; i < chunks.count; ++i) {
      const Status status = run_chunk(token_begin + chunks.first(i), chunks.width(i), group_begin, group_end);
      if (status != Status::kOk) return status;
    }
    return Status::kOk;
  }

 private:
  Status run_chunk(int64_t token, int64_t tokens, int64_t group_begin, int64_t group_end) const {
    const Tiles tiles(tokens, tile_tokens_);
    int64_t token_stride = io_.k ? io_.x_row_stride : 0;  // x may be null where k is 0
    const float* x = static_cast<const float*>(io_.x) + token * token_stride;
    if (!in_place_ && io_.k) {
      float* panel = static_cast<float*>(scratch(Scratch::kPanel, tokens * row_pitch_ * sizeof(float)));
      if (!panel) return Status::kOutOfMemory;
      pack(tiles, token, panel);
      x = panel;
      token_stride = row_pitch_;
    }
    const int64_t groups_at_once = std::max<int64_t>(kSumChannels / weight_.vector, 1);
    const int64_t stride = groups_at_once * weight_.vector;
    float* scratch_sums = static_cast<float*>(scratch(Scratch::kSums, tokens * stride * sizeof(float)));
    if (!scratch_sums) return Status::kOutOfMemory;
    for (int64_t g = group_begin; g < group_end; g += groups_at_once) {
      const int64_t end = std::min(group_end, g + groups_at_once), in_y = std::clamp(groups_in_y_, g, end);
      const Sums sums = {scratch_sums, stride};
      for (int64_t i = g; i < end; ++i) {
        const Status status = run_group(i, tiles, x, token_stride,
                                        i < in_y ? y_at(token, i) : sums.from((i - in_y) * weight_.vector), i < in_y);
        if (status != Status::kOk) return status;
      }
      if (unfinished_ && in_y > g) finish(token, tokens, g, in_y, y_at(token, g), bias_);
      if (end > in_y) finish(token, tokens, in_y, end, sums, nullptr);
    }
    return Status::kOk;
  }

  // Where a group's sums are formed: at[t * stride + v].
  struct Sums {
    float* at;
    int64_t stride;
    Sums from(int64_t offset) const { return {at + offset, stride}; }
  };

  Sums y_at(int64_t token, int64_t group) const {
    return {static_cast<float*>(io_.y) + token * io_.y_row_stride + group * weight_.vector, io_.y_row_stride};
  }

  void pack(const Tiles& tiles, int64_t token, float* panel) const {
    if (layout_ == Layout::kRows) {
      for (int64_t t = 0; t < tiles.tokens; ++t)
        kernel_.widen(at(io_.x, (token + t) * io_.x_row_stride, io_.dtype), io_.dtype, io_.k, panel + t * row_pitch_);
      return;
    }
    for (int64_t i = 0; i < tiles.count; ++i)
      kernel_.pack_columns(at(io_.x, (token + tiles.first(i)) * io_.x_row_stride, io_.dtype), io_.dtype,
                           io_.x_row_stride, tiles.width(i), io_.k, panel + tiles.first(i) * io_.k);
  }

  Status run_group(int64_t group, const Tiles& tiles, const float* x, int64_t token_stride, Sums sums,
                   bool in_y) const {
    const int64_t begin = weight_.group_ptr[group], end = weight_.group_ptr[group + 1];
    if (!columns_inside(weight_.columns + begin, end - begin, io_.k)) return Status::kBadIndex;
    const bool widened = io_.weight_dtype != DType::kFloat32 && tiles.tokens > kernel_.widen_above;
    FloatTile call = {};
    call.weights = widened ? DType::kFloat32 : io_.weight_dtype;
    call.token_stride = token_stride;
    call.vector = weight_.vector;
    call.sums_stride = sums.stride;
    const float* bias = in_y && bias_ ? bias_ + group * weight_.vector : nullptr;
    const bool streaming = tiles.count <= kStreamingTiles && !widened;
    const int64_t record_bytes = weight_.vector * size_of(io_.weight_dtype);
    const int64_t at_once = streaming ? kStreamBytes / record_bytes : block_records_;
    call.prefetch_step = record_bytes / tiles.count;
    int64_t record = begin;
    do {  // once even where the group keeps nothing: its sums are zero
      call.records = std::min(end - record, at_once);
      call.columns = weight_.columns + record;
      call.values = at(weight_.values, record * weight_.vector, io_.weight_dtype);
      if (widened) {
        float* to = static_cast<float*>(scratch(Scratch::kWidened, kBlockBytes));
        if (!to) return Status::kOutOfMemory;
        kernel_.widen(call.values, io_.weight_dtype, call.records * weight_.vector, to);
        call.values = to;
      }
      call.start_stride = record > begin ? sums.stride : 0;
      for (int64_t i = 0; i < tiles.count; ++i) {
        const int64_t first = tiles.first(i);
        call.x = layout_ == Layout::kRows ? x + first * token_stride : x + first * io_.k;
        call.tokens = tiles.width(i);
        call.sums = sums.at + first * sums.stride;
        call.start = record > begin ? call.sums : bias;
        if (record == begin) prefetch_rows(call);
        // The hardware follows one long stream by itself.
        if (streaming && call.prefetch_step <= 128)
          call.prefetch =
              static_cast<const char*>(call.values) + call.records * (record_bytes + i * call.prefetch_step);
        kernel_.tile(call);
      }
      record += call.records;
    } while (record < end);
    return Status::kOk;
  }

  // The lines that a tile is about to write come in while its products are summed.
  static void prefetch_rows(const FloatTile& call) {
    for (int t = 0; t < call.tokens; ++t)
      for (int v = 0; v < call.vector; v += 16) __builtin_prefetch(call.sums + t * call.sums_stride + v, 1);
  }

  // `added`: the bias where the sums hold it already.
  void finish(int64_t token, int64_t tokens, int64_t group_begin, int64_t group_end, Sums sums,
              const float* added) const {
    epilogue::Block block = epilogue::block_of(io_, token, tokens, group_begin * weight_.vector,
                                               std::min(io_.n, group_end * weight_.vector));
    if (added) block.bias = nullptr;
    block.sums = sums.at;
    block.sums_stride = sums.stride;
    finish_(block);
  }

  const LinearIo& io_;
  const SharedLists& weight_;
  const Kernel& kernel_;
  epilogue::BlockFunction finish_;
  int tile_tokens_;
  Layout layout_;
  bool in_place_;
  int64_t row_pitch_;
  int64_t block_records_;
  int64_t groups_in_y_;          // the first ones
  const float* bias_ = nullptr;  // where sums in y can begin at it
  bool unfinished_;              // whether sums in y still need the epilogue
};

}  // namespace

Status run_float(const LinearIo& io, const SharedLists& weight, const Kernel& kernel) {
  const int64_t groups = (io.n + weight.vector - 1) / weight.vector;
  const Grid grid = choose_grid(io.m, groups, 48);
  const FloatTask task(io, weight, kernel);
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(grid.token_parts * grid.group_parts, [&](int64_t i) {
    const int64_t token_part = i / grid.group_parts, group_part = i % grid.group_parts;
    const Status status = task.run(grid.first_token(token_part, io.m), grid.first_token(token_part + 1, io.m),
                                   grid.first_group(group_part, weight.group_ptr, groups),
                                   grid.first_group(group_part + 1, weight.group_ptr, groups));
    if (status != Status::kOk) result = status;
  });
  return result;
}

}  // namespace shared_lists

Status shared_lists_linear(const LinearIo& io, const SharedLists& weight) {
  Status status = check_io(io);
  if (status == Status::kOk) status = shared_lists::check_lists(weight, io.n, io.k);
  if (status != Status::kOk || io.m == 0 || io.n == 0) return status;
  if (const shared_lists::DotKernel* kernel = shared_lists::dot_kernel(io, weight.vector))
    return shared_lists::run_dot(io, weight, *kernel);
  return shared_lists::run_float(io, weight, shared_lists::float_kernel(weight.vector));
}

}  // namespace sparsecore
