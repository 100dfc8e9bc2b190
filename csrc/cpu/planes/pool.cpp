#include <atomic>

#include "cpu/planes/planes.h"
#include "sparsecore/parallel.h"

namespace sparsecore {

Status pool_planes(const PoolIo& io) {
  using namespace planes;
  const Window& window = io.window;
  Status status = check_window(window);
  if (status != Status::kOk) return status;
  status = check_planes(io.images, io.channels, window.height * window.width, io.x_image_stride, io.x_stride, false);
  if (status == Status::kOk)
    status = check_planes(io.images, io.channels, window.out_height * window.out_width, io.y_image_stride, io.y_stride,
                          false);
  if (status != Status::kOk || io.images == 0 || io.channels == 0) return status;
  if (!io.x || !io.y) return Status::kNullPointer;

  const Kernel& best = kernel();
  const size_t scratch_size = best.pool_scratch(window);
  const Cut cut(io.images, io.channels, window.out_height);
  std::atomic<Status> result{Status::kOk};
  parallel_for_each(cut.tasks(), [&](int64_t task) {
    run_task(cut, task, [&](int64_t image, int64_t begin, int64_t end, int64_t row_begin, int64_t row_end) {
      float* row = static_cast<float*>(scratch_size ? scratch(Scratch::kPanel, scratch_size) : nullptr);
      if (scratch_size && !row) {
        result = Status::kOutOfMemory;
        return;
      }
      for (int64_t c = begin; c < end; ++c)
        best.pool({io.x + image * io.x_image_stride + c * io.x_stride,
                   io.y + image * io.y_image_stride + c * io.y_stride, &window, row_begin, row_end, io.pool, row});
    });
  });
  return result;
}

}  // namespace sparsecore
