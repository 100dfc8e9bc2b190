// The driver of the int8 kernels. A task owns some tiles of kDotLanes pixels and some windows of channels:
//
//   make the quads of its windows, panel by panel, and where their sums begin
//   for each tile of pixels
//     for each panel: pack the columns as floats, quantise them, add the quads of every window to the sums
//     scale, bias and residual turn the sums into floats; activation and narrowing follow as for float kernels
//
// Where a kernel stores q + offset, sum w (q + offset) = sum w q + offset sum w: sums begin at -offset sum w.
#include <algorithm>
#include <atomic>
#include <cstring>

#include "cpu/epilogue/epilogue.h"
#include "cpu/group_lists/columns.h"
#include "cpu/group_lists/dot.h"
#include "cpu/group_lists/staging.h"
#include "cpu/quantise.h"
#include "sparsecore/parallel.h"

namespace sparsecore::group_lists {
namespace {

constexpr int64_t kChunkBytes = 512 * 1024;  // of sums: windows of a chunk times a tile
constexpr int64_t kImageParts = 16;          // an image's largest element is looked for in so many parts

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Pieces of one block of memory, each on a cache line of its own.
class Pieces {
 public:
  template <typename T>
  int64_t reserve(int64_t count) {
    const int64_t at = bytes_;
    bytes_ += ceil_div(count * static_cast<int64_t>(sizeof(T)), 64) * 64;
    return at;
  }
  bool take(Scratch slot) { return (memory_ = static_cast<char*>(scratch(slot, bytes_ + 64))) != nullptr; }
  template <typename T>
  T* at(int64_t offset) const {
    return reinterpret_cast<T*>(memory_ + offset);
  }

 private:
  int64_t bytes_ = 0;
  char* memory_ = nullptr;
};

class DotTask {
 public:
  DotTask(const ConvIo& io, const GroupLists& weight, const Layout& layout, bool per_pixel)
      : io_(io),
        weight_(weight),
        layout_(layout),
        floats_(kernel()),
        dots_(dot_kernel()),
        x_{io.x, io.x_image_stride, io.x_stride, io.x_layout, io.dtype, io.channels, io.window},
        residual_{io.residual, io.residual_image_stride, io.residual_stride, io.y_layout,
                  io.dtype,    io.out_channels,          io.window},
        per_pixel_(per_pixel),
        together_(weight.cols % 4 == 0) {
    columns_ = ceil_div(std::min<int64_t>(weight.depth, layout.k), weight.cols) * weight.cols;
  }

  int64_t tiles() const { return ceil_div(x_.out_pixels(), kDotLanes); }

  // image_scale [images]: null where pixels have their own.
  Status run(int64_t tile_begin, int64_t tile_end, int64_t window_begin, int64_t window_end,
             const TokenScale* image_scale) const {
    if (tile_begin >= tile_end || window_begin >= window_end) return Status::kOk;
    if (!indices_inside(weight_, layout_, window_begin, window_end)) return Status::kBadIndex;
    const int64_t per_window = int64_t{weight_.window} * weight_.rows * kDotLanes * 4;
    const int64_t at_once = std::max<int64_t>(1, kChunkBytes / per_window);
    for (int64_t w = window_begin; w < window_end; w += at_once) {
      const Status status = run_windows(tile_begin, tile_end, w, std::min(window_end, w + at_once), image_scale);
      if (status != Status::kOk) return status;
    }
    return Status::kOk;
  }

 private:
  // What a chunk of windows works on.
  struct Chunk {
    int64_t first_group, groups, first_channel, channels;
    int32_t *weights, *starts, *start, *sums;
    uint16_t* columns;
    float *panel, *bias, *residual, *rows, *lane_scale, *inverse;
    uint8_t* quantised;
    char* staging;
  };

  int64_t quads_of(int64_t records) const { return ceil_div(records * weight_.cols, 4); }

  Status run_windows(int64_t tile_begin, int64_t tile_end, int64_t window_begin, int64_t window_end,
                     const TokenScale* image_scale) const {
    Chunk chunk = {};
    chunk.first_group = window_begin * weight_.window;
    chunk.groups = std::min<int64_t>(layout_.groups, window_end * weight_.window) - chunk.first_group;
    chunk.first_channel = chunk.first_group * weight_.rows;
    chunk.channels = std::min(layout_.n, (chunk.first_group + chunk.groups) * weight_.rows) - chunk.first_channel;
    int64_t quads = 0;
    for (int64_t p = 0; p < layout_.panels; ++p) {
      const int32_t* starts = panel_of(weight_, layout_, p).starts + chunk.first_group;
      for (int64_t i = 0; i < chunk.groups; ++i) quads += quads_of(starts[i + 1] - starts[i]);
    }
    const int64_t padded = chunk.groups * weight_.rows;

    Pieces lists;
    const int64_t weights = lists.reserve<int32_t>(quads * weight_.rows),
                  columns = lists.reserve<uint16_t>(quads * (together_ ? 1 : 4)),
                  starts = lists.reserve<int32_t>(layout_.panels * (chunk.groups + 1)),
                  start = lists.reserve<int32_t>(padded);
    Pieces sums;
    const int64_t sum = sums.reserve<int32_t>(padded * kDotLanes), residual = sums.reserve<float>(padded * kDotLanes);
    Pieces panels;
    const int64_t panel = panels.reserve<float>(columns_ * kDotLanes),
                  quantised = panels.reserve<uint8_t>(columns_ * kDotLanes),
                  staging = panels.reserve<char>(staging_bytes(x_, static_cast<int>(columns_), kDotLanes));
    Pieces rows;
    const int64_t row = rows.reserve<float>(kFinishChannels * kDotLanes), bias = rows.reserve<float>(layout_.n),
                  lane_scale = rows.reserve<float>(kDotLanes), inverse = rows.reserve<float>(kDotLanes);
    if (!lists.take(Scratch::kCompressed) || !sums.take(Scratch::kSums) || !panels.take(Scratch::kPanel) ||
        !rows.take(Scratch::kWidened))
      return Status::kOutOfMemory;
    chunk.weights = lists.at<int32_t>(weights), chunk.columns = lists.at<uint16_t>(columns);
    chunk.starts = lists.at<int32_t>(starts), chunk.start = lists.at<int32_t>(start);
    chunk.sums = sums.at<int32_t>(sum), chunk.residual = sums.at<float>(residual);
    chunk.panel = panels.at<float>(panel), chunk.quantised = panels.at<uint8_t>(quantised);
    chunk.staging = panels.at<char>(staging);
    chunk.rows = rows.at<float>(row), chunk.bias = rows.at<float>(bias);
    chunk.lane_scale = rows.at<float>(lane_scale), chunk.inverse = rows.at<float>(inverse);

    make_quads(chunk, padded);
    if (io_.bias) floats_.widen(io_.bias, io_.bias_dtype, layout_.n, chunk.bias);
    for (int64_t tile = tile_begin; tile < tile_end; ++tile)
      run_tile(chunk, tile, window_begin, window_end, image_scale);
    return Status::kOk;
  }

  void make_quads(const Chunk& chunk, int64_t padded) const {
    const int rows = weight_.rows, cols = weight_.cols;
    const int8_t* values = static_cast<const int8_t*>(weight_.values);
    std::fill(chunk.start, chunk.start + padded, 0);
    int32_t quads = 0;
    for (int64_t p = 0; p < layout_.panels; ++p) {
      const Panel panel = panel_of(weight_, layout_, p);
      int32_t* starts = chunk.starts + p * (chunk.groups + 1);
      for (int64_t i = 0; i < chunk.groups; ++i) {
        starts[i] = quads;
        const int64_t place = chunk.first_group + i, begin = panel.starts[place], end = panel.starts[place + 1],
                      group = i / weight_.window * weight_.window + panel.order[place], columns = (end - begin) * cols;
        for (int64_t c = 0; c < columns; c += 4, ++quads) {
          for (int r = 0; r < rows; ++r) {
            int8_t four[4] = {};
            for (int64_t j = 0; j < 4 && c + j < columns; ++j) {
              four[j] = values[(begin * cols + c + j) * rows + r];
              chunk.start[group * rows + r] -= dots_.offset * four[j];
            }
            std::memcpy(chunk.weights + int64_t{quads} * rows + r, four, 4);
          }
          if (together_) {
            chunk.columns[quads] = static_cast<uint16_t>((block_at(begin + c / cols) * cols + c % cols) / 4);
            continue;
          }
          for (int64_t j = 0; j < 4; ++j)
            chunk.columns[int64_t{quads} * 4 + j] =
                c + j < columns ? static_cast<uint16_t>(block_at(begin + (c + j) / cols) * cols + (c + j) % cols) : 0;
        }
      }
      starts[chunk.groups] = quads;
    }
  }

  int64_t block_at(int64_t record) const {
    return layout_.wide_index ? static_cast<const uint16_t*>(weight_.index)[record]
                              : static_cast<const uint8_t*>(weight_.index)[record];
  }

  void run_tile(const Chunk& chunk, int64_t tile, int64_t window_begin, int64_t window_end,
                const TokenScale* image_scale) const {
    const int64_t image = tile / tiles(), pixel = tile % tiles() * kDotLanes;
    const int pixels = static_cast<int>(std::min<int64_t>(kDotLanes, x_.out_pixels() - pixel));
    for (int lane = 0; lane < kDotLanes; ++lane) {
      TokenScale scale = {0.0f, 0.0f};
      if (!per_pixel_)
        scale = image_scale[image];
      else if (lane < pixels)
        scale = token_scale(dots_.largest(x_.at(image, (pixel + lane) * io_.x_stride), io_.dtype, layout_.k));
      chunk.lane_scale[lane] = scale.scale;
      chunk.inverse[lane] = scale.inverse;
    }
    for (int64_t p = 0; p < layout_.panels; ++p) {
      const Panel panel = panel_of(weight_, layout_, p);
      const int padded = panel.blocks * weight_.cols;
      pack_columns(floats_, x_, image, panel.first_column, panel.columns, padded, pixel, pixels, kDotLanes, chunk.panel,
                   chunk.staging);
      dots_.quantise(chunk.panel, chunk.inverse, padded, together_, chunk.quantised);
      for (int64_t w = window_begin; w < window_end; ++w) {
        const int64_t first = w * weight_.window - chunk.first_group;
        DotTile call = {};
        call.weights = chunk.weights, call.columns = chunk.columns;
        call.starts = chunk.starts + p * (chunk.groups + 1) + first;
        call.order = panel.order + chunk.first_group + first;
        call.places = std::min<int64_t>(weight_.window, chunk.groups - first);
        call.rows = weight_.rows, call.together = together_;
        call.panel = chunk.quantised;
        call.sums = chunk.sums + first * weight_.rows * kDotLanes;
        call.accumulate = p > 0;
        call.start = chunk.start + first * weight_.rows;
        dots_.tile(call);
      }
    }
    if (!layout_.panels) std::fill(chunk.sums, chunk.sums + chunk.channels * kDotLanes, 0);

    DotFinish finish = {chunk.sums, chunk.channels, chunk.lane_scale, io_.weight_scale + chunk.first_channel,
                        nullptr,    nullptr};
    if (io_.bias) finish.bias = chunk.bias + chunk.first_channel;
    if (io_.residual) {
      pack_channels(floats_, residual_, image, chunk.first_channel, chunk.channels, chunk.channels, pixel, pixels,
                    kDotLanes, chunk.residual);
      finish.residual = chunk.residual;
    }
    dots_.finish(finish);
    unstage({io_, floats_, io_.activation, reinterpret_cast<const float*>(chunk.sums), kDotLanes, image, pixel, pixels,
             chunk.first_channel, chunk.channels, chunk.rows});
  }

  const ConvIo& io_;
  const GroupLists& weight_;
  const Layout& layout_;
  const Kernel& floats_;
  const DotKernel& dots_;
  Images x_, residual_;
  bool per_pixel_, together_;
  int64_t columns_;
};

// The largest bits of every image. Rows are planes or pixels.
void find_scales(const ConvIo& io, TokenScale* scales) {
  const DotKernel& dots = dot_kernel();
  const bool planes = io.x_layout == ImageLayout::kChw;
  const int64_t pixels = io.window.height * io.window.width, rows = planes ? io.channels : pixels,
                length = planes ? pixels : io.channels;
  for (int64_t image = 0; image < io.images; ++image) {
    uint32_t found[kImageParts] = {};
    parallel_for_each(kImageParts, [&](int64_t part) {
      for (int64_t row = part * rows / kImageParts; row < (part + 1) * rows / kImageParts; ++row) {
        const char* x =
            static_cast<const char*>(io.x) + (image * io.x_image_stride + row * io.x_stride) * size_of(io.dtype);
        found[part] = std::max(found[part], dots.largest(x, io.dtype, length));
      }
    });
    scales[image] = token_scale(*std::max_element(found, found + kImageParts));
  }
}

}  // namespace

Status run_dot(const ConvIo& io, const GroupLists& weight, int64_t k, bool per_pixel) {
  const Layout layout(weight, io.out_channels, k);
  const DotTask task(io, weight, layout, per_pixel);
  // The calling thread's own tasks use every other slot.
  TokenScale* scales = static_cast<TokenScale*>(scratch(Scratch::kCall, io.images * sizeof(TokenScale)));
  if (!scales) return Status::kOutOfMemory;
  if (!per_pixel && io.x_scale > 0)
    std::fill(scales, scales + io.images, TokenScale{io.x_scale, 1.0f / io.x_scale});
  else if (!per_pixel)
    find_scales(io, scales);
  const int64_t tiles = io.images * task.tiles(), threads = num_threads(),
                tile_parts = std::clamp<int64_t>(tiles, 1, threads),
                window_parts = std::clamp<int64_t>(threads / tile_parts, 1, std::max<int64_t>(1, layout.windows));
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(tile_parts * window_parts, [&](int64_t i) {
    const int64_t tile_part = i / window_parts, window_part = i % window_parts;
    const Status done = task.run(tile_part * tiles / tile_parts, (tile_part + 1) * tiles / tile_parts,
                                 first_window(weight, layout, window_part, window_parts),
                                 first_window(weight, layout, window_part + 1, window_parts), scales);
    if (done != Status::kOk) result = done;
  });
  return result;
}

}  // namespace sparsecore::group_lists
