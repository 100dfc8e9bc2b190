// What every operator of this family asks of its shapes, and how it cuts its work.
#include <algorithm>

#include "cpu/planes/planes.h"
#include "sparsecore/parallel.h"

namespace sparsecore {
namespace {

// Sizes up to these make every product below fit.
constexpr int64_t kLargestSize = int64_t{1} << 30, kLargestKernel = int64_t{1} << 15, kLargestArea = int64_t{1} << 40;

bool within(int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; }

// Along one side of the image: the first window reaches x from before it, and the last one starts before its end.
bool side_fits(int64_t size, int64_t out, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
  if (!within(size, 1, kLargestSize) || !within(out, 1, kLargestSize) || !within(kernel, 1, kLargestKernel) ||
      !within(stride, 1, kLargestSize) || !within(dilation, 1, kLargestSize))
    return false;
  return within(pad, 0, (kernel - 1) * dilation) && (out - 1) * stride - pad < size;
}

}  // namespace

Status check_window(const Window& window) {
  const bool fits =
      side_fits(window.height, window.out_height, window.kernel_h, window.stride_h, window.pad_top,
                window.dilation_h) &&
      side_fits(window.width, window.out_width, window.kernel_w, window.stride_w, window.pad_left, window.dilation_w);
  return fits && window.height <= kLargestArea / window.width && window.out_height <= kLargestArea / window.out_width
             ? Status::kOk
             : Status::kBadShape;
}

namespace planes {

Status check_planes(int64_t images, int64_t channels, int64_t area, int64_t image_stride, int64_t stride, bool padded) {
  if (!within(images, 0, kLargestSize) || !within(channels, 0, kLargestSize) || !within(area, 0, kLargestArea))
    return Status::kBadShape;
  const int64_t extent = padded ? (area + kPlaneLanes - 1) / kPlaneLanes * kPlaneLanes : area;
  if (channels > 1 && !within(stride, extent, kLargestArea)) return Status::kBadShape;
  const int64_t image_extent = channels > 1 ? (channels - 1) * stride + extent : extent;
  if (images > 1 && !within(image_stride, channels ? image_extent : 0, INT64_MAX / images)) return Status::kBadShape;
  return Status::kOk;
}

Cut::Cut(int64_t images_, int64_t planes_, int64_t rows_)
    : images(images_), planes(planes_), rows(rows_), plane_parts(0), row_parts(0) {
  if (!images || !planes || !rows) return;
  // A few parts for each thread, so that uneven ones do not matter; rows are cut where planes are too few for that.
  const int64_t threads = num_threads(), wanted = threads == 1 ? 1 : (4 * threads + images - 1) / images;
  plane_parts = std::min(wanted, planes);
  row_parts = std::clamp<int64_t>((wanted + plane_parts - 1) / plane_parts, 1, std::max<int64_t>(1, rows / 4));
}

}  // namespace planes
}  // namespace sparsecore
