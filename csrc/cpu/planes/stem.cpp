#include <atomic>

#include "cpu/planes/planes.h"
#include "sparsecore/parallel.h"

namespace sparsecore {
namespace {

// Pixels of `channels` values, `stride` apart, are planes of one pixel each to check_planes.
Status check_input(const StemIo& io) {
  const int64_t area = io.window.height * io.window.width;
  if (io.x_layout == ImageLayout::kChw)
    return planes::check_planes(io.images, io.channels, area, io.x_image_stride, io.x_stride, io.padded);
  return planes::check_planes(io.images, area, io.channels, io.x_image_stride, io.x_stride, false);
}

}  // namespace

Status stem_conv(const StemIo& io) {
  using namespace planes;
  const Window& window = io.window;
  Status status = check_window(window);
  if (status == Status::kOk) status = check_input(io);
  if (status == Status::kOk)
    status = check_planes(io.images, io.out_channels, window.out_height * window.out_width, io.y_image_stride,
                          io.y_stride, io.padded);
  if (status != Status::kOk || io.images == 0 || io.out_channels == 0) return status;
  const int64_t taps = window.kernel_h * window.kernel_w;
  if (io.channels > (int64_t{1} << 31) / taps) return Status::kBadShape;
  if (!io.y || (io.channels > 0 && (!io.x || !io.weight))) return Status::kNullPointer;

  const Kernel& best = kernel();
  const size_t scratch_size = best.stem_scratch(window, io.channels, io.out_channels);
  const Cut cut(io.images, 1, window.out_height);
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(cut.tasks(), [&](int64_t task) {
    run_task(cut, task, [&](int64_t image, int64_t, int64_t, int64_t row_begin, int64_t row_end) {
      StemRows rows = {};
      rows.scratch = scratch_size ? scratch(Scratch::kPanel, scratch_size) : nullptr;
      if (scratch_size && !rows.scratch) {
        result = Status::kOutOfMemory;
        return;
      }
      rows.x = io.x + image * io.x_image_stride;
      rows.y = io.y + image * io.y_image_stride;
      rows.weight = io.weight;
      rows.bias = io.bias;
      rows.channels = io.channels;
      rows.out_channels = io.out_channels;
      rows.x_stride = io.x_stride;
      rows.y_stride = io.y_stride;
      rows.x_layout = io.x_layout;
      rows.window = &window;
      rows.row_begin = row_begin;
      rows.row_end = row_end;
      rows.activation = io.activation;
      best.stem(rows);
    });
  });
  return result;
}

}  // namespace sparsecore
