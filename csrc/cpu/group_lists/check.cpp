// What a convolution promises: shapes, strides, pointers and types.
#include "cpu/group_lists/check.h"

namespace sparsecore::group_lists {
namespace {

constexpr int64_t kLargest = int64_t{1} << 31;

}  // namespace

Status check_sides(int64_t images, int64_t channels, int64_t out_channels, const Window& window) {
  if (images < 0 || images >= kLargest || channels < 0 || channels >= kLargest || out_channels < 0 ||
      out_channels >= kLargest || check_window(window) != Status::kOk)
    return Status::kBadShape;
  if (window.kernel_h >= kLargest / window.kernel_w) return Status::kBadShape;
  return channels * (window.kernel_h * window.kernel_w) < kLargest ? Status::kOk : Status::kBadShape;
}

bool good_strides(int64_t images, int64_t image_stride, int64_t stride, ImageLayout layout, int64_t channels,
                  int64_t pixels, bool padded) {
  constexpr int64_t kFarthest = int64_t{1} << 40;
  if (stride < 0 || image_stride < 0 || stride > kFarthest || image_stride > kFarthest) return false;
  if (images > 1 && image_stride == 0) return false;
  if (layout == ImageLayout::kHwc) return pixels <= 1 || stride >= channels;
  if (padded) pixels = (pixels + kPlaneLanes - 1) / kPlaneLanes * kPlaneLanes;
  return channels <= 1 || stride >= pixels;
}

}  // namespace sparsecore::group_lists
