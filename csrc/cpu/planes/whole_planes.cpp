// Operators that read each plane from its first element to its last: mean, sum of two, scale, activation, and
// squeeze-and-excite, which is the mean, two small dense layers and the scale in one call.
#include <atomic>

#include "cpu/planes/planes.h"
#include "sparsecore/parallel.h"

namespace sparsecore {
namespace planes {
namespace {

enum class Operand { kNone, kPlanes, kVector };

Status check(const PlanesIo& io, Operand second, bool y_is_planes) {
  Status status = check_planes(1, io.channels, io.pixels, 0, io.x_stride, io.padded);
  if (status == Status::kOk && second == Operand::kPlanes)
    status = check_planes(1, io.channels, io.pixels, 0, io.x2_stride, io.padded);
  if (status == Status::kOk && y_is_planes) status = check_planes(1, io.channels, io.pixels, 0, io.y_stride, io.padded);
  if (status != Status::kOk || io.channels == 0) return status;
  const bool reads = io.pixels > 0;
  if ((reads && (!io.x || (second != Operand::kNone && !io.x2))) || ((reads || !y_is_planes) && !io.y))
    return Status::kNullPointer;
  return Status::kOk;
}

// body(channel, pixel, count): lines of whole planes, or parts of them where planes are few.
template <typename Body>
void for_lines(const PlanesIo& io, Body&& body) {
  constexpr int64_t kPart = 64 * kPlaneLanes;
  const int64_t parts = (io.pixels + kPart - 1) / kPart;
  const Cut cut(1, io.channels, parts);
  parallel_for_each(cut.tasks(), [&](int64_t task) {
    run_task(cut, task, [&](int64_t, int64_t begin, int64_t end, int64_t part_begin, int64_t part_end) {
      const int64_t pixel = part_begin * kPart, stop = part_end == parts ? io.pixels : part_end * kPart;
      for (int64_t c = begin; c < end; ++c) body(c, pixel, stop - pixel);
    });
  });
}

void average(const PlanesIo& io, float* y) {
  const Kernel& best = kernel();
  const float count = static_cast<float>(io.pixels);
  const Cut cut(1, io.channels, 1);
  parallel_for_each(cut.tasks(), [&](int64_t task) {
    run_task(cut, task, [&](int64_t, int64_t begin, int64_t end, int64_t, int64_t) {
      for (int64_t c = begin; c < end; ++c) y[c] = best.sum(io.x + c * io.x_stride, io.pixels) / count;
    });
  });
}

void scale(const PlanesIo& io, const float* factors) {
  const Kernel& best = kernel();
  for_lines(io, [&](int64_t c, int64_t pixel, int64_t count) {
    best.line(
        {io.x + c * io.x_stride + pixel, nullptr, factors[c], io.y + c * io.y_stride + pixel, count, io.activation});
  });
}

}  // namespace
}  // namespace planes

Status average_planes(const PlanesIo& io) {
  const Status status = planes::check(io, planes::Operand::kNone, false);
  if (status != Status::kOk) return status;
  if (io.channels > 0 && io.pixels == 0) return Status::kBadShape;
  planes::average(io, io.y);
  return Status::kOk;
}

Status add_planes(const PlanesIo& io) {
  const Status status = planes::check(io, planes::Operand::kPlanes, true);
  if (status != Status::kOk) return status;
  const planes::Kernel& best = planes::kernel();
  planes::for_lines(io, [&](int64_t c, int64_t pixel, int64_t count) {
    best.line({io.x + c * io.x_stride + pixel, io.x2 + c * io.x2_stride + pixel, 1.0f, io.y + c * io.y_stride + pixel,
               count, io.activation});
  });
  return Status::kOk;
}

Status scale_planes(const PlanesIo& io) {
  const Status status = planes::check(io, planes::Operand::kVector, true);
  if (status == Status::kOk) planes::scale(io, io.x2);
  return status;
}

Status activate_planes(const PlanesIo& io) {
  const Status status = planes::check(io, planes::Operand::kNone, true);
  if (status != Status::kOk) return status;
  const planes::Kernel& best = planes::kernel();
  planes::for_lines(io, [&](int64_t c, int64_t pixel, int64_t count) {
    best.line({io.x + c * io.x_stride + pixel, nullptr, 1.0f, io.y + c * io.y_stride + pixel, count, io.activation});
  });
  return Status::kOk;
}

Status squeeze_excite(const SqueezeExciteIo& io) {
  const int64_t channels = io.planes.channels, squeezed = io.squeezed;
  const Status status = planes::check(io.planes, planes::Operand::kNone, true);
  if (status != Status::kOk) return status;
  if (squeezed < 0 || (channels > 0 && squeezed > (int64_t{1} << 40) / channels)) return Status::kBadShape;
  if (channels == 0 || io.planes.pixels == 0) return Status::kOk;
  if (squeezed > 0 && (!io.weight1 || !io.weight2)) return Status::kNullPointer;
  float* memory = static_cast<float*>(scratch(Scratch::kSums, (2 * channels + squeezed) * sizeof(float)));
  if (!memory) return Status::kOutOfMemory;
  float *means = memory, *gates = means + channels, *hidden = gates + channels;
  const planes::Kernel& best = planes::kernel();
  planes::average(io.planes, means);
  best.dense({means, io.weight1, io.bias1, hidden, squeezed, channels, io.inner});
  best.dense({hidden, io.weight2, io.bias2, gates, channels, squeezed, io.gate});
  PlanesIo scaled = io.planes;
  scaled.activation = Activation::kNone;
  planes::scale(scaled, gates);
  return Status::kOk;
}

}  // namespace sparsecore
