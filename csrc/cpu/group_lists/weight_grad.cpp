// Gradient of the kept values. A task owns some windows of channels:
//
//   for each tile of pixels: pack the slopes of its channels
//     for each panel: pack its columns, add grad . x for every record of every window
//
// A value is the sum of its tiles in order, whichever thread computes it.
#include <algorithm>
#include <atomic>

#include "cpu/group_lists/check.h"
#include "cpu/group_lists/columns.h"
#include "cpu/group_lists/group_lists.h"
#include "sparsecore/parallel.h"

namespace sparsecore {
namespace group_lists {
namespace {

constexpr int64_t kSlopeBytes = 512 * 1024;  // of a chunk of windows times a tile of pixels

class GradTask {
 public:
  GradTask(const Images& grad_y, const Images& x, int64_t images, float* out, const GroupLists& weight,
           const Layout& layout, const Kernel& kernel)
      : grad_y_(grad_y), x_(x), images_(images), out_(out), weight_(weight), layout_(layout), kernel_(kernel) {}

  Status run(int64_t window_begin, int64_t window_end) const {
    if (window_begin >= window_end || layout_.panels == 0) return Status::kOk;
    if (!indices_inside(weight_, layout_, window_begin, window_end)) return Status::kBadIndex;
    const int64_t pixels = x_.out_pixels(), window_channels = int64_t{weight_.window} * weight_.rows;
    int lanes = kernel_.gradient_lanes;
    while (lanes > 16 && lanes / 2 >= pixels) lanes /= 2;
    const int64_t at_once = std::max<int64_t>(1, kSlopeBytes / (window_channels * lanes * 4));
    const int64_t columns = std::min<int64_t>(weight_.depth, layout_.k + weight_.cols);
    float* x = static_cast<float*>(scratch(
        Scratch::kPanel, columns * lanes * sizeof(float) + staging_bytes(x_, static_cast<int>(columns), lanes)));
    float* slopes = static_cast<float*>(scratch(
        Scratch::kSums, std::min(at_once, window_end - window_begin) * window_channels * lanes * sizeof(float)));
    if (!x || !slopes) return Status::kOutOfMemory;
    char* staging = reinterpret_cast<char*>(x + columns * lanes);
    for (int64_t w = window_begin; w < window_end; w += at_once) {
      const int64_t end = std::min(window_end, w + at_once);
      bool accumulate = false;
      for (int64_t image = 0; image < images_; ++image)
        for (int64_t pixel = 0; pixel < pixels; pixel += lanes, accumulate = true)
          run_tile(image, pixel, static_cast<int>(std::min<int64_t>(lanes, pixels - pixel)), lanes, w, end, accumulate,
                   x, slopes, staging);
      if (!accumulate) clear(w, end);
    }
    return Status::kOk;
  }

 private:
  void run_tile(int64_t image, int64_t pixel, int tokens, int lanes, int64_t window_begin, int64_t window_end,
                bool accumulate, float* x, float* slopes, char* staging) const {
    const int64_t first_group = window_begin * weight_.window,
                  groups = std::min(layout_.groups, window_end * weight_.window) - first_group,
                  channel = first_group * weight_.rows;
    pack_channels(kernel_, grad_y_, image, channel, std::min(layout_.n - channel, groups * weight_.rows),
                  groups * weight_.rows, pixel, tokens, lanes, slopes);
    GradientTile tile = {};
    tile.rows = weight_.rows, tile.cols = weight_.cols;
    tile.wide_index = layout_.wide_index;
    tile.x = x, tile.lanes = lanes;
    tile.accumulate = accumulate;
    for (int64_t p = 0; p < layout_.panels; ++p) {
      const Panel panel = panel_of(weight_, layout_, p);
      pack_columns(kernel_, x_, image, panel.first_column, panel.columns, panel.blocks * weight_.cols, pixel, tokens,
                   lanes, x, staging);
      for (int64_t w = window_begin; w < window_end; ++w) {
        const int64_t place = w * weight_.window, record = panel.starts[place];
        tile.starts = panel.starts + place, tile.order = panel.order + place;
        tile.places = std::min<int64_t>(weight_.window, layout_.groups - place);
        tile.index = static_cast<const char*>(weight_.index) + record * (layout_.wide_index ? 2 : 1);
        tile.out = out_ + record * weight_.rows * weight_.cols;
        tile.grad = slopes + (place - first_group) * weight_.rows * lanes;
        kernel_.gradient(tile);
      }
    }
  }

  // Without a single pixel the gradient is zero.
  void clear(int64_t window_begin, int64_t window_end) const {
    const int64_t begin = window_begin * weight_.window, end = std::min(layout_.groups, window_end * weight_.window);
    for (int64_t p = 0; p < layout_.panels; ++p) {
      const Panel panel = panel_of(weight_, layout_, p);
      std::fill(out_ + int64_t{panel.starts[begin]} * weight_.rows * weight_.cols,
                out_ + int64_t{panel.starts[end]} * weight_.rows * weight_.cols, 0.0f);
    }
  }

  const Images &grad_y_, &x_;
  int64_t images_;
  float* out_;
  const GroupLists& weight_;
  const Layout& layout_;
  const Kernel& kernel_;
};

// The values themselves are not read.
Status check_lists_only(const GroupLists& weight, const float* out, int64_t n, int64_t k) {
  GroupLists lists = weight;
  lists.values = out;
  return group_lists_check(lists, n, k);
}

Status run_gradient(const Images& grad_y, const Images& x, int64_t images, float* out, const GroupLists& weight,
                    int64_t n, int64_t k) {
  const Layout layout(weight, n, k);
  const GradTask task(grad_y, x, images, out, weight, layout, kernel());
  const int64_t parts = std::clamp<int64_t>(num_threads(), 1, std::max<int64_t>(layout.windows, 1));
  if (out) std::fill_n(out + weight.records * weight.rows * weight.cols, weight.rows * weight.cols, 0.0f);
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(parts, [&](int64_t part) {
    const Status done =
        task.run(first_window(weight, layout, part, parts), first_window(weight, layout, part + 1, parts));
    if (done != Status::kOk) result = done;
  });
  return result;
}

}  // namespace
}  // namespace group_lists

Status group_lists_weight_grad(const WeightGradIo& io, const GroupLists& weight) {
  using namespace group_lists;
  if (io.m < 0 || io.n < 0 || io.k < 0) return Status::kBadShape;
  if (io.m > 1 && (io.x_row_stride < 0 || io.grad_y_row_stride < 0)) return Status::kBadShape;
  if (io.dtype == DType::kInt8) return Status::kUnsupportedDType;
  const Status status = check_lists_only(weight, io.out, io.n, io.k);
  if (status != Status::kOk) return status;
  if (io.m > 0 && io.n > 0 && io.k > 0 && (!io.x || !io.grad_y)) return Status::kNullPointer;
  Window window;
  window.height = window.out_height = io.m;
  window.width = window.out_width = 1;
  const Images grad_y = {io.grad_y, 0, io.grad_y_row_stride, ImageLayout::kHwc, io.dtype, io.n, window},
               x = {io.x, 0, io.x_row_stride, ImageLayout::kHwc, io.dtype, io.k, window};
  return run_gradient(grad_y, x, 1, io.out, weight, io.n, io.k);
}

Status group_lists_conv_weight_grad(const ConvGradIo& io, const GroupLists& weight) {
  using namespace group_lists;
  const Window& window = io.window;
  Status status = check_sides(io.images, io.channels, io.out_channels, window);
  if (status != Status::kOk) return status;
  if (!good_strides(io.images, io.x_image_stride, io.x_stride, io.layout, io.channels, window.height * window.width,
                    false) ||
      !good_strides(io.images, io.grad_y_image_stride, io.grad_y_stride, io.layout, io.out_channels,
                    window.out_height * window.out_width, false))
    return Status::kBadShape;
  if (io.dtype == DType::kInt8) return Status::kUnsupportedDType;
  const int64_t k = io.channels * window.kernel_h * window.kernel_w;
  status = check_lists_only(weight, io.out, io.out_channels, k);
  if (status != Status::kOk) return status;
  if (io.images > 0 && io.out_channels > 0 && k > 0 && (!io.x || !io.grad_y)) return Status::kNullPointer;
  const Images grad_y = {io.grad_y, io.grad_y_image_stride, io.grad_y_stride, io.layout, io.dtype, io.out_channels,
                         window},
               x = {io.x, io.x_image_stride, io.x_stride, io.layout, io.dtype, io.channels, window};
  return run_gradient(grad_y, x, io.images, io.out, weight, io.out_channels, k);
}

}  // namespace sparsecore
