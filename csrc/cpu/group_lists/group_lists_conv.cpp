// The driver of linear layers and convolutions. A task owns some pixels and some windows of channels:
//
//   for each tile of pixels
//     for each panel of the input
//       x where it lies, or packed: columns of the panel x pixels of the tile
//       for each window: add its lists to the sums; after the last panel scale, bias, residual and activation
//     where y is not planes of float32: narrow the sums, or turn them into pixels
//
// Sums gather in y itself where y holds planes of float32, else in scratch memory that stays in the level 2 cache. A
// linear layer is a convolution of 1 x 1 whose image is one column of tokens, channels together.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "cpu/epilogue/epilogue.h"
#include "cpu/group_lists/check.h"
#include "cpu/group_lists/columns.h"
#include "cpu/group_lists/dot.h"
#include "cpu/group_lists/group_lists.h"
#include "cpu/group_lists/staging.h"
#include "sparsecore/parallel.h"

namespace sparsecore {
namespace group_lists {
namespace {

constexpr int64_t kSumBytes = 512 * 1024;      // of staged sums: windows of a chunk times a tile
constexpr int64_t kWidenedValues = 64 * 1024;  // of narrow weights at once, where a list is not longer
constexpr int64_t kShortList = 32;             // columns: a shorter one costs less than its beginning and end
constexpr int64_t kFewProducts = 1 << 19;      // about 6 us: a call below this is not worth a second thread
constexpr int64_t kListRecords = 3;            // what beginning and ending a list costs

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What a window without a single column is packed as.
struct NoRecords {
  int32_t starts[257] = {};
  uint8_t order[256];
  NoRecords() {
    for (int i = 0; i < 256; ++i) order[i] = static_cast<uint8_t>(i);
  }
};
const NoRecords no_records;

// Activations that the kernels apply; the others follow as a pass over the sums.
bool in_kernel(Activation activation) {
  return activation == Activation::kNone || activation == Activation::kRelu || activation == Activation::kRelu6 ||
         activation == Activation::kHardSwish;
}

// Scratch memory of a task, in floats.
struct Memory {
  float *panel, *sums, *residual, *rows, *bias, *values;
  char* staging;
};

class ConvTask {
 public:
  ConvTask(const ConvIo& io, const GroupLists& weight, const Layout& layout, const Kernel& kernel)
      : io_(io),
        weight_(weight),
        layout_(layout),
        kernel_(kernel),
        finish_(epilogue::block_function()),
        x_{io.x, io.x_image_stride, io.x_stride, io.x_layout, io.dtype, io.channels, io.window},
        residual_{io.residual, io.residual_image_stride, io.residual_stride, io.y_layout,
                  io.dtype,    io.out_channels,          io.window} {
    pixels_ = x_.out_pixels();
    strips_ = ceil_div(pixels_, kernel.vector);
    const int64_t rest = pixels_ % kernel.vector;
    few_last_ = kernel.few_lanes && rest && rest <= kernel.few_lanes(weight.rows);
    planes_out_ = io.y_layout == ImageLayout::kChw && io.dtype == DType::kFloat32;
    const bool short_lists = weight.records * weight.cols <= kShortList * layout.groups * layout.panels;
    const bool write_bound = short_lists && planes_out_ && !straddles(io.y, io.y_stride);
    most_strips_ = std::max(1, kernel.max_lanes(weight.rows, weight.depth, write_bound) / kernel.vector);
    planes_in_ = x_.pointwise() && io.x_layout == ImageLayout::kChw && io.dtype == DType::kFloat32 &&
                 layout.k % weight.cols == 0;
    if (packing_pays()) planes_in_ = false;
    in_rows_ = rows_pay(short_lists);
    widened_records_ = 0;
    if (io.weight_dtype != DType::kFloat32) {
      int64_t longest = 0;
      for (int64_t p = 0; p < layout.panels; ++p) {
        const Panel panel = panel_of(weight, layout, p);
        for (int64_t i = 0; i < layout.groups; ++i)
          longest = std::max<int64_t>(longest, panel.starts[i + 1] - panel.starts[i]);
      }
      widened_records_ = std::max(longest, kWidenedValues / (weight.rows * weight.cols));
    }
  }

  // Registers of pixels in an image: parts and tiles begin at multiples of them.
  int64_t strips() const { return strips_; }
  // Those that are not left to the kernel for few pixels, and how many a tile takes where a part has so many.
  int64_t wide_strips() const { return few_last_ ? strips_ - 1 : strips_; }
  int64_t tile_strips(int64_t strips) const {
    return strips == 0 ? 0 : ceil_div(strips, ceil_div(strips, most_strips_));
  }

  // Strips are counted through all images.
  Status run(int64_t strip_begin, int64_t strip_end, int64_t window_begin, int64_t window_end) const {
    if (strip_begin >= strip_end || window_begin >= window_end) return Status::kOk;
    if (!indices_inside(weight_, layout_, window_begin, window_end)) return Status::kBadIndex;
    const int64_t widest = std::min(most_strips_, strip_end - strip_begin) * kernel_.vector;
    const int64_t window_channels = int64_t{weight_.window} * weight_.rows;
    const int64_t windows_at_once = std::max<int64_t>(1, kSumBytes / (window_channels * widest * 4));
    Memory memory;
    if (!take(memory, widest, std::min(windows_at_once, window_end - window_begin) * window_channels))
      return Status::kOutOfMemory;
    for (int64_t image = strip_begin / strips_; image * strips_ < strip_end; ++image) {
      const int64_t begin = std::max<int64_t>(0, strip_begin - image * strips_),
                    end = std::min(strips_, strip_end - image * strips_),
                    wide_end = few_last_ && end == strips_ ? end - 1 : end, count = wide_end - begin,
                    tiles = ceil_div(count, most_strips_);
      const auto for_tiles = [&](int64_t w, int64_t w_end, int64_t p, int64_t p_end) {
        int64_t strip = begin;
        const auto run_tiles = [&](int64_t number, int64_t width) {
          const int64_t at_once = number ? tiles_in_row(width) : 1;
          for (int64_t done = 0; done < number; done += at_once) {
            const int64_t tiles_here = std::min(at_once, number - done), next = strip + tiles_here * width;
            run_tile(memory, image, strip, next, tiles_here, w, w_end, p, p_end);
            strip = next;
          }
        };
        // The first tiles have a register more than the others, if the pixels cannot be cut evenly.
        const int64_t width = tiles ? count / tiles : 0, wider = count - width * tiles;
        run_tiles(wider, width + 1);
        run_tiles(tiles - wider, width);
        if (wide_end < end) run_tile(memory, image, wide_end, end, 1, w, w_end, p, p_end);
      };
      if (weights_pass_once()) {
        for (int64_t p = 0; p < layout_.panels; ++p)
          for (int64_t w = window_begin; w < window_end; ++w) for_tiles(w, w + 1, p, p + 1);
        continue;
      }
      for (int64_t w = window_begin; w < window_end; w += windows_at_once)
        for_tiles(w, std::min(window_end, w + windows_at_once), 0, std::max<int64_t>(1, layout_.panels));
    }
    return Status::kOk;
  }

 private:
  // Planes could be read where they lie, but a packed panel is read faster: always where registers would straddle cache
  // lines, and where every column of the panel lies in a page of its own, more of them than address translation holds
  // at hand. It takes a few uses of every element to earn the packing back.
  bool packing_pays() const {
    constexpr int64_t kPage = 4096, kPagesAtHand = 64;
    const int64_t pitch = io_.x_stride * static_cast<int64_t>(sizeof(float)),
                  uses = weight_.records * weight_.cols / std::max<int64_t>(1, layout_.k);
    const bool scattered = pitch >= 2 * kPage && std::min<int64_t>(weight_.depth, layout_.k) > kPagesAtHand;
    // A group of one or two rows waits for x, one of more rather for the products.
    const int64_t enough = weight_.rows >= 4 ? 24 : 10;
    return (straddles(io_.x, io_.x_stride) && uses >= enough) || (scattered && weight_.rows <= 2 && uses >= 24);
  }

  // Whether registers of planes of floats reach over two cache lines.
  bool straddles(const void* planes, int64_t stride) const {
    constexpr int64_t kLine = 64;
    return (stride * static_cast<int64_t>(sizeof(float)) | reinterpret_cast<intptr_t>(planes)) %
           std::min<int64_t>(kLine, 4 * kernel_.vector);
  }

  // Weights beyond the level 2 cache come from farther away for every tile of pixels, unless a window meets all tiles
  // before the next one does: sums then wait in y from panel to panel. x is read once more for every window, which wide
  // groups do not notice.
  bool weights_pass_once() const {
    constexpr int64_t kCached = 512 * 1024;
    return planes_in_ && planes_out_ && (kernel_.masks || io_.padded || pixels_ % kernel_.vector == 0) &&
           io_.residual != io_.y && weight_.rows >= 4 &&
           weight_.records * weight_.rows * weight_.cols * size_of(io_.weight_dtype) > kCached;
  }

  bool take(Memory& memory, int64_t lanes, int64_t channels) const {
    const int64_t columns = ceil_div(std::min<int64_t>(weight_.depth, layout_.k), weight_.cols) * weight_.cols;
    const auto floats = [](Scratch slot, int64_t count) {
      return static_cast<float*>(scratch(slot, std::max<int64_t>(count, 16) * sizeof(float)));
    };
    memory.panel =
        floats(Scratch::kPanel, columns * lanes + staging_bytes(x_, static_cast<int>(columns), lanes) / 4 + 1);
    memory.sums = floats(Scratch::kSums, 2 * channels * lanes);
    memory.rows = floats(Scratch::kWidened, kFinishChannels * lanes + layout_.n);
    memory.values = floats(Scratch::kCompressed, (widened_records_ + 1) * weight_.rows * weight_.cols);
    if (!memory.panel || !memory.sums || !memory.rows || !memory.values) return false;
    memory.staging = reinterpret_cast<char*>(memory.panel + columns * lanes);
    memory.residual = memory.sums + channels * lanes;
    memory.bias = memory.rows + kFinishChannels * lanes;
    if (io_.bias) kernel_.widen(io_.bias, io_.bias_dtype, layout_.n, memory.bias);
    return true;
  }

  // How many tiles of so many registers a list passes before the next list does.
  int64_t tiles_in_row(int64_t width) const {
    constexpr int64_t kRowBytes = 1024 * 1024;  // of x
    return in_rows_ ? std::max<int64_t>(1, kRowBytes / (layout_.k * width * kernel_.vector * 4)) : 1;
  }

  // Short lists do little but write y, and where it does not stay in the level 2 cache they write it faster in long
  // runs, one channel's pixels after the other. x is then read from that cache, which a group of one or two rows
  // could not wait for. A residual that y overwrites is kept apart, by the tile.
  bool rows_pay(bool short_lists) const {
    const int64_t cached = (weight_.rows >= 8 ? 768 : 1280) * 1024;
    return short_lists && kernel_.side_by_side && weight_.rows >= 4 && weight_.cols == 1 && layout_.panels == 1 &&
           planes_in_ && planes_out_ && in_kernel(io_.activation) && (!io_.residual || io_.residual != io_.y) &&
           (kernel_.masks || io_.padded || pixels_ % kernel_.vector == 0) &&
           (layout_.k + layout_.n) * pixels_ * 4 > cached;
  }

  void run_tile(const Memory& memory, int64_t image, int64_t strip_begin, int64_t strip_end, int64_t tiles,
                int64_t window_begin, int64_t window_end, int64_t panel_begin, int64_t panel_end) const {
    const int64_t pixel = strip_begin * kernel_.vector, first_channel = first_channel_of(window_begin),
                  channels = first_channel_of(window_end) - first_channel;
    const int lanes = static_cast<int>((strip_end - strip_begin) * kernel_.vector),
              tokens = static_cast<int>(std::min<int64_t>(lanes, pixels_ - pixel));
    const bool whole = kernel_.masks || io_.padded || tokens == lanes;
    const bool x_in_place = planes_in_ && whole, y_in_place = planes_out_ && whole;

    Finish finish = {};
    finish.low = -INFINITY, finish.high = INFINITY;
    if (io_.activation == Activation::kRelu || io_.activation == Activation::kRelu6) finish.low = 0.0f;
    if (io_.activation == Activation::kRelu6) finish.high = 6.0f;
    finish.hard_swish = io_.activation == Activation::kHardSwish;
    finish.scale = io_.weight_scale ? io_.weight_scale + first_channel : nullptr;
    finish.bias = io_.bias ? memory.bias + first_channel : nullptr;
    if (io_.residual && y_in_place && io_.residual != io_.y) {
      finish.residual_stride = residual_.stride;
      finish.residual = reinterpret_cast<const float*>(residual_.at(image, first_channel * residual_.stride + pixel));
    } else if (io_.residual) {
      pack_channels(kernel_, residual_, image, first_channel, channels, channels, pixel, tokens, lanes,
                    memory.residual);
      finish.residual_stride = lanes;
      finish.residual = memory.residual;
    }

    Tile tile = {};
    tile.rows = weight_.rows, tile.cols = weight_.cols;
    tile.wide_index = layout_.wide_index;
    tile.lanes = kernel_.masks ? tokens : lanes;
    tile.tiles = static_cast<int>(tiles);
    float* y = memory.sums;
    int64_t y_stride = lanes;
    if (y_in_place) {
      y = static_cast<float*>(io_.y) + image * io_.y_image_stride + first_channel * io_.y_stride + pixel;
      y_stride = io_.y_stride;
    }
    // Sums that every panel loads and stores are kept apart from a y whose registers would straddle cache lines.
    const bool all_panels = panel_begin == 0 && panel_end >= layout_.panels,
               apart = y_in_place && all_panels && straddles(io_.y, io_.y_stride);
    float* sums = apart ? memory.sums : y;
    const int64_t sums_stride = apart ? lanes : y_stride;
    for (int64_t p = panel_begin; p < panel_end; ++p) {
      Panel panel = {0, 0, 0, no_records.starts, no_records.order};
      if (layout_.panels) panel = panel_of(weight_, layout_, p);
      if (x_in_place) {
        tile.x = reinterpret_cast<const float*>(x_.at(image, panel.first_column * x_.stride + pixel));
        tile.x_stride = x_.stride;
      } else {
        pack_columns(kernel_, x_, image, panel.first_column, panel.columns, panel.blocks * weight_.cols, pixel, tokens,
                     lanes, memory.panel, memory.staging);
        tile.x = memory.panel;
        tile.x_stride = lanes;
      }
      const bool last = p + 1 >= layout_.panels;
      tile.before = p > 0 ? sums : nullptr;
      tile.before_stride = sums_stride;
      tile.sums = last ? y : sums;
      tile.sums_stride = last ? y_stride : sums_stride;
      tile.finish = last ? &finish : nullptr;
      for (int64_t w = window_begin; w < window_end; ++w) run_window(memory, panel, w, window_begin, tile);
    }
    if (panel_end < layout_.panels) return;
    if (!y_in_place)
      unstage({io_, kernel_, in_kernel(io_.activation) ? Activation::kNone : io_.activation, memory.sums, lanes, image,
               pixel, tokens, first_channel, channels, memory.rows});
    else if (!in_kernel(io_.activation))
      activate_in_place(y, tokens, channels);
  }

  int64_t first_channel_of(int64_t window) const { return std::min(layout_.n, window * weight_.window * weight_.rows); }

  // `tile` as it is for the windows from `first` on, moved to window w.
  void run_window(const Memory& memory, const Panel& panel, int64_t w, int64_t first, Tile tile) const {
    const int64_t place = w * weight_.window, places = std::min<int64_t>(weight_.window, layout_.groups - place),
                  offset = first_channel_of(w) - first_channel_of(first);
    Finish finish;
    if (tile.finish) {
      finish = *tile.finish;
      if (finish.scale) finish.scale += offset;
      if (finish.bias) finish.bias += offset;
      if (finish.residual) finish.residual += offset * finish.residual_stride;
      tile.finish = &finish;
    }
    tile.sums += offset * tile.sums_stride;
    if (tile.before) tile.before += offset * tile.before_stride;
    tile.channels = first_channel_of(w + 1) - first_channel_of(w);
    if (layout_.panels == 0) {
      tile.starts = panel.starts, tile.order = panel.order, tile.places = places;
      kernel_.tile(tile);
      return;
    }
    const int32_t* starts = panel.starts + place;
    const int64_t record_values = int64_t{weight_.rows} * weight_.cols,
                  value_bytes = record_values * size_of(io_.weight_dtype);
    for (int64_t done = 0; done < places; done += tile.places) {
      tile.starts = starts + done, tile.order = panel.order + place + done;
      tile.places = places - done;
      tile.index = static_cast<const char*>(weight_.index) + int64_t{starts[done]} * (layout_.wide_index ? 2 : 1);
      const char* values = static_cast<const char*>(weight_.values) + starts[done] * value_bytes;
      tile.values = reinterpret_cast<const float*>(values);
      tile.readable = weight_.records + 1 - starts[done];
      if (io_.weight_dtype != DType::kFloat32) {
        tile.places = 1;
        while (done + tile.places < places && starts[done + tile.places + 1] - starts[done] <= widened_records_)
          ++tile.places;
        kernel_.widen(values, io_.weight_dtype, (starts[done + tile.places] - starts[done]) * record_values,
                      memory.values);
        tile.values = memory.values;
        tile.readable = std::min(tile.readable, widened_records_ + 1);
      }
      kernel_.tile(tile);
    }
  }

  void activate_in_place(float* sums, int tokens, int64_t channels) const {
    epilogue::Block block = {};
    block.sums = sums, block.sums_stride = io_.y_stride;
    block.y = sums, block.y_row_stride = io_.y_stride;
    block.rows = channels, block.n = tokens;
    block.activation = io_.activation;
    finish_(block);
  }

  const ConvIo& io_;
  const GroupLists& weight_;
  const Layout& layout_;
  const Kernel& kernel_;
  epilogue::BlockFunction finish_;
  Images x_, residual_;
  int64_t pixels_, strips_, most_strips_, widened_records_;
  bool planes_in_, planes_out_, few_last_, in_rows_;
};

// How a call is cut into tasks: strips of pixels x windows of channels, so that the largest part is small. Cutting
// windows reads x once more; cutting strips may leave tiles narrower than they could be.
struct Grid {
  int64_t strip_parts = 1, window_parts = 1;

  Grid(const ConvTask& task, const GroupLists& weight, const Layout& layout, int64_t strips, int64_t pixels) {
    const int64_t threads = num_threads(),
                  columns = weight.records * weight.cols + kListRecords * layout.panels * layout.groups;
    if (threads <= 1 || columns * weight.rows * pixels < kFewProducts) return;
    const auto records_before = [&](int64_t window) {
      const int64_t group = std::min(layout.groups, window * weight.window);
      int64_t total = 0;
      for (int64_t p = 0; p < layout.panels; ++p) {
        const Panel panel = panel_of(weight, layout, p);
        total += panel.starts[group] - panel.starts[0];
      }
      return total;
    };
    double best = 1.0;
    for (int64_t a = 1; a <= std::min(threads, strips); ++a) {
      const int64_t b = std::min(threads / a, layout.windows), widest = ceil_div(strips, a);
      int64_t most = 0;
      for (int64_t part = 0; part < b; ++part)
        most = std::max(most, records_before(first_window(weight, layout, part + 1, b)) -
                                  records_before(first_window(weight, layout, part, b)));
      double time = static_cast<double>(widest) / strips * most / std::max<int64_t>(weight.records, 1);
      time *= 1.0 + 0.03 * static_cast<double>(b - 1);
      if (a > 1 && task.tile_strips(widest) < task.tile_strips(task.wide_strips())) time *= 1.15;
      if (time < best) best = time, strip_parts = a, window_parts = b;
    }
  }
};

Status run_conv(const ConvIo& io, const GroupLists& weight, int64_t k) {
  const Layout layout(weight, io.out_channels, k);
  const ConvTask task(io, weight, layout, kernel());
  const int64_t strips = io.images * task.strips();
  const Grid grid(task, weight, layout, strips, io.images * io.window.out_height * io.window.out_width);
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(grid.strip_parts * grid.window_parts, [&](int64_t i) {
    const int64_t strip_part = i / grid.window_parts, window_part = i % grid.window_parts;
    const Status done = task.run(strip_part * strips / grid.strip_parts, (strip_part + 1) * strips / grid.strip_parts,
                                 first_window(weight, layout, window_part, grid.window_parts),
                                 first_window(weight, layout, window_part + 1, grid.window_parts));
    if (done != Status::kOk) result = done;
  });
  return result;
}

Status check_conv(const ConvIo& io, const GroupLists& weight) {
  const Window& window = io.window;
  Status status = check_sides(io.images, io.channels, io.out_channels, window);
  if (status != Status::kOk) return status;
  const int64_t pixels = window.height * window.width, out_pixels = window.out_height * window.out_width;
  if (!good_strides(io.images, io.x_image_stride, io.x_stride, io.x_layout, io.channels, pixels, io.padded) ||
      !good_strides(io.images, io.y_image_stride, io.y_stride, io.y_layout, io.out_channels, out_pixels, io.padded) ||
      (io.residual && !good_strides(io.images, io.residual_image_stride, io.residual_stride, io.y_layout,
                                    io.out_channels, out_pixels, io.padded)))
    return Status::kBadShape;
  if (io.dtype == DType::kInt8 || io.bias_dtype == DType::kInt8) return Status::kUnsupportedDType;
  if (io.weight_dtype == DType::kInt8 && !io.weight_scale && io.out_channels) return Status::kBadScale;
  if (io.compute == Compute::kInt8 && (io.weight_dtype != DType::kInt8 || !(io.x_scale >= 0 && io.x_scale < 1e30f)))
    return io.weight_dtype == DType::kInt8 ? Status::kBadScale : Status::kUnsupportedDType;
  status = group_lists_check(weight, io.out_channels, io.channels * window.kernel_h * window.kernel_w);
  if (status != Status::kOk) return status;
  if (io.images && io.out_channels && (!io.y || (io.channels && !io.x))) return Status::kNullPointer;
  return Status::kOk;
}

}  // namespace
}  // namespace group_lists

Status group_lists_conv(const ConvIo& io, const GroupLists& weight) {
  using namespace group_lists;
  const Status status = check_conv(io, weight);
  if (status != Status::kOk || io.images == 0 || io.out_channels == 0) return status;
  const int64_t k = io.channels * io.window.kernel_h * io.window.kernel_w;
  return io.compute == Compute::kInt8 ? run_dot(io, weight, k, false) : run_conv(io, weight, k);
}

Status group_lists_linear(const LinearIo& io, const GroupLists& weight) {
  using namespace group_lists;
  Status status = check_io(io);
  if (status == Status::kOk) status = group_lists_check(weight, io.n, io.k);
  if (status != Status::kOk || io.m == 0 || io.n == 0) return status;
  if (io.compute == Compute::kInt8 && io.weight_dtype != DType::kInt8) return Status::kUnsupportedDType;
  ConvIo conv;
  conv.x = io.x, conv.y = io.y, conv.bias = io.bias, conv.weight_scale = io.weight_scale;
  conv.channels = io.k, conv.out_channels = io.n;
  conv.x_stride = io.x_row_stride, conv.y_stride = io.y_row_stride;
  conv.x_layout = conv.y_layout = ImageLayout::kHwc;
  conv.window.height = conv.window.out_height = io.m;
  conv.window.width = conv.window.out_width = 1;
  conv.dtype = io.dtype, conv.bias_dtype = io.bias_dtype, conv.weight_dtype = io.weight_dtype;
  conv.activation = io.activation;
  return io.compute == Compute::kInt8 ? run_dot(conv, weight, io.k, true) : run_conv(conv, weight, io.k);
}

}  // namespace sparsecore
