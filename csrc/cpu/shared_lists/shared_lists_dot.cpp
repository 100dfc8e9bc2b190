// The driver of the dot-product kernels (bfloat16 pairs, int8 quads). A task owns some tokens and some groups:
//
//   for each chunk of tokens: transpose (and quantise) it, 32 tokens a panel
//     for each block of channels
//       for each group: interleave its weights once; for each panel, each block of steps: gather the
//       kept columns, then one call per tile
//       finish the rows
//
// int8: activations are stored as u = q + 128, so sum w u = sum w q + 128 sum w, and the second term is taken off as
// integers before the token's scale is applied: int32 sums are exact and the same for every instruction set.
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
constexpr int64_t kSumBytes = 192 * 1024;

const char* at(const void* array, int64_t element, DType dtype) {
  return static_cast<const char*>(array) + element * size_of(dtype);
}

class DotTask {
 public:
  DotTask(const LinearIo& io, const SharedLists& weight, const DotKernel& kernel)
      : io_(io), weight_(weight), kernel_(kernel), finish_(epilogue::row_function()) {
    quantised_ = io.compute == Compute::kInt8;
    panel_bytes_ = io.k * kDotTokens * (4 / kernel.depth);
    tile_tokens_ = kernel.tile_tokens(weight.vector);
    const int64_t groups = (io.n + weight.vector - 1) / weight.vector;
    int64_t longest = 0;
    for (int64_t g = 0; g < groups; ++g)
      longest = std::max<int64_t>(longest, weight.group_ptr[g + 1] - weight.group_ptr[g]);
    most_steps_ = (longest + kernel.depth - 1) / kernel.depth;
  }

  Status run(int64_t token_begin, int64_t token_end, int64_t group_begin, int64_t group_end) const {
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
  Status run_chunk(int64_t token, int64_t tokens, int64_t group_begin, int64_t group_end) const {
    const int64_t panels = (tokens + kDotTokens - 1) / kDotTokens;
    const int64_t groups_at_once =
        std::clamp<int64_t>(kSumBytes / (tokens * 4 * weight_.vector), (63 + weight_.vector) / weight_.vector,
                            (255 + weight_.vector) / weight_.vector);
    const int64_t stride = groups_at_once * weight_.vector;
    char* panel = static_cast<char*>(scratch(Scratch::kPanel, panels * panel_bytes_ + 64));
    // The sums of a block of channels, then the scale of every token.
    float* sums = static_cast<float*>(scratch(Scratch::kSums, tokens * (stride + 1) * sizeof(float)));
    if (!panel || !sums) return Status::kOutOfMemory;
    float* token_scale = sums + tokens * stride;
    for (int64_t p = 0; p < panels && io_.k; ++p)
      kernel_.pack(at(io_.x, (token + p * kDotTokens) * io_.x_row_stride, io_.dtype), io_.dtype, io_.x_row_stride,
                   static_cast<int>(std::min<int64_t>(kDotTokens, tokens - p * kDotTokens)), io_.k,
                   panel + p * panel_bytes_, token_scale + p * kDotTokens);
    for (int64_t g = group_begin; g < group_end; g += groups_at_once) {
      const int64_t end = std::min(group_end, g + groups_at_once);
      for (int64_t i = g; i < end; ++i) {
        const Status status = run_group(i, tokens, panel, sums + (i - g) * weight_.vector, stride);
        if (status != Status::kOk) return status;
      }
      finish(token, tokens, g * weight_.vector, std::min(io_.n, end * weight_.vector), sums, stride, token_scale);
    }
    return Status::kOk;
  }

  Status run_group(int64_t group, int64_t tokens, const char* panel, float* sums, int64_t stride) const {
    const int64_t begin = weight_.group_ptr[group], records = weight_.group_ptr[group + 1] - begin;
    const uint16_t* columns = weight_.columns + begin;
    if (!columns_inside(columns, records, io_.k)) return Status::kBadIndex;
    char* steps = static_cast<char*>(scratch(Scratch::kCompressed, kBlockSteps * kDotTokens * 4));
    char* interleaved = static_cast<char*>(scratch(Scratch::kWidened, most_steps_ * weight_.vector * 4 + 64));
    if (!steps || !interleaved) return Status::kOutOfMemory;
    const void* values = at(weight_.values, begin * weight_.vector, io_.weight_dtype);
    kernel_.interleave(values, records, weight_.vector, interleaved);
    DotTile call = {};
    call.vector = weight_.vector;
    call.sums_stride = stride;
    int32_t start[64];
    if (quantised_) {
      if (!start_sums(interleaved, (records + kernel_.depth - 1) / kernel_.depth, start)) return Status::kOutOfMemory;
      call.start = start;
    }
    const int64_t block_records = kBlockSteps * kernel_.depth;
    for (int64_t p = 0; p * kDotTokens < tokens; ++p) {
      const int64_t width = std::min<int64_t>(kDotTokens, tokens - p * kDotTokens);
      const int64_t tiles = (width + tile_tokens_ - 1) / tile_tokens_;
      int64_t record = 0;
      do {  // once even where the group keeps nothing: its sums are zero
        const int64_t count = std::min(records - record, block_records);
        kernel_.gather(panel + p * panel_bytes_, columns + record, count, steps);
        call.interleaved = interleaved + record / kernel_.depth * weight_.vector * 4;
        call.count = (count + kernel_.depth - 1) / kernel_.depth;
        call.accumulate = record > 0;
        for (int64_t i = 0; i < tiles; ++i) {
          const int64_t first = i * width / tiles;
          call.tokens = static_cast<int>((i + 1) * width / tiles - first);
          call.steps = steps + first * 4;
          call.sums = sums + (p * kDotTokens + first) * stride;
          kernel_.tile(call);
        }
        record += count;
      } while (record < records);
    }
    return Status::kOk;
  }

  // -128 times the sum of each channel's weights: what the offset of 128 adds to every sum, taken off beforehand.
  // A token of ones through the same kernel gives the sums.
  bool start_sums(const char* interleaved, int64_t count, int32_t* start) const {
    const int64_t bytes = kBlockSteps * kDotTokens * 4;
    char* ones = static_cast<char*>(scratch(Scratch::kCompressed, bytes));
    if (!ones) return false;
    std::memset(ones, 1, bytes);
    DotTile call = {};
    call.steps = ones;
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
    for (int v = 0; v < weight_.vector; ++v) start[v] *= -128;
    return true;
  }

  void finish(int64_t token, int64_t tokens, int64_t channel_begin, int64_t channel_end, float* sums, int64_t stride,
              const float* token_scale) const {
    epilogue::Row row = {};
    row.scale = io_.weight_scale ? io_.weight_scale + channel_begin : nullptr;
    row.bias = io_.bias ? at(io_.bias, channel_begin, io_.bias_dtype) : nullptr;
    row.bias_dtype = io_.bias_dtype;
    row.activation = io_.activation;
    row.dtype = io_.dtype;
    row.n = channel_end - channel_begin;
    for (int64_t t = 0; t < tokens; ++t) {
      float* out = sums + t * stride;
      if (quantised_) kernel_.to_float(out, row.n, token_scale[t]);
      row.sums = out;
      row.y = const_cast<char*>(at(io_.y, (token + t) * io_.y_row_stride + channel_begin, io_.dtype));
      finish_(row);
    }
  }

  const LinearIo& io_;
  const SharedLists& weight_;
  const DotKernel& kernel_;
  epilogue::RowFunction finish_;
  bool quantised_;
  int64_t panel_bytes_, most_steps_;
  int tile_tokens_;
};

}  // namespace

Status run_dot(const LinearIo& io, const SharedLists& weight, const DotKernel& kernel) {
  const int64_t groups = (io.n + weight.vector - 1) / weight.vector;
  const Grid grid = choose_grid(io.m, groups, 2 * kDotTokens);
  const DotTask task(io, weight, kernel);
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

}  // namespace sparsecore::shared_lists
