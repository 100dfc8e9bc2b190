#include <atomic>

#include "cpu/planes/planes.h"
#include "sparsecore/parallel.h"

namespace sparsecore {

Status depthwise_conv(const DepthwiseIo& io) {
  using namespace planes;
  const Window& window = io.window;
  Status status = check_window(window);
  if (status != Status::kOk) return status;
  const int64_t area = window.height * window.width, out_area = window.out_height * window.out_width;
  status = check_planes(io.images, io.channels, area, io.x_image_stride, io.x_stride, io.padded);
  if (status == Status::kOk)
    status = check_planes(io.images, io.channels, out_area, io.y_image_stride, io.y_stride, io.padded);
  if (status != Status::kOk || io.images == 0 || io.channels == 0) return status;
  if (!io.x || !io.y || !io.weight) return Status::kNullPointer;

  const Kernel& best = kernel();
  const size_t scratch_size = best.depthwise_scratch(window);
  const int64_t taps = window.kernel_h * window.kernel_w;
  const Cut cut(io.images, io.channels, window.out_height);
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(cut.tasks(), [&](int64_t task) {
    run_task(cut, task, [&](int64_t image, int64_t begin, int64_t end, int64_t row_begin, int64_t row_end) {
      DepthwiseRows rows = {};
      rows.scratch = scratch_size ? scratch(Scratch::kPanel, scratch_size) : nullptr;
      if (scratch_size && !rows.scratch) {
        result = Status::kOutOfMemory;
        return;
      }
      rows.x = io.x + image * io.x_image_stride + begin * io.x_stride;
      rows.y = io.y + image * io.y_image_stride + begin * io.y_stride;
      rows.weight = io.weight + begin * taps;
      rows.bias = io.bias ? io.bias + begin : nullptr;
      rows.planes = end - begin;
      rows.x_stride = io.x_stride;
      rows.y_stride = io.y_stride;
      rows.window = &window;
      rows.row_begin = row_begin;
      rows.row_end = row_end;
      rows.activation = io.activation;
      best.depthwise(rows);
    });
  });
  return result;
}

}  // namespace sparsecore
