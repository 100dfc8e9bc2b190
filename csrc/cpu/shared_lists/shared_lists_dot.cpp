// The driver of the dot-product kernels (bfloat16 pairs, int8 quads). A task owns some tokens and some groups:
//
//   for each chunk of tokens: transpose (and quantise) it, 32 tokens a panel
//     for each block of 256 channels: interleave the weights of its groups
//       for each panel, each 64 channels of the block
//         for each group, each block of steps: gather the kept columns, then one call per tile of tokens
//         finish the panel's rows while its sums are in level 1
//
// int8: where activations are stored as u = q + offset, sum w u = sum w q + offset sum w; the second term is taken off
// as integers before the token's scale is applied: int32 sums are exact and the same for every instruction set.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "cpu/epilogue/epilogue.h"
#include "cpu/shared_lists/shared_lists.h"
#include "sparsecore/parallel.h"

namespace sparsecore::shared_lists {
namespace {

constexpr int64_t kPanelBytes = 1024 * 1024;  // of a chunk: read by gathers only, so level 3 will do
constexpr int64_t kMaxPanels = 16;
constexpr int64_t kBlockSteps = 64;  // gathered columns (8 KiB) and 64 channels of weights (16 KiB) share level 1
constexpr int64_t kSumChannels = 64;
constexpr int64_t kBlockChannels = 256;  // so long a piece of a row of y is written by one panel

const char* at(const void* array, int64_t element, DType dtype) {
  return static_cast<const char*>(array) + element * size_of(dtype);
}

class DotTask {
 public:
  DotTask(const LinearIo& io, const SharedLists& weight, const DotKernel& kernel)
      : io_(io), weight_(weight), kernel_(kernel), finish_(epilogue::block_function()) {
    quantised_ = io.compute == Compute::kInt8;
    panel_bytes_ = io.k * kDotTokens * (4 / kernel.depth);
    tile_tokens_ = kernel.tile_tokens(weight.vector);
    stride_ = std::max<int64_t>(kSumChannels, weight.vector);
    const int64_t groups = (io.n + weight.vector - 1) / weight.vector;
    int64_t longest = 0;
    for (int64_t g = 0; g < groups; ++g)
      longest = std::max<int64_t>(longest, weight.group_ptr[g + 1] - weight.group_ptr[g]);
    most_steps_ = (longest + kernel.depth - 1) / kernel.depth;
  }

  Status run(int64_t token_begin, int64_t token_end, int64_t group_begin, int64_t group_end) {
    if (group_begin >= group_end) return Status::kOk;
    const int64_t panels = std::clamp<int64_t>(kPanelBytes / std::max<int64_t>(panel_bytes_, 1), 1, kMaxPanels);
    const int64_t chunk = panels * kDotTokens;
    for (int64_t t = token_begin; t < token_end; t += chunk) {
      const Status status = run_chunk(t, std::min(chunk, token_end - t), group_begin, group_end);
      if (status != Status::kOk) return status;
    }
    return Status::kOk;
  }

 private:
  Status run_chunk(int64_t token, int64_t tokens, int64_t group_begin, int64_t group_end) {
    const int64_t panels = (tokens + kDotTokens - 1) / kDotTokens;
    char* panel = static_cast<char*>(scratch(Scratch::kPanel, panels * (panel_bytes_ + kDotTokens * sizeof(float))));
    const int64_t groups_at_once = std::max<int64_t>(kBlockChannels / weight_.vector, 1);
    const int64_t groups_in_sums = std::max<int64_t>(kSumChannels / weight_.vector, 1);
    group_bytes_ = most_steps_ * weight_.vector * 4;
    interleaved_ = static_cast<char*>(scratch(Scratch::kWidened, groups_at_once * group_bytes_ + 64));
    sums_ = static_cast<float*>(scratch(Scratch::kSums, kDotTokens * stride_ * sizeof(float)));
    steps_ = static_cast<char*>(scratch(Scratch::kCompressed, kBlockSteps * kDotTokens * 4));
    if (!panel || !interleaved_ || !sums_ || !steps_) return Status::kOutOfMemory;
    float* token_scale = reinterpret_cast<float*>(panel + panels * panel_bytes_);
    for (int64_t p = 0; p < panels && io_.k; ++p)
      kernel_.pack(at(io_.x, (token + p * kDotTokens) * io_.x_row_stride, io_.dtype), io_.dtype, io_.x_row_stride,
                   width(tokens, p), io_.k, panel + p * panel_bytes_, token_scale + p * kDotTokens);
    if (!io_.k) std::fill(token_scale, token_scale + tokens, 0.0f);
    for (int64_t g = group_begin; g < group_end; g += groups_at_once) {
      const int64_t end = std::min(group_end, g + groups_at_once);
      for (int64_t i = g; i < end; ++i)
        if (!prepare_group(i, i - g)) return Status::kBadIndex;
      for (int64_t p = 0; p < panels; ++p)
        for (int64_t i = g; i < end; i += groups_in_sums)
          run_panel(g, i, std::min(end, i + groups_in_sums), token + p * kDotTokens, width(tokens, p),
                    panel + p * panel_bytes_, token_scale + p * kDotTokens);
    }
    return Status::kOk;
  }

  // Groups begin .. end - 1 of the block that starts at `first`, over one panel.
  void run_panel(int64_t first, int64_t begin, int64_t end, int64_t token, int tokens, const char* panel,
                 const float* token_scale) const {
    const int64_t channel_begin = begin * weight_.vector, channel_end = std::min(io_.n, end * weight_.vector);
    prefetch_rows(token, tokens, channel_begin, channel_end);
    for (int64_t i = begin; i < end; ++i) run_group(i, i - first, (i - begin) * weight_.vector, tokens, panel);
    finish(token, tokens, channel_begin, channel_end, token_scale);
  }

  static int width(int64_t tokens, int64_t panel) {
    return static_cast<int>(std::min<int64_t>(kDotTokens, tokens - panel * kDotTokens));
  }

  // The lines of y that finish() is about to write come in while the products are summed.
  void prefetch_rows(int64_t token, int tokens, int64_t channel_begin, int64_t channel_end) const {
    for (int t = 0; t < tokens; ++t) {
      const char* row = at(io_.y, (token + t) * io_.y_row_stride, io_.dtype);
      for (int64_t b = channel_begin * size_of(io_.dtype); b < channel_end * size_of(io_.dtype); b += 64)
        __builtin_prefetch(row + b, 1);
    }
  }

  // Weights side by side and, for int8, where the sums start; `slot` is the group's place in the block.
  bool prepare_group(int64_t group, int64_t slot) {
    const int64_t begin = weight_.group_ptr[group], records = weight_.group_ptr[group + 1] - begin;
    if (!columns_inside(weight_.columns + begin, records, io_.k)) return false;
    char* interleaved = interleaved_ + slot * group_bytes_;
    kernel_.interleave(at(weight_.values, begin * weight_.vector, io_.weight_dtype), records, weight_.vector,
                       interleaved);
    if (kernel_.offset)
      start_sums(interleaved, (records + kernel_.depth - 1) / kernel_.depth, starts_ + slot * weight_.vector);
    return true;
  }

  void run_group(int64_t group, int64_t slot, int64_t column, int tokens, const char* panel) const {
    const int64_t begin = weight_.group_ptr[group], records = weight_.group_ptr[group + 1] - begin;
    const int64_t tiles = (tokens + tile_tokens_ - 1) / tile_tokens_;
    DotTile call = {};
    call.vector = weight_.vector;
    call.sums_stride = stride_;
    call.start = kernel_.offset ? starts_ + slot * weight_.vector : nullptr;
    int64_t record = 0;
    do {  // once even where the group keeps nothing: its sums are zero
      const int64_t count = std::min(records - record, kBlockSteps * kernel_.depth);
      kernel_.gather(panel, weight_.columns + begin + record, count, steps_);
      call.interleaved = interleaved_ + slot * group_bytes_ + record / kernel_.depth * weight_.vector * 4;
      call.count = (count + kernel_.depth - 1) / kernel_.depth;
      call.accumulate = record > 0;
      for (int64_t i = 0; i < tiles; ++i) {
        const int64_t first = i * tokens / tiles;
        call.tokens = static_cast<int>((i + 1) * tokens / tiles - first);
        call.steps = steps_ + first * 4;
        call.sums = sums_ + first * stride_ + column;
        kernel_.tile(call);
      }
      record += count;
    } while (record < records);
  }

  // -offset times the sum of each channel's weights: what the offset adds to every sum, taken off beforehand.
  // A token of ones through the same kernel gives the sums.
  void start_sums(const char* interleaved, int64_t count, int32_t* start) {
    std::memset(steps_, 1, kBlockSteps * kDotTokens * 4);
    DotTile call = {};
    call.steps = steps_;
    call.tokens = 1;
    call.vector = weight_.vector;
    call.sums = start;
    call.sums_stride = weight_.vector;
    for (int64_t step = 0; step == 0 || step < count; step += kBlockSteps) {
      call.interleaved = interleaved + step * weight_.vector * 4;
      call.count = std::min(count - step, kBlockSteps);
      call.accumulate = step > 0;
      kernel_.tile(call);
    }
    for (int v = 0; v < weight_.vector; ++v) start[v] *= -kernel_.offset;
  }

  void finish(int64_t token, int tokens, int64_t channel_begin, int64_t channel_end, const float* token_scale) const {
    epilogue::Block block = epilogue::block_of(io_, token, tokens, channel_begin, channel_end);
    block.sums = sums_;
    block.sums_stride = stride_;
    block.token_scale = quantised_ ? token_scale : nullptr;
    finish_(block);
  }

  const LinearIo& io_;
  const SharedLists& weight_;
  const DotKernel& kernel_;
  epilogue::BlockFunction finish_;
  bool quantised_;
  int64_t panel_bytes_, most_steps_, stride_;
  int tile_tokens_;
  // Scratch memory of the thread, taken per chunk.
  int64_t group_bytes_ = 0;
  char* interleaved_ = nullptr;
  char* steps_ = nullptr;
  float* sums_ = nullptr;
  int32_t starts_[kBlockChannels];
};

}  // namespace

Status run_dot(const LinearIo& io, const SharedLists& weight, const DotKernel& kernel) {
  const int64_t groups = (io.n + weight.vector - 1) / weight.vector;
  const Grid grid = choose_grid(io.m, groups, 2 * kDotTokens);
  const DotTask whole(io, weight, kernel);
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(grid.token_parts * grid.group_parts, [&](int64_t i) {
    const int64_t token_part = i / grid.group_parts, group_part = i % grid.group_parts;
    DotTask task = whole;
    const Status status = task.run(grid.first_token(token_part, io.m), grid.first_token(token_part + 1, io.m),
                                   grid.first_group(group_part, weight.group_ptr, groups),
                                   grid.first_group(group_part + 1, weight.group_ptr, groups));
    if (status != Status::kOk) result = status;
  });
  return result;
}

}  // namespace sparsecore::shared_lists
